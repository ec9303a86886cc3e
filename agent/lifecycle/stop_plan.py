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


# Under the platform's deadline the game has nine tenths of 5 s and more: what the end needs besides is small, and a
# step that ends early leaves its time to shipping.
_KILL_PART, _AUTOPSY_PART, _SHIP_PART = 0.02, 0.01, 0.02
# However much waits to be shipped, the game's world is worth more.
_MOST_SHIPPING = 0.2


def plan_stop(
    total: float, *, killed_at_end: bool, drain: float = 0.0, ship: float = 0.0, backlog: float = 0.0
) -> StopPlan:
    """Splits a deadline into the steps of a stop.

    Args:
        total: seconds from now. Where `killed_at_end`, somebody else kills everything then (the platform after its
            grace), so that all steps end inside it, with a margin. Otherwise it is the time the game has to end, and
            the steps after its death (autopsy, ship) follow behind it.
        killed_at_end: whether a SIGKILL from outside ends the stop after `total`.
        drain: seconds that players should get to finish; at most half of the time before the kill is given.
        ship: seconds that shipping may take where nobody kills; 0 when there is nothing to ship to (the local
            `exit.json` is still written).
        backlog: seconds that shipping what waits will probably take, by the store's own speed; counts where
            `killed_at_end`, up to a fifth of `total`.

    Returns:
        The plan. Its shares are never negative and their ends never decrease.
    """
    total = max(0.0, total)
    if killed_at_end:
        margin = min(0.25, total * 0.05)
        kill, autopsy = min(1.0, total * _KILL_PART), min(1.0, total * _AUTOPSY_PART)
        shipping = max(min(1.0, total * _SHIP_PART), min(backlog, ship, total * _MOST_SHIPPING))
        before_kill = max(0.0, total - margin - kill - autopsy - shipping)
        whole = total
    else:
        kill, autopsy = min(total * 0.2, _clamp(total * 0.05, 0.1, 1.0)), _clamp(total * 0.03, 0.1, 1.0)
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


RELEASE_SECONDS = 3.0
"""What the self-stop is given where all of a stop has to be over by a moment: a call, and one more that repeats it."""


def plan_within(within: float, *, grace: float, drain: float = 0.0, ship: float = 0.0) -> StopPlan:
    """Splits a deadline that includes the self-stop: the end of the maximum duration.

    Args:
        within: seconds from now until all of it has to be over.
        grace: seconds that the game should get to end; four fifths of what there is at most.
        drain: as in `plan_stop`.
        ship: as in `plan_stop`; cut to what the game and the self-stop leave.

    Returns:
        The plan; what it leaves of `within` is for the self-stop.
    """
    left = max(0.0, within - min(RELEASE_SECONDS, within * 0.25))
    grace = min(grace, left * 0.8)
    plan = plan_stop(grace, killed_at_end=False, drain=drain)
    behind = left - grace - plan.seconds(Step.AUTOPSY)
    shipping = max(0.01, min(ship if ship > 0 else plan.seconds(Step.SHIP), behind))
    return plan_stop(grace, killed_at_end=False, drain=drain, ship=shipping)
