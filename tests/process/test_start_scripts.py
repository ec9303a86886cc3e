"""Start scripts as people have them: whom the stop signal reaches, and that the server saves its world.

Each script is one that works, or is common, in a container without the agent; adding the agent may never lose a world.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.free_ports import free_port
from tests.process.harness import PYTHON, Launcher, descendants, eventually, game, state_of, status_of
from tests.variants import one_fast

GRACE = {"AGENT_GRACE_SECONDS": "6"}
# How a process ended that its own parent waited for: `agent.game.ends`.
KERNEL_TELLS = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15)
GAMES = Path(__file__).parent.parent / "games"


def server(name: str, world: Path, *more: str) -> str:
    """A server that saves on a signal, as part of a shell script."""
    return f"{PYTHON[0]} -S -E {GAMES}/save.py {name} {world} {' '.join(more)}"


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


_SLOW = {
    # Its server hears its signal after half of the grace: with other tests beside it, its save takes the rest.
    "a trap that signals itself",
    # As others here, for who is asked and when: `agent.game.stop_signal` is told apart by unit tests.
    *("a trap that sends another signal", "executed by the shell", "in the foreground of a loop"),
    "a server beside a logger",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in SCRIPTS]
)
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
    if "something behind it" in name:
        [turn] = [step for step in run.story()["happened"] if step.get("method") == "signal:SIGTERM"]
        assert turn["asked"][0].startswith("python"), "who was asked is told by name and process id"


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
    "launcher", one_fast("bash -c '{} & wait'", "{python} -c 'import subprocess; subprocess.call(\"{}\", shell=True)'")
)
def test_a_launcher_that_leaves_on_the_signal(launch: Launcher, launcher: str) -> None:
    """Its server, which is saving, keeps its share, and gets no other signal before its time."""
    world = launch.files / "world"
    text = launcher.replace("{python}", PYTHON[0]).replace("{}", server("INT", world))
    run = launch(["sh", "-c", f"exec {text}"], env={**GRACE, "AGENT_STOP": "signal:SIGINT"})
    run.wait_for("serving")
    run.stop()
    assert saved(world) == [INT]


@pytest.mark.parametrize("stop", one_fast("signal:SIGTERM", "stdin:save"))
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
    "gosu": "exec gosu root {server}",
    "gosu in front of a script": "exec gosu root bash -c '{server} & wait'",
    "setpriv": "exec setpriv --no-new-privs {server}",
    "a loader that leaves": "({server} &) ; sleep .2; exec {python} -S -E {games}/waits_for_nobody.py",
}


@pytest.mark.parametrize("tool", WRAPPERS)
@pytest.mark.slow
def test_wrappers_lose_no_world(launch: Launcher, tool: str) -> None:
    """A server below a multiplexer, another init, or a program that changes the user."""
    program = tool.partition(" ")[0]
    if program in ("tmux", "screen", "tini", "dumb-init", "gosu") and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
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


def test_a_stop_in_the_first_moments_waits_for_nothing(launch: Launcher) -> None:
    """The game hears its first method while the agent's own process still imports, however slow the CPU is."""
    world = launch.files / "world"
    run = launch(["sh", "-c", f"exec {server('TERM', world)}"], env={**GRACE, "AGENT_LOG_LEVEL": "debug"})
    run.wait_for("serving")
    done = run.stop()
    assert saved(world) == [TERM]
    assert "stop method signal:SIGTERM" in done.stderr.partition("ready to serve")[0]


@pytest.mark.slow
def test_exit_143_after_the_signal_is_as_asked(launch: Launcher) -> None:
    """A JVM ends with 143 after its shutdown hooks: no failure, and nobody else's fault."""
    code = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(143)); print('serving', flush=True); "
    code += "time.sleep(60)"
    run = launch([PYTHON[0], "-c", code], env=GRACE)
    run.wait_for("serving")
    done = run.stop()
    assert done.code == 143
    assert run.story()["cause"] == "stopped_as_asked"


@pytest.mark.parametrize(("target", "heard"), one_fast(("group", True), ("main", False)))
def test_the_target_can_be_named(launch: Launcher, target: str, heard: bool) -> None:
    """`signal:SIGTERM:main` asks the main process alone, whether it passes the signal on or not."""
    world = launch.files / "world"
    text = f"trap 'echo trapped; exit 0' TERM; {server('TERM', world)} & wait"
    run = launch(["bash", "-c", text], env={**GRACE, "AGENT_STOP": f"signal:SIGTERM:{target}"})
    run.wait_for("serving")
    done = run.stop()
    assert b"trapped" in done.stdout
    assert saved(world) == [TERM] if heard else True


@pytest.mark.slow
def test_a_last_resort_leaves_a_console_its_time(launch: Launcher) -> None:
    """`stdin:save` alone has the time but for the last tenth."""
    run = launch(game("polite"), env={"AGENT_GRACE_SECONDS": "10", "AGENT_STOP": "stdin:exit"})
    run.wait_for("ready")
    run.stop()
    plan = run.story()["plan"]
    assert isinstance(plan, dict)
    line, last = plan["methods"]
    assert line["seconds"] > 7.5
    assert last["seconds"] <= 1.0


