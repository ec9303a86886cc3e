"""Cores: whether there would be one, where it is, and what gdb says of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.game.core import core_outlook, find_core, look_for_core, permit_core, stack_summary
from agent.game.user import User
from tests.other_users import let_others_reach


def pattern(tmp_path: Path, text: str) -> str:
    """A fake core_pattern file."""
    path = tmp_path / "core_pattern"
    path.write_text(f"{text}\n")
    return str(path)


@pytest.mark.parametrize(
    ("text", "limit", "says"),
    [
        ("core", -1, ""),
        ("core.%e.%p", 1 << 20, ""),
        ("core", 0, "the hard limit is 0"),
        ("|/usr/lib/systemd/systemd-coredump %P", -1, "pipes it to /usr/lib/systemd/systemd-coredump, outside"),
        ("", -1, "empty"),
        ("/no/such/place/core.%p", -1, "would go to /no/such/place"),
    ],
)
def test_what_stands_in_the_way_of_a_core_is_said(tmp_path: Path, text: str, limit: int, says: str) -> None:
    """Before the game starts, so that nobody waits for one in vain."""
    outlook = core_outlook(str(tmp_path), pattern_file=pattern(tmp_path, text), hard_limit=limit)
    assert (outlook.why_not == "") is (says == "")
    assert says in outlook.why_not
    if says:
        core = asyncio.run(
            look_for_core(
                outlook, crashed=True, workdir=str(tmp_path), pid=1, since=0, program="x", deadline=time.monotonic()
            )
        )
        assert core.path is None
        assert core.summary == outlook.why_not


def test_a_pattern_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A sandbox may hide /proc/sys."""
    assert "cannot be read" in core_outlook("/", pattern_file=str(tmp_path / "none"), hard_limit=-1).why_not


@pytest.mark.parametrize(
    ("text", "uses_pid", "name"),
    [
        ("core", "0", "core"),
        ("core", "1", "core.77"),
        ("core.%p", "0", "core.77"),
        ("%e-%t.%p.dump", "0", "game-1700000000.77.dump"),
        ("100%%-%h", "0", "100%-host"),
    ],
)
def test_a_core_is_found_by_the_kernels_pattern(tmp_path: Path, text: str, uses_pid: str, name: str) -> None:
    """Also that of a child, which has another number."""
    uses = tmp_path / "uses_pid"
    uses.write_text(uses_pid)
    (tmp_path / name).write_bytes(b"core")
    for pid in (77, 78):
        found = find_core(text, str(tmp_path), pid, time.time(), uses_pid_file=str(uses))
        assert found == str(tmp_path / name)
    assert find_core(text, str(tmp_path), 77, time.time() + 100, uses_pid_file=str(uses)) is None
    assert find_core("|x", str(tmp_path), 77, 0) is None


def test_a_real_crash_leaves_a_core_that_is_found(tmp_path: Path) -> None:
    """On a machine whose pattern permits it."""
    outlook = core_outlook(str(tmp_path))
    if outlook.why_not:
        pytest.skip(outlook.why_not)
    began = time.time()
    program = "import ctypes; ctypes.string_at(0)"
    child = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, preexec_fn=permit_core)  # noqa: PLW1509 - one call
    assert child.wait() == -11
    core = asyncio.run(
        look_for_core(
            outlook,
            crashed=True,
            workdir=str(tmp_path),
            pid=child.pid,
            since=began,
            program=sys.executable,
            deadline=time.monotonic() + 30,
        )
    )
    assert core.path is not None
    assert os.path.dirname(core.path) == str(tmp_path)
    assert f"a core of {os.path.getsize(core.path)} bytes" in core.summary
    if shutil.which("gdb"):
        assert "#0" in core.stack


def test_a_game_that_did_not_crash_has_no_core(tmp_path: Path) -> None:
    """And none is looked for."""
    outlook = core_outlook(str(tmp_path), pattern_file=pattern(tmp_path, "core"), hard_limit=-1)
    (tmp_path / "core").write_bytes(b"of somebody else")
    core = asyncio.run(
        look_for_core(
            outlook, crashed=False, workdir=str(tmp_path), pid=1, since=0, program="x", deadline=time.monotonic()
        )
    )
    assert (core.path, core.summary) == (None, "no core: the game did not crash")


def hanging_debugger(tmp_path: Path) -> str:
    """One that says its process id and a frame, and never ends."""
    debugger = tmp_path / "gdb"
    debugger.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho '#0 main'\nexec sleep 600\n")
    debugger.chmod(0o755)
    return str(debugger)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_a_debugger_that_hangs_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    """It never costs more than its time, what it had said is kept, and it is killed."""
    began = time.monotonic()
    stack, problem = asyncio.run(stack_summary("core", "game", began + 1.0, debugger=hanging_debugger(tmp_path)))
    assert time.monotonic() - began < 20
    assert (stack, problem) == ("#0 main", "gdb did not end in time")
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_debugger_does_not_outlive_the_agent(tmp_path: Path) -> None:
    """The agent may be killed at any time, and nobody else knows its debugger."""
    program = (
        "import asyncio, time; from agent.game.core import stack_summary; "
        f"asyncio.run(stack_summary('core', 'game', time.monotonic() + 60, debugger={hanging_debugger(tmp_path)!r}))"
    )
    agent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    said = tmp_path / "pid"
    deadline = time.monotonic() + 30
    while not (said.exists() and said.read_text().strip()):
        assert time.monotonic() < deadline, "the debugger was not started"
        time.sleep(0.02)
    agent.send_signal(signal.SIGKILL)
    agent.wait()
    pid = int(said.read_text())
    while not is_gone(pid):
        assert time.monotonic() < deadline, "the debugger lives on"
        time.sleep(0.02)


def test_a_debugger_has_the_games_environment_and_not_the_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads what the game wrote; and it is the image's, not one from a directory of the game's on the PATH."""
    monkeypatch.setenv("AGENT_API_TOKEN", "hunter2")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    debugger = tmp_path / "gdb"
    debugger.write_text('#!/bin/sh\necho "#0 $GAME $AGENT_API_TOKEN $(id -u)"\n')
    debugger.chmod(0o755)
    if os.geteuid() == 0:
        let_others_reach(tmp_path)
    user = User(12345, 12345, [12345], "game", "/") if os.geteuid() == 0 else None
    said, problem = asyncio.run(
        stack_summary(
            "core",
            "x",
            time.monotonic() + 20,
            debugger=str(debugger),
            env={"GAME": "yes", "PATH": "/usr/bin:/bin"},
            user=user,
        )
    )
    assert (said, problem) == (f"#0 yes  {12345 if user else os.geteuid()}", "")
    said, problem = asyncio.run(stack_summary("core", "x", time.monotonic() + 20))
    assert not said
    assert problem in {"gdb is not in the image", "gdb found no thread in it"}


def test_without_a_debugger_there_is_no_stack_and_no_failure(tmp_path: Path) -> None:
    """Most images have none; the reason is said."""
    stack, problem = asyncio.run(stack_summary("core", "game", time.monotonic() + 1, debugger=str(tmp_path / "none")))
    assert stack == ""
    assert problem.startswith("gdb cannot be started")
