"""Start scripts as people have them: whom the stop signal reaches, and that the server saves its world.

Each script is one that works, or is common, in a container without the agent; adding the agent may never lose a world.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.process.harness import PYTHON, Launcher, Run, descendants, eventually, game, state_of, status_of

GRACE = {"AGENT_GRACE_SECONDS": "6"}
GAMES = Path(__file__).parent.parent / "games"


def server(name: str, world: Path, *more: str) -> str:
    """A server that saves on a signal, as part of a shell script."""
    return f"{PYTHON[0]} -S -E {GAMES}/save.py {name} {world} {' '.join(more)}"


def end_of(run: Run) -> dict[str, object]:
    """What `exit.json` says."""
    [path] = eventually(lambda: list(run.spool.glob("*/exit.json")), "there is an exit.json")
    found: dict[str, object] = json.loads(path.read_text())
    return found


def saved(world: Path) -> list[int]:
    """The signals that the server heard before it saved; fails where it did not save."""
    assert world.exists(), "the world is lost"
    return [int(number) for number in world.read_text().split(",")]


def hears_term(pid: int) -> bool:
    """Whether a server has its handler."""
    status = status_of(pid)
    return status.get("Name", "").startswith("python") and bool(int(status.get("SigCgt", "0"), 16) >> 14 & 1)


TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)

SCRIPTS = {
    "exec behind tee": ("exec > >(tee -a {dir}/full.log) 2>&1; exec {term}", [TERM]),
    "a trap that sends another signal": (
        "trap 'kill -INT $pid' TERM; {int} & pid=$!; wait $pid; wait $pid",
        [INT],
    ),
    "a trap that passes it on, later, to a server that quits hard": (
        "trap 'sleep .2; kill -TERM $pid' TERM; {hard} & pid=$!; wait $pid; wait $pid",
        [TERM],
    ),
    "in the foreground, with something behind it": ("{term} && echo done", [TERM]),
    "executed by the shell": ("{term}", [TERM]),
    "in the foreground of a loop": ("while true; do {term}; sleep .1; done", [TERM]),
    "a trap that signals itself": ("trap 'kill -TERM $$; sleep .05' TERM; {term} & wait; wait; wait; wait", [TERM]),
    "a server in the background, and wait": ("{term} & wait", [TERM]),
    "a server beside a logger": ("touch {dir}/x; tail -F {dir}/x & {term} & wait", [TERM]),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_server_saves(launch: Launcher, name: str) -> None:
    """It hears the signal once, in time, and its world is written."""
    script, heard = SCRIPTS[name]
    world = launch.files / "world"
    text = script.format(
        dir=launch.files,
        term=server("TERM", world),
        int=server("INT", world),
        hard=server("TERM", world, "1", "hard"),
    )
    run = launch(["bash", "-c", text], env=GRACE)
    run.wait_for("serving")
    done = run.stop()
    assert saved(world) == heard
    assert b"saved" in done.stdout
    assert done.seconds < 6.0
    assert "did not end in its time" not in done.stderr or name == "a trap that signals itself"
    if "tee" in name:
        assert "saved" in (launch.files / "full.log").read_text(), "tee lives to the end"


def test_a_helper_ends_after_the_server(launch: Launcher) -> None:
    """A display that the server needs while it saves is asked when the server has ended."""
    world, display = launch.files / "world", launch.files / "display"
    helper = f"{PYTHON[0]} -S -E {GAMES}/ends_when_asked.py {display}"
    waits = f"while [ ! -e {display} ]; do sleep .02; done"
    text = f"{helper} & {waits}; {server('TERM', world)} & wait $!; ls {display} && echo still there"
    run = launch(["bash", "-c", text], env=GRACE)
    run.wait_for("serving")
    done = run.stop()
    assert saved(world) == [TERM]
    assert done.stdout.decode().index("saved") < len(done.stdout)
    assert not display.exists(), "the helper was asked as well"


@pytest.mark.parametrize(
    "launcher", ["bash -c '{} & wait'", "{python} -c 'import subprocess; subprocess.call(\"{}\", shell=True)'"]
)
def test_a_launcher_that_leaves_on_the_signal(launch: Launcher, launcher: str) -> None:
    """Its server, which is saving, keeps its share, and gets no other signal before its time."""
    world = launch.files / "world"
    text = launcher.replace("{python}", PYTHON[0]).replace("{}", server("INT", world))
    run = launch(["sh", "-c", f"exec {text}"], env={**GRACE, "AGENT_STOP": "signal:SIGINT"})
    run.wait_for("serving")
    run.stop()
    assert saved(world) == [INT]


@pytest.mark.parametrize("stop", ["signal:SIGTERM", "stdin:save"])
def test_a_server_that_is_suspended_is_woken(launch: Launcher, stop: str) -> None:
    """An auto-pause is SIGSTOP: whatever the method, it could not hear it otherwise."""
    world = launch.files / "world"
    run = launch(["sh", "-c", f"exec {server('TERM', world)}"], env={**GRACE, "AGENT_STOP": stop})
    run.wait_for("serving")
    os.kill(run.game_pid, signal.SIGSTOP)
    eventually(lambda: state_of(run.game_pid) == "T", "it is suspended")
    run.stop()
    assert saved(world) == [TERM]


WRAPPERS = {
    "tmux": "tmux -L {socket} new-session -d '{server} > {dir}/out' && "
    "while tmux -L {socket} has-session 2>/dev/null; do sleep .1; done",
    "screen": "screen -D -m {server}",
    "tini": "exec tini -- {server}",
    "dumb-init": "exec dumb-init -- {server}",
    "su": "su root -c '{server}'",
    "runuser": "runuser root -c '{server}'",
    "setpriv": "exec setpriv --no-new-privs {server}",
    "a loader that leaves": "({server} &) ; sleep .2; exec {python} -S -E {games}/waits_for_nobody.py",
}


@pytest.mark.parametrize("tool", WRAPPERS)
@pytest.mark.slow
def test_wrappers_lose_no_world(launch: Launcher, tool: str) -> None:
    """A server below a multiplexer, another init, or a program that changes the user."""
    if tool in ("tmux", "screen", "tini", "dumb-init") and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    world, out = launch.files / "world", launch.files / "out"
    text = WRAPPERS[tool].format(
        server=server("TERM", world), socket=launch.files.name, dir=launch.files, python=PYTHON[0], games=GAMES
    )
    run = launch(["bash", "-c", text], env=GRACE, mode="pid1")
    if tool == "tmux":
        eventually(lambda: out.exists() and "serving" in out.read_text(), "it serves")
    elif tool == "screen":
        eventually(lambda: any(hears_term(pid) for pid in descendants(run.pid)), "it serves")
    else:
        run.wait_for("serving")
    done = run.stop()
    assert saved(world) == [TERM]
    assert done.seconds < 6.0


def test_exit_143_after_the_signal_is_as_asked(launch: Launcher) -> None:
    """A JVM ends with 143 after its shutdown hooks: no failure, and nobody else's fault."""
    code = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(143)); print('serving', flush=True); "
    code += "time.sleep(60)"
    run = launch([PYTHON[0], "-c", code], env=GRACE)
    run.wait_for("serving")
    done = run.stop()
    assert done.code == 143
    assert end_of(run)["cause"] == "stopped_as_asked"


