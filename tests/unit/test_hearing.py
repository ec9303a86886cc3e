"""Whether the game would hear its stop."""

import signal

import pytest

from agent.game.signal_handling import advice, handled


def status(caught: int = 0, ignored: int = 0) -> str:
    """What /proc/<pid>/status says of signals."""
    return f"Name:\tgame\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"


TERM = 1 << (signal.SIGTERM - 1)


@pytest.mark.parametrize(
    ("statuses", "how"),
    [
        ([status(caught=TERM)], "handled"),
        ([status(), status(caught=TERM)], "handled"),
        ([status(ignored=TERM)], "ignored"),
        ([status(), status(ignored=TERM)], "ignored"),
        ([status(caught=2)], "default"),
        ([], "unknown"),
        (["Name:\tzombie\n"], "unknown"),
    ],
)
def test_how_a_group_takes_a_signal(statuses: list[str], how: str) -> None:
    """One process with a handler is enough: the signal goes to all of them."""
    assert handled(statuses, signal.SIGTERM) == how


def test_the_advice_says_what_to_set() -> None:
    """Where all is well, or nothing is known, nothing is said."""
    assert advice("handled", signal.SIGTERM) == advice("unknown", signal.SIGTERM) == ""
    assert "the game does not handle SIGTERM" in advice("default", signal.SIGTERM)
    assert "AGENT_STOP" in advice("ignored", signal.SIGTERM)
    assert "ignores it" in advice("ignored", signal.SIGTERM)
