"""Whom the OOM killer took: the kernel only counts. Standard library only."""

from __future__ import annotations

from agent.game.cgroup import oom_kills_between, read_cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.game.cgroup import CgroupReading


class OomWatch:
    """Looks at the counter whenever a process that the init reaps was ended by SIGKILL."""

    def __init__(self, read: Callable[[], CgroupReading] = read_cgroup) -> None:
        """None was seen yet; `read` reads what the cgroup has counted."""
        self._read = read
        self._before: CgroupReading | None = None
        self._seen: list[tuple[float, bool]] = []

    def look(self, before: CgroupReading | None, at: float, *, own: bool) -> None:
        """Processes were ended by SIGKILL.

        Args:
            before: what the cgroup had counted when the game was started.
            at: the present moment, in seconds of the monotonic clock.
            own: whether the agent's process was among them, besides processes of the game.
        """
        if before is not self._before:  # another start of the game
            self._before, self._seen = before, []
        fresh = (oom_kills_between(before, self._read()) or 0) - len(self._seen)
        if fresh > 0:
            self._seen += [(at, False)] * (fresh - own) + [(at, True)] * own

    def own(self, since: float) -> int:
        """How many of them were the agent's process, from a moment on."""
        return sum(own and at >= since for at, own in self._seen)

    def last(self, after: CgroupReading | None) -> float | None:
        """When the last one of the game's was seen; None where it was another one, which the init did not reap."""
        moments = [at for at, own in self._seen if not own]
        all_seen = oom_kills_between(self._before, after) == len(self._seen)
        return moments[-1] if all_seen and moments else None
