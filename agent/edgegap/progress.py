"""Progress output while a command waits: one changing line in a terminal, otherwise one line for each state."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.edgegap.models import DeploymentStatus, State
from agent.edgegap.show import console
from agent.edgegap.waiting import Progress
from agent.terminal_text import safe


@contextmanager
def shown_progress(what: str, monotonic: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """Show the states that are passed, on stderr, so that stdout holds the result only.

    Args:
        what: what is waited for, at the beginning of the line.
        monotonic: clock in seconds.

    Yields:
        What to call with each status.
    """
    what = safe(what)
    started = monotonic()
    passed: list[State] = []

    def changed(status: DeploymentStatus) -> bool:
        if passed and passed[-1] is status.state:
            return False
        passed.append(status.state)
        return True

    def seconds() -> str:
        return f"{monotonic() - started:.1f} s"

    shown = console(stderr=True)
    if not shown.is_terminal:

        def tell(status: DeploymentStatus) -> None:
            if changed(status):
                print(f"{what}: {status.state.lower()} after {seconds()}", file=sys.stderr, flush=True)

        yield tell
        return

    from rich.text import Text  # noqa: PLC0415 - only terminals need it

    with shown.status(Text(f"{what}: asking"), spinner="dots") as line:

        def move(status: DeploymentStatus) -> None:
            changed(status)
            way = " → ".join(state.lower() for state in passed)
            line.update(Text.assemble((what, "bold"), f": {way}  ", (seconds(), "dim")))

        yield move
    if passed:
        way = " → ".join(state.lower() for state in passed)
        shown.print(Text.assemble((what, "bold"), f": {way}  ", (seconds(), "dim")))
