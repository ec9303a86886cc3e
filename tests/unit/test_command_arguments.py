"""A value on the command line that cannot be used is refused with what it takes, not with a traceback."""

import pytest

from agent import cli
from agent.command_arguments import factor, seconds, timeout, whole
from agent.config.parsers import port

WRONG = [
    ["emulate", "--port", "99999"],
    ["emulate", "--port=-1"],
    ["emulate", "--tls", "65536"],
    ["emulate", "--delays", "nan"],
    ["emulate", "--minute=-1"],
    ["emulate", "--grace", "inf"],
    ["healthcheck", "--timeout", "0"],
    ["healthcheck", "--timeout=-1"],
    ["healthcheck", "--timeout", "nan"],
    ["healthcheck", "--timeout", "1e300"],
    ["stop", "--grace-seconds", "nan"],
    ["stop", "--ack", "inf"],
    ["fleet report", "--since", "x"],
    ["fleet query x", "--since", "7"],
    ["fleet report", "--limit=-5"],
    ["fleet report", "--limit", "0"],
    ["discover", "--listen", "abc"],
    ["discover", "--listen", "127.0.0.1:99999"],
    ["discover", "--interval", "0.5s"],
    ["discover", "--interval", "nan"],
    ["platform deploy game 1", "--deadline", "nan"],
    ["platform stop id", "--deadline=-1"],
    ["platform stop id", "--deadline", "1e300"],
    ["platform versions create game 1", "--cpu=-1"],
    ["platform versions update game 1", "--memory", "9" * 30],
    ["platform versions create game 1", "--grace", "4"],
    ["platform versions create game 1", "--max-duration=-2"],
    ["platform versions create game 1", "--time-to-deploy", "0"],
    ["platform list", "--max", "0"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_a_value_that_cannot_be_used_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, the option's name, what was given and what it takes."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*words[0].split(), *words[1:]])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert f"argument {words[1].partition('=')[0]}: got '" in printed
    assert " and takes " in printed


def test_the_ends_of_what_is_taken() -> None:
    """Both ends are inside, a fraction of a second too."""
    assert (port("0"), port("65535")) == (0, 65535)
    assert (seconds("0"), seconds("604800"), factor("0.5")) == (0.0, 604800.0, 0.5)
    assert timeout("1e-3") == 0.001
    assert (whole(-1)("-1"), whole(5, 3600)("3600")) == (-1, 3600)