@pytest.mark.parametrize(
    ("ending", "cause", "evidence"),
    one_fast(
        ("os.kill(os.getpid(), 9)", "crashed", "SIGKILL (9) had ended"),
        ("os._exit(3)", "exit_code", "had ended with exit code 3"),
        ("os._exit(0)", "clean", "exit code 0"),
    ),
)
def test_a_script_that_returns_0_does_not_hide_how_its_server_ended(
    launch: Launcher, ending: str, cause: str, evidence: str
) -> None:
    """It says nothing of it either; the kernel does, since Linux 6.15."""
    if not KERNEL_TELLS:
        pytest.skip("the kernel tells the end of another's child since Linux 6.15")
    program = (
        f"import os, signal, time; signal.signal(15, lambda *_: {ending}); print('serving', flush=True); time.sleep(60)"
    )
    script = (
        f"exec 2>/dev/null; trap 'kill $pid; wait $pid; exit 0' TERM; {PYTHON[0]} -S -c \"{program}\" & pid=$!; wait"
    )
    run = launch(["bash", "-c", script], env=GRACE)
    run.wait_for("serving")
    assert run.stop().code == 0
    found = run.story()
    assert (found["cause"], evidence in str(found)) == (cause, True), found


# A server that is not the process that the agent starts -------------------------------------------------------------

LEAVES_SERVER = "import os, time; os.fork() or time.sleep(600)"


def test_a_daemon_that_nobody_named_is_told_of(launch: Launcher) -> None:
    """The main process leaves with 0 and the server lives on: not a clean end, and the log says what to set."""
    world = launch.files / "world"
    run = launch(["bash", "-c", f"{server('TERM', world)} & sleep .5"], env=GRACE)
    done = run.finish()
    assert saved(world) == [TERM], "what it left is asked to end"
    assert "set AGENT_MAIN=" in done.stderr
    found = run.story()
    assert found["cause"] == "stopped_as_asked", found["evidence"]
    assert "left python" in str(found["summary"])


def test_a_daemon_that_does_not_handle_the_signal_has_not_crashed(launch: Launcher) -> None:
    """The agent's own SIGTERM ended it."""
    run = launch([*PYTHON, "-c", LEAVES_SERVER], env=GRACE)
    done = run.finish()
    assert "set AGENT_MAIN=" in done.stderr
    found = run.story()
    assert (found["exit_code"], found["cause"]) == (0, "stopped_as_asked"), found["evidence"]


def test_a_pid_file_names_the_server(launch: Launcher) -> None:
    """A server that daemonises is followed, and so is the successor that it writes into its pid file."""
    world, file = launch.files / "world", launch.files / "server.pid"
    launcher = launch.files / "first.sh"
    launcher.write_text(f"sleep 1\n(sleep .3; {server('TERM', world)} & echo $! > {file}) &\n")
    env = {**GRACE, "AGENT_MAIN": f"pidfile:{file}"}
    run = launch(["bash", "-c", f"sh {launcher} & echo $! > {file}"], env=env)
    run.wait_for("serving")
    eventually(lambda: "is the game's main one now" in run.stderr.text, "it is followed")
    eventually(lambda: run.stderr.text.count("is the game's main one now") >= 2, "its successor is followed")
    done = run.stop()
    assert (done.code, saved(world)) == (0, [TERM])
    assert run.story()["cause"] == "clean"


def test_the_last_server_is_followed(launch: Launcher) -> None:
    """Update and relaunch: a server starts its successor and leaves; how that ends is how the game ends."""
    code = (
        "import subprocess,sys; subprocess.Popen(['sh', '-c', 'echo serving; sleep 1; exec \"$0\" -S -c \"import time; "
    )
    code += "time.sleep(1); raise SystemExit(7)\"', sys.executable])"
    run = launch([PYTHON[0], "-S", "-c", code], env={**GRACE, "AGENT_MAIN": "last", "AGENT_ON_CRASH": "exit"})
    done = run.finish()
    assert done.code == 7, done.stderr
    assert "left" not in done.stderr


def test_a_script_that_sleeps_for_ever_behind_its_server(launch: Launcher) -> None:
    """The vendor's Unreal start script ends in `sleep infinity`: with AGENT_MAIN=port the port's owner is the game."""
    port = free_port()
    code = f"import socket,time; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', {port})); "
    code += "print('serving', flush=True); time.sleep(2)"
    script = f'{PYTHON[0]} -S -c "{code}" & sleep infinity'
    run = launch(["bash", "-c", script], env={**GRACE, "AGENT_MAIN": f"port:{port}", "AGENT_ON_CRASH": "exit"})
    done = run.finish()
    assert "is the game's main one now: AGENT_MAIN=port" in done.stderr
    assert run.story()["cause"] == ("clean" if KERNEL_TELLS else "unknown"), done.stderr


@pytest.mark.slow
def test_a_script_that_sleeps_for_ever_below_a_launcher_that_left(launch: Launcher) -> None:
    """The launcher leaves at once; what waits for the server goes on behind it, and would be billed for ever."""
    file = launch.files / "server.pid"
    script = launch.files / "run.sh"
    script.write_text(f"{server('TERM', launch.files / 'world')} & echo $! > {file}; wait; sleep infinity\n")
    env = {**GRACE, "AGENT_MAIN": f"pidfile:{file}", "AGENT_ON_CRASH": "exit"}
    run = launch(["sh", "-c", f"sh {script} &"], env=env, mode="subreaper")
    run.wait_for("serving")
    run.stderr.wait_for("is the game's main one now")
    os.kill(int(file.read_text()), signal.SIGKILL)
    done = run.finish()
    assert ("with signal 9" if KERNEL_TELLS else "how is not known") in done.stderr
    assert run.story()["cause"] == ("signal" if KERNEL_TELLS else "unknown"), "the launcher's 0 is not the server's"
