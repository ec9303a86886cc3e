"""Whom the OOM killer took: the kernel only counts. Standard library only."""

from __future__ import annotations

from agent.game.cgroup import oom_kills_between, read_cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.game.cgroup import CgroupReading


class OomWatch:
    """Looks at the counter whenever a process that the init reaps was ended by SIGKILL."""

    def __init__(self) -> None:
        """None was seen yet."""
        self._before: CgroupReading | None = None
        self._seen: list[tuple[float, bool]] = []

    def look(self, before: CgroupReading | None, at: float, *, own: bool) -> None:
        """A process was ended by SIGKILL.

        Args:
            before: what the cgroup had counted when the game was started.
            at: the present moment, in seconds of the monotonic clock.
            own: whether it was the agent's process, and not one of the game's.
        """
        if before is not self._before:  # another start of the game
            self._before, self._seen = before, []
        kills = oom_kills_between(before, read_cgroup()) or 0
        self._seen += [(at, own)] * (kills - len(self._seen))

    def own(self, since: float) -> int:
        """How many of them were the agent's process, from a moment on."""
        return sum(own and at >= since for at, own in self._seen)

    def last(self, after: CgroupReading | None) -> float | None:
        """When the last one of the game's was seen; None where it was another one, which the init did not reap."""
        moments = [at for at, own in self._seen if not own]
        all_seen = oom_kills_between(self._before, after) == len(self._seen)
        return moments[-1] if all_seen and moments else None
