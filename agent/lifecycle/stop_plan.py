"""The stop plan: one deadline, split into the steps of a stop. Pure: numbers in, numbers out.

Every wait between the first word of a stop and the agent's own exit comes out of the deadline that is split here. A
step that ends early leaves its time to the steps behind it; none may run past its own
end, so the last one ends in time.
"""

from __future__ import annotations

from enum import StrEnum

from agent.lifecycle.record import Record


class Step(StrEnum):
    """The steps of a stop, in the order in which they happen."""

    ANNOUNCE = "announce"  # the game and everybody who listens is told
    DRAIN = "drain"  # players may finish
    STOP = "stop"  # the stop methods are applied and the game gets time to obey
    KILL = "kill"  # SIGKILL, and the kernel takes the processes apart
    AUTOPSY = "autopsy"  # the cause of death is found and written down
    SHIP = "ship"  # exit.json, the log tail, the rest of the spool, the bundle
    RELEASE = "release"  # the self-stop, until it is confirmed; not bounded by the deadline


class Share(Record):
    """What one step got: it may run until `ends` seconds after the stop began."""

    step: Step
    seconds: float
    ends: float


class StopPlan(Record):
    """Shares of one deadline.

    Attributes:
        total: seconds from the start of the stop to the end of the last bounded step.
        shares: one share a step, in order, adding up to `total` less the safety margin.
    """

    total: float
    shares: tuple[Share, ...]

    def ends(self, step: Step) -> float:
        """Seconds after the start of the stop at which `step` must be over; without a share, the step before it."""
        order = list(Step)
        return max(
            (share.ends for share in self.shares if order.index(share.step) <= order.index(step)),
            default=0.0,
        )

    def seconds(self, step: Step) -> float:
        """How many seconds `step` has to itself; 0 when it is not part of this plan."""
        return sum(share.seconds for share in self.shares if share.step is step)

    def __str__(self) -> str:
        """One line for people, printed when the stop begins."""
        parts = ", ".join(f"{share.step} {share.seconds:.2f} s" for share in self.shares if share.seconds > 0)
        return f"{self.total:.1f} s: {parts}"


def _clamp(value: float, low: float, high: float) -> float:
    return max(low, min(high, value))


def plan_stop(total: float, *, killed_at_end: bool, drain: float = 0.0, ship: float = 0.0) -> StopPlan:
    """Splits a deadline into the steps of a stop.

    Args:
        total: seconds from now. Where `killed_at_end`, somebody else kills everything then (the platform after its
            grace), so that all steps end inside it, with a margin. Otherwise it is the time the game has to end, and
            the steps after its death (autopsy, ship) follow behind it.
        killed_at_end: whether a SIGKILL from outside ends the stop after `total`.
        drain: seconds that players should get to finish; at most half of the time before the kill is given.
        ship: seconds wanted for shipping; 0 when there is nothing to ship to (the local `exit.json` is still written).

    Returns:
        The plan. Its shares are never negative and their ends never decrease.
    """
    total = max(0.0, total)
    kill = min(total * 0.2, _clamp(total * 0.05, 0.1, 1.0))
    autopsy = _clamp(total * 0.03, 0.1, 1.0)
    if killed_at_end:
        margin = min(0.25, total * 0.05)
        autopsy = min(autopsy, total * 0.1)
        # A third is enough for exit.json, the tail and a few segments at 10 MB/s, and leaves the game the larger part.
        shipping = min(ship, total * 0.3) if ship > 0 else min(0.1, total * 0.05)
        before_kill = max(0.0, total - margin - kill - autopsy - shipping)
        whole = total
    else:
        shipping = ship if ship > 0 else 1.0
        before_kill = max(0.0, total - kill)
        whole = total + autopsy + shipping
    draining = min(drain, before_kill / 2)
    shares: list[Share] = []
    end = 0.0
    for step, seconds in (
        (Step.ANNOUNCE, 0.0),  # takes no time of its own: the announcement is heard while the game drains or stops
        (Step.DRAIN, draining),
        (Step.STOP, before_kill - draining),
        (Step.KILL, kill),
        (Step.AUTOPSY, autopsy),
        (Step.SHIP, shipping),
    ):
        end += seconds
        shares.append(Share(step, seconds, end))
    return StopPlan(whole, tuple(shares))
