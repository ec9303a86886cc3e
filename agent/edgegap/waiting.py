"""Waiting for a state, with a deadline."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from agent.edgegap.errors import (
    BadRequestError,
    DeadlineExceededError,
    DeploymentFailedError,
    GoneError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from agent.edgegap.models import DeploymentStatus, State
from agent.retry import RetryPolicy

Progress = Callable[[DeploymentStatus], None]
"""Told of every status that was received, also when nothing changed."""

_random = random.SystemRandom()
GetStatus = Callable[[str], Awaitable[DeploymentStatus]]

POLLS = RetryPolicy(first=0.25, cap=2.0, least=0.7)
"""The time between two questions: quick at first, then slower, because the 20 status calls a second are for all."""


async def wait_until_ready(
    get: GetStatus, deployment_id: str, deadline_seconds: float, on_status: Progress | None = None
) -> DeploymentStatus:
    """Wait until a deployment is ready for players.

    Args:
        get: asks for a status.
        deployment_id: which.
        deadline_seconds: how long to wait at most.
        on_status: told of every status.

    Raises:
        DeploymentFailedError: it is in error, or ending: it will never be ready.
        DeadlineExceededError: it is not ready in time.
        EdgegapError: its status cannot be had, and waiting does not help.
    """
    action = f"wait until deployment {deployment_id} is ready"

    def ready(status: DeploymentStatus) -> bool:
        if status.state in {State.ERROR, State.TERMINATING, State.TERMINATED}:
            detail = f": {status.error_detail}" if status.error_detail else ""
            raise DeploymentFailedError(action, f"it is {status.state}{detail}")
        return status.state is State.READY

    return await _wait(get, deployment_id, deadline_seconds, on_status, ready, action)


async def wait_until_terminated(
    get: GetStatus, deployment_id: str, deadline_seconds: float, on_status: Progress | None = None
) -> DeploymentStatus | None:
    """Wait until a deployment is terminated.

    Args:
        get: asks for a status.
        deployment_id: which; it must exist or have existed, because the platform forgets terminated deployments.
        deadline_seconds: how long to wait at most.
        on_status: told of every status.

    Returns:
        Its last status; None where the platform does not know it any more.

    Raises:
        DeadlineExceededError: it is not terminated in time.
        EdgegapError: its status cannot be had, and waiting does not help.
    """
    action = f"wait until deployment {deployment_id} is terminated"
    try:
        return await _wait(
            get,
            deployment_id,
            deadline_seconds,
            on_status,
            lambda status: status.state is State.TERMINATED,
            action,
        )
    except (NotFoundError, GoneError, BadRequestError):  # 400 is what the live API says to an unknown id
        return None


async def _wait(
    get: GetStatus,
    deployment_id: str,
    deadline_seconds: float,
    on_status: Progress | None,
    reached: Callable[[DeploymentStatus], bool],
    action: str,
) -> DeploymentStatus:
    last = "it never answered"
    asked = 0
    try:
        async with asyncio.timeout(deadline_seconds):
            while True:
                try:
                    status = await get(deployment_id)
                except (RateLimitedError, UnavailableError) as error:
                    last = f"the platform did not answer ({error.message})"
                else:
                    last = f"it is {status.state}"
                    if on_status is not None:
                        on_status(status)
                    if reached(status):
                        return status
                await asyncio.sleep(POLLS.wait(asked, _random))
                asked += 1
    except TimeoutError:
        raise DeadlineExceededError(action, f"{deadline_seconds:g} s are over, and {last}") from None
