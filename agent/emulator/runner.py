"""Moves a deployment through its states, with one task for each, from `SEEKING` to `TERMINATED`."""

from __future__ import annotations

import asyncio
import logging
import os

from agent.emulator import engine, environment
from agent.emulator.container import Container
from agent.emulator.deployment import Crash, Deployment, Status, StopRequest
from agent.emulator.errors import CannotPlace, CannotRun
from agent.emulator.ports import transports
from agent.emulator.services import Services
from agent.emulator.storage import keep_logs
from agent.retry import RetryPolicy

log = logging.getLogger(__name__)
CRASH_LOG_BYTES = 256 * 1024
"""Most of a crashed attempt's output that is kept as its crash log: the end of it."""


STABLE_SECONDS = 10.0
"""A game that ran so long did not fail at its start (what docker takes for the same question)."""


class DeploymentRunner:
    """Takes one deployment through its states, from its deploy to its end.

    Args:
        deployment: already placed on a host; placing can fail, and the answer to a deploy says so.
        services: of the platform it is on.
    """

    def __init__(self, deployment: Deployment, services: Services) -> None:
        """See the class."""
        self._deployment = deployment
        self._services = services
        self._settings = services.settings
        self._started = 0.0
        self._failed_starts = 0

    async def run(self, trouble: str = "") -> None:
        """All of it; whatever happens, nothing of the deployment is left afterwards.

        Args:
            trouble: why it could not be placed: it exists all the same, in error, until it is stopped.
        """
        deployment = self._deployment
        try:
            try:
                if trouble:
                    raise CannotPlace(trouble)
                await self._deploy()
                await self._serve()
            except (CannotRun, CannotPlace) as error:
                await self._fail(str(error))
            except Exception as error:
                log.exception("deployment %s: the emulator itself failed", deployment.id)
                await self._fail(f"cannot go on: the emulator failed ({type(error).__name__}); look at its output")
            await self._terminate()
        finally:
            await self._release()

    async def _deploy(self) -> None:
        """Seeking, seeked, deploying, ready."""
        deployment, delays = self._deployment, self._settings.delays
        await self._services.pause(delays.seeking)
        deployment.become(Status.SEEKED)
        await self._services.pause(delays.seeked)
        deployment.become(Status.DEPLOYING)
        await self._services.pause(delays.deploying)
        if self._services.closing.is_set():
            return
        deployment.forwarding = await self._services.port_book.take(deployment.version.ports)
        deployment.ports = deployment.forwarding.mappings
        deployment.container = await self._start()
        if self._settings.check_ports:
            await self._check_ports()
        deployment.become(Status.READY)
        self._services.tell(deployment, deployment.request.webhook_on_ready)

    async def _start(self) -> Container:
        """Start the game, as a process or a container."""
        self._started = asyncio.get_running_loop().time()
        deployment, version = self._deployment, self._deployment.version
        user = environment.merged(version.envs, deployment.request.environment_variables)
        given = environment.injected(deployment, self._services.url)
        tag = f"ARBITRIUM_DELETE_TOKEN={deployment.delete_token}"
        if not self._as_container():
            return await Container.start(
                engine.process_command(version),
                {**environment.inherited(os.environ), **user, **given},
                container_log=deployment.container_log,
                tag=tag,
                directory=self._settings.directory,
            )
        runner, name, game = self._services.engine, self._container_name(), {**user, **given}
        assert runner is not None
        await runner.create(version, name, game, self._services.closing)
        container = await Container.start(
            runner.start_command(name),
            runner.environment(game),
            container_log=deployment.container_log,
            tag=tag,
            linger=engine.LINGER_SECONDS,
            clean_up=runner.remove_command(name),
        )
        deployment.container = container
        container.inner_pid = await runner.wait_until_running(name, container)
        return container

    def _as_container(self) -> bool:
        """Whether this game is a container; a process is the default where the version has a command."""
        version, games = self._deployment.version, self._settings.games
        wanted = games == "container" or (games == "auto" and not version.command)
        return wanted and bool(engine.image_of(version)) and self._services.engine is not None

    def _container_name(self) -> str:
        return f"arbitrium-{self._deployment.id}-{self._deployment.restart_count}"

    async def _check_ports(self) -> None:
        """Wait until every TCP port with `to_check` accepts a connection; UDP has nothing to see.

        Raises:
            CannotRun: one did not within `time_to_deploy`, or the game ended.
        """
        deployment = self._deployment
        waiting = [port for port in deployment.ports if port.to_check and transports(port.protocol)[1]]
        deadline = asyncio.get_running_loop().time() + deployment.version.time_to_deploy
        while waiting:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", waiting[0].internal)
            except OSError:
                assert deployment.container is not None
                late = asyncio.get_running_loop().time() > deadline
                if late or not deployment.container.running or self._services.closing.is_set():
                    raise CannotRun(
                        f"cannot reach port {waiting[0].name} ({waiting[0].internal}/TCP); "
                        "let the game listen on it, or set its to_check to false"
                    ) from None
                await self._services.pause(0.1)
            else:
                writer.close()
                waiting.pop(0)

    async def _serve(self) -> None:
        """Ready, until something ends it: a stop request, `max_duration`, or a game that is not started again."""
        deployment = self._deployment
        loop = asyncio.get_running_loop()
        limit = deployment.version.max_duration
        end = loop.time() + limit * self._settings.minute_seconds if limit >= 0 else float("inf")
        while deployment.container is not None:
            watch = asyncio.create_task(self._ring_at_the_end(deployment.container))
            try:
                await self._wait_until_woken(end)
            finally:
                if not watch.done():
                    watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
            if deployment.stop_request is None and loop.time() >= end:
                deployment.ask_to_stop(StopRequest("max_duration"))
            if deployment.stop_request is not None:
                return
            if not deployment.container.running:
                await self._after_exit(deployment.container, end)

    async def _ring_at_the_end(self, container: Container) -> None:
        await container.wait()
        self._deployment.wake.set()

    async def _wait_until_woken(self, until: float) -> None:
        """Until it is woken, at most until a moment of the loop's clock."""
        wake = self._deployment.wake
        remaining = None if until == float("inf") else max(0.0, until - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout(remaining):
                await wake.wait()
        except TimeoutError:
            return
        wake.clear()

    async def _after_exit(self, container: Container, end: float) -> None:
        """The game ended by itself: start it again, or let the deployment end."""
        deployment, policy = self._deployment, self._deployment.version.restart_policy
        code = await container.wait()
        if code != 0 or policy == "always":
            await self._note_crash(container, code)
        if policy == "never" or (code == 0 and policy != "always"):
            deployment.ask_to_stop(StopRequest("exited"))
            return
        moment = asyncio.get_running_loop().time()
        # A game that had been well for a while is started again soon, one that falls over at once ever later.
        if moment - self._started > STABLE_SECONDS:
            self._failed_starts = 0
        delays = self._settings.delays
        pauses = RetryPolicy(delays.restart, delays.restart_max)
        await self._wait_until_woken(min(end, moment + pauses.ceiling(self._failed_starts)))
        self._failed_starts += 1
        if deployment.stop_request is not None:
            return
        await self._remove_container()
        deployment.restart_count += 1
        deployment.container_log.attempt += 1
        deployment.container = await self._start()
        deployment.note_change()

    async def _note_crash(self, container: Container, code: int) -> Crash:
        """Keep what is known of an end that nobody asked for."""
        deployment = self._deployment
        if container.out_of_memory or await self._ran_out_of_memory():
            message = "OOM killed"
        elif code > 128:
            message = f"Ended by signal {code - 128}"
        else:
            message = f"Exited with code {code}"
        deployment.crash = Crash(code, message)
        deployment.crash_logs = deployment.container_log.text(deployment.container_log.attempt)[-CRASH_LOG_BYTES:]
        return deployment.crash

    async def _fail(self, detail: str) -> None:
        """In error, until somebody stops it."""
        deployment = self._deployment
        if deployment.container is not None and deployment.container.running:
            deployment.container.kill()
            await deployment.container.wait()
        deployment.error_detail = detail
        deployment.become(Status.ERROR)
        self._services.tell(deployment, deployment.request.webhook_on_error)
        while deployment.stop_request is None:
            await self._wait_until_woken(float("inf"))

    async def _terminate(self) -> None:
        """SIGTERM, the grace, SIGKILL; then the logs, and the end."""
        deployment = self._deployment
        deployment.become(Status.TERMINATING)
        container = deployment.container
        if container is not None and container.running:
            container.terminate()
            grace = self._grace()
            try:
                async with asyncio.timeout(grace):
                    await self._until_gone_or_hurried(container)
            except TimeoutError:
                deployment.crash = Crash(137, f"Killed: still running {grace:g} s after SIGTERM")
            if container.running:
                container.kill()
            await container.wait()
        await self._keep_logs()
        await self._services.pause(self._settings.delays.terminating)

    async def _until_gone_or_hurried(self, container: Container) -> None:
        """Until the game has ended, or the emulator is closed and no longer waits."""
        gone = asyncio.create_task(container.wait())
        hurry = asyncio.create_task(self._services.hurry.wait())
        try:
            await asyncio.wait({gone, hurry}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (gone, hurry):
                task.cancel()
            await asyncio.gather(gone, hurry, return_exceptions=True)

    def _grace(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        grace = self._settings.grace_seconds
        if grace is None:
            grace = float(self._deployment.version.termination_grace_period_seconds)
        return min(grace, self._settings.closing_seconds) if self._services.closing.is_set() else grace

    async def _keep_logs(self) -> None:
        """Hand the logs to the endpoint storage that the stop, or else the version, names."""
        deployment = self._deployment
        wanted = deployment.stop_request.log_storage if deployment.stop_request else None
        wanted = wanted if wanted is not None else deployment.log_storage
        name = deployment.version.endpoint_storage if wanted in {None, "true"} else wanted
        if not name or wanted == "false":
            return
        kept = self._services.catalogue.storages.get(name)
        if kept is None:
            deployment.log_trouble = f"cannot keep the logs: there is no endpoint storage {name}; register it"
            log.warning("deployment %s: %s", deployment.id, deployment.log_trouble)
            return
        storage = kept.body
        try:
            deployment.kept_logs = await keep_logs(deployment, storage)
        except Exception as error:
            reason = str(error).replace(storage.secret_access_key, "…") if storage.secret_access_key else str(error)
            deployment.log_trouble = f"cannot keep the logs in {name}: {reason or type(error).__name__}"
            log.warning("deployment %s: %s", deployment.id, deployment.log_trouble)

    async def _release(self) -> None:
        """Leave nothing: no process, no port, no room taken."""
        deployment = self._deployment
        if deployment.container is not None and deployment.container.running:
            deployment.container.kill()
            await deployment.container.wait()
        await self._remove_container()
        if deployment.forwarding is not None:
            await deployment.forwarding.close()
        if deployment.host is not None:
            self._services.hosts.give_back(deployment.host, deployment.version)
        deployment.container_log.clear()
        deployment.crash_logs = None
        deployment.become(Status.TERMINATED)
        self._services.tell(deployment, deployment.request.webhook_on_terminated)

    async def _ran_out_of_memory(self) -> bool:
        """What the engine knows of a container game's end."""
        runner = self._services.engine if self._as_container() else None
        return runner is not None and await runner.out_of_memory(self._container_name())

    async def _remove_container(self) -> None:
        """Make sure that the engine has nothing left of a container game."""
        if self._as_container() and self._services.engine is not None:
            await self._services.engine.remove(self._container_name())
