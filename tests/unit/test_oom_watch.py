"""Whom the OOM killer took, where the kernel only counts."""

from agent.game.cgroup import CgroupReading
from agent.init.oom_watch import OomWatch


def test_one_process_of_the_agents_is_one_kill() -> None:
    """It and one of the game's, reaped at once: the other one stays the game's; another start begins anew."""
    counted = CgroupReading(oom_kills=2)
    watch = OomWatch(lambda: counted)
    before = CgroupReading(oom_kills=0)
    watch.look(before, 5.0, own=True)
    watch.look(before, 6.0, own=False)  # a SIGKILL that was none of the kernel's
    assert (watch.own(0.0), watch.own(5.5)) == (1, 0)
    assert watch.last(counted) == 5.0
    assert watch.last(CgroupReading(oom_kills=3)) is None, "one more that nobody reaped"
    watch.look(counted, 7.0, own=True)
    assert watch.own(0.0) == 0
