"""How the game's program is found and executed, compared with `subprocess`, which takes longer to import."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from agent.errors import CannotStartError
from agent.game.spawn import spawn

KINDS = ("nothing", "no folder", "program", "not executable", "directory", "wrong format", "no interpreter")


def make(folder: Path, kind: str) -> None:
    """Makes a folder of PATH with something called `server` in it."""
    if kind == "no folder":
        return
    folder.mkdir()
    server = folder / "server"
    if kind == "directory":
        server.mkdir()
    elif kind != "nothing":
        first = {"no interpreter": "#!/no/such/interpreter\n", "wrong format": "\1\2\3\n"}.get(kind, "#!/bin/sh\n")
        server.write_text(f"{first}exit 3\n")
        server.chmod(0o644 if kind == "not executable" else 0o755)


def outcome_of_subprocess(env: dict[str, str]) -> int:
    """The exit code, or the error's number as a negative one."""
    try:
        return subprocess.Popen(["server"], env=env).wait(5)
    except OSError as problem:
        return -(problem.errno or 0)


@pytest.mark.parametrize(("first", "second"), [*itertools.product(KINDS, repeat=2)])
def test_the_program_is_looked_up_as_subprocess_does(tmp_path: Path, first: str, second: str) -> None:
    """The first folder of the game's PATH with a program that can be executed; else the most telling error."""
    for name, kind in (("first", first), ("second", second)):
        make(tmp_path / name, kind)
    env = {"PATH": f"{tmp_path}/first:{tmp_path}/second"}
    expected = outcome_of_subprocess(env)
    if expected >= 0:
        _, status = os.waitpid(spawn(["server"], env, capture=False).pid, 0)
        assert os.waitstatus_to_exitcode(status) == expected
    else:
        with pytest.raises(CannotStartError) as caught:
            spawn(["server"], env, capture=False)
        assert caught.value.exit_code == (127 if os.strerror(-expected).startswith(("No such", "Not a dir")) else 126)


def test_only_the_first_three_descriptors_are_given(tmp_path: Path) -> None:
    """What this process was itself given beside them, a runtime's pipe say, is not the game's."""
    given = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(given, True)
    try:
        shown = tmp_path / "shown"
        game = spawn(["sh", "-c", f"[ -e /proc/$$/fd/{given} ] && echo given >{shown}; :"], dict(os.environ))
        os.waitpid(game.pid, 0)
        for fd in game.streams.values():
            os.close(fd)
    finally:
        os.close(given)
    assert not shown.exists()
