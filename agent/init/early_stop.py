"""A stop signal that arrives before the init can plan a stop. Standard library only, quick to import.

The game runs before most of the init is imported (`agent.init.main`), which takes 0.2 s on a quarter of a CPU. A stop
that would begin by signalling the game's main process need not wait for that: the signal is sent at once. The stop
itself is planned as usual when the loop runs, and takes the main process as signalled (`agent.init.stop_actions`).
"""

from __future__ import annotations

import time

from agent.game.process import send
from agent.game.stop_signal import hears, is_helper
from agent.game.tree import look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.game.process import GameProcess
    from agent.lifecycle.stop_methods import Method

# Right after its exec a game has no handler yet, and would be killed by the signal instead of hearing it. It is looked
# at so many times before the signal is left to the planned stop. Counted, not timed: a game that gets no CPU for a
# while still has its chance, since this process gets none either.
_LOOKS = 25
_LOOK_EVERY = 0.002


def signal_early(process: GameProcess, methods: Sequence[Method], drain_seconds: float) -> None:
    """Signals the game's main process if its stop would begin with that; else leaves everything to the planned stop.

    Waits up to 50 ms for the game to have a handler. Called in a signal handler: it never raises.

    Args:
        process: the game, started; it remembers what it was sent (`signalled_early`).
        methods: as AGENT_STOP has them.
        drain_seconds: how long players may play on before the first method; with any, nothing is sent.
    """
    first = methods[0]
    if drain_seconds or process.signalled_early or first.kind != "signal" or first.target not in ("", "main"):
        return
    try:
        for _ in range(_LOOKS):
            found = look([process.main_pid])
            if not found:
                return
            if is_helper(found[0].program):
                return  # a start script: the planned stop first takes note of the servers behind it
            if hears(found[0], first.signum):
                if send(found[0].pid, first.signum):
                    process.signalled_early[found[0].pid] = first.signum
                return
            time.sleep(_LOOK_EVERY)
    except (OSError, MemoryError):
        pass  # the planned stop follows