def test_the_plan_says_who_was_asked(launch: Launcher) -> None:
    """By name and process id."""
    world = launch.files / "world"
    run = launch(["bash", "-c", f"{server('TERM', world)} && echo done"], env=GRACE)
    run.wait_for("serving")
    run.stop()
    happened = end_of(run)["happened"]
    assert isinstance(happened, list)
    [turn] = [step for step in happened if step.get("method") == "signal:SIGTERM"]
    assert turn["asked"][0].startswith("python"), turn


@pytest.mark.parametrize(("target", "heard"), [("main", False), ("group", True)])
def test_the_target_can_be_named(launch: Launcher, target: str, heard: bool) -> None:
    """`signal:SIGTERM:main` asks the main process alone, whether it passes the signal on or not."""
    world = launch.files / "world"
    text = f"trap 'echo trapped; exit 0' TERM; {server('TERM', world)} & wait"
    run = launch(["bash", "-c", text], env={**GRACE, "AGENT_STOP": f"signal:SIGTERM:{target}"})
    run.wait_for("serving")
    done = run.stop()
    assert b"trapped" in done.stdout
    assert saved(world) == [TERM] if heard else True


def test_a_last_resort_leaves_a_console_its_time(launch: Launcher) -> None:
    """`stdin:save` alone has the time but for the last tenth."""
    run = launch(game("polite"), env={"AGENT_GRACE_SECONDS": "10", "AGENT_STOP": "stdin:exit"})
    run.wait_for("ready")
    run.stop()
    plan = end_of(run)["plan"]
    assert isinstance(plan, dict)
    line, last = plan["methods"]
    assert line["seconds"] > 7.5
    assert last["seconds"] <= 1.0
