"""Whom the game runs as, what it may not read, and the files that are written for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agent
from tests.other_users import let_others_reach
from tests.process.harness import COMMAND, PYTHON, Launcher, Mode, game

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
WHO = ["sh", "-c", "id -u; id -g; echo $HOME $USER; echo direct > /dev/stdout; echo done"]


@needs_root
def test_the_game_runs_as_somebody_else(launch: Launcher, mode: Mode) -> None:
    """With that user's groups and home, and may open /dev/stdout; the agent keeps what it needs."""
    done = launch(WHO, mode=mode, env={"AGENT_GAME_USER": "nobody", "HOME": "/root"}).finish()
    assert done.stdout.decode().splitlines() == ["65534", "65534", "/nonexistent nobody", "direct", "done"]
    assert done.code == 0


@needs_root
def test_a_game_that_changes_its_user_itself_may_open_its_output(launch: Launcher) -> None:
    """As a start script does with gosu or setpriv; it cannot read what others wrote."""
    source = (
        "import os; os.setgroups([]); os.setgid(12345); os.setuid(12345); open('/dev/stdout', 'a').write('direct\\n'); "
        "open('/dev/stderr', 'w').write('problem\\n'); open('/dev/stdout')"
    )
    done = launch([*PYTHON, "-c", source]).finish()
    assert done.stdout == b"direct\n", done
    assert "problem\n" in done.stderr
    assert "PermissionError" in done.stderr
    assert done.code == 1


@needs_root
def test_a_home_that_was_set_on_purpose_is_kept(launch: Launcher) -> None:
    """An image that says where the game keeps its files knows better than /etc/passwd."""
    done = launch(WHO, env={"AGENT_GAME_USER": "nobody", "HOME": "/srv/game"}).finish()
    assert done.stdout.decode().splitlines()[2] == "/srv/game nobody"


@needs_root
def test_a_uid_needs_no_entry(launch: Launcher) -> None:
    """Images name users by number."""
    done = launch(WHO, env={"AGENT_GAME_USER": "12345:54321"}).finish()
    assert done.stdout.decode().splitlines()[:2] == ["12345", "54321"]


@needs_root
def test_it_is_stopped_and_killed_as_any_other(launch: Launcher, mode: Mode) -> None:
    """Root may signal everybody."""
    env = {"AGENT_GAME_USER": "12345", "AGENT_GRACE_SECONDS": "1"}
    run = launch(["sh", "-c", "trap '' TERM; echo ready; sleep 600 & wait; sleep 600"], mode=mode, env=env)
    run.wait_for("ready")
    assert run.stop().code == 137


@needs_root
def test_it_may_use_the_socket(launch: Launcher) -> None:
    """Its user is let in; that of somebody else would not be."""
    let_others_reach(launch.files)
    source = (
        "import os, socket; s = socket.socket(socket.AF_UNIX); s.connect(os.environ['AGENT_SOCKET']); "
        's.sendall(b\'{"jsonrpc":"2.0","id":1,"method":"ready"}\\n\'); print(s.recv(4096).decode(), flush=True)'
    )
    done = launch(["/usr/bin/python3", "-c", source], env={"AGENT_GAME_USER": "nobody"}).finish()
    if b"No such file" in done.stderr.encode() and "python3" in done.stderr:
        pytest.skip("there is no /usr/bin/python3")
    assert b'"phase":"ready"' in done.stdout, done


@needs_root
def test_nothing_is_shipped_that_the_game_may_not_read(launch: Launcher) -> None:
    """Neither what it names over the API nor what a link of its own leads to; the store is for the agent's user."""
    secret, folder, store = launch.files / "secret", launch.files / "game", launch.files / "store"
    secret.write_text("hunter2")
    secret.chmod(0o600)
    folder.mkdir()
    let_others_reach(launch.files)
    (folder / "own.replay").write_text("mine")
    for name in ("link.replay", "link.log"):
        (folder / name).symlink_to(secret)
        os.chown(folder / name, 65534, 65534, follow_symlinks=False)
    env = {
        "AGENT_GAME_USER": "nobody",
        "AGENT_LOG_URL": store.as_uri(),
        "AGENT_KEEP": f"{folder}/*.replay",
        "AGENT_LOG_FILES": f"{folder}/*.log",
    }
    run = launch(["sleep", "600"], env=env)
    assert run.is_ready_to_answer()
    for path in (secret, folder / "link.replay"):
        assert run.http("POST", "/v1/uploads", {"path": str(path)}).status == 400
    assert run.http("POST", "/v1/uploads", {"path": str(folder / "own.replay")}).status == 202
    run.stop()
    shipped = [path for path in store.rglob("*") if path.is_file()]
    assert any(path.name == "own.replay.zst" for path in shipped), shipped
    assert not [path for path in shipped if "link" in path.name or path.stat().st_mode & 0o077]


@pytest.mark.parametrize(("setting", "flag"), [(None, "1"), ("off", "0")])
def test_setuid_programs_give_no_rights_unless_they_are_needed(
    launch: Launcher, mode: Mode, setting: str | None, flag: str
) -> None:
    """Also not to whatever the game starts; AGENT_NO_NEW_PRIVS=off is for images that need sudo."""
    if "NoNewPrivs:\t1" in Path("/proc/self/status").read_text():
        pytest.skip("these tests run without new privileges themselves")
    show = ["sh", "-c", "grep NoNewPrivs: /proc/self/status"]
    done = launch(show, mode=mode, env={"AGENT_NO_NEW_PRIVS": setting}).finish()
    assert done.stdout.split() == [b"NoNewPrivs:", flag.encode()]


@pytest.mark.parametrize("user", ["no-such-user", "nobody:no-such-group", "-1", "a b"])
def test_a_user_that_is_none(launch: Launcher, user: str) -> None:
    """Exit 78, with the name of the setting and what it takes."""
    done = launch(game("polite"), env={"AGENT_GAME_USER": user}).finish()
    assert done.code == 78
    assert "AGENT_GAME_USER" in done.stderr
    assert "takes" in done.stderr


@needs_root
def test_who_is_not_root_cannot_become_somebody_else(launch: Launcher) -> None:
    """It is said, and not tried."""
    if not os.access(COMMAND, os.X_OK) or str(Path(sys.executable).resolve()).startswith("/root/"):
        pytest.skip("the interpreter of this installation is for root only")
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = launch(game("polite"), env={"AGENT_GAME_USER": "12345"}, prefix=prefix).finish()
    assert done.code == 78
    assert "only root can" in done.stderr


@needs_root
@pytest.mark.parametrize(
    ("capabilities", "readable"), [("-sys_ptrace,-perfmon,-sys_admin", False), ("+sys_ptrace", True)]
)
def test_a_game_that_is_root_as_well_cannot_read_the_agents_environment(
    launch: Launcher, capabilities: str, readable: bool
) -> None:
    """As engines start containers: root, without what lets it look into others. With it, it can: this test can fail.

    On Linux 6.18 CAP_PERFMON and CAP_SYS_ADMIN are enough to read memory, as CAP_SYS_PTRACE was before.
    """
    source = (
        "import os; path = f'/proc/{os.getppid()}/'; print('it is', open(path + 'comm').read().strip())\n"
        "for name in 'environ', 'maps':\n"
        "    try: print(name, b'hunter2' in open(path + name, 'rb').read())\n"
        "    except PermissionError: print(name, 'refused')"
    )
    prefix = ["setpriv", "--bounding-set", capabilities, "--inh-caps", "-all"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("setpriv cannot do this here")
    env = {"AGENT_API_TOKEN": "hunter2"}
    done = launch([*PYTHON, "-c", source], env=env, prefix=prefix, mode="subreaper").finish()
    assert "it is" in done.stdout.decode()
    assert ("environ True" in done.stdout.decode()) is readable, done
    assert ("environ refused" in done.stdout.decode()) is not readable, done


@needs_root
@pytest.mark.parametrize(("private", "readable"), [(True, False), (False, True)])
def test_a_game_of_the_same_user_cannot_read_the_agents_environment(private: bool, readable: bool) -> None:
    """The agent is not dumpable; without that it could be read, so that this test can fail.

    Only for a user without special rights: root with all capabilities may read everything.
    """
    python, package = Path("/usr/bin/python3"), Path(agent.__file__).parent.parent
    source = (
        f"import sys, os, subprocess; sys.path.insert(0, {str(package)!r}); from agent.game import reaper; "
        f"{'reaper.keep_memory_private(); ' if private else ''}"
        "print(subprocess.run(['cat', f'/proc/{os.getpid()}/environ'], capture_output=True).stdout)"
    )
    as_nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
        str(python),
        "-B",
        "-c",
    ]
    done = subprocess.run(
        [*as_nobody, source], env={"SECRET": "hunter2", "PATH": "/usr/bin:/bin"}, capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"nobody cannot run {python} with {package} here: {done.stderr[-200:]!r}")
    assert (b"hunter2" in done.stdout) is readable


def test_a_file_is_written_before_the_game_starts(launch: Launcher) -> None:
    """With the port that the platform gave."""
    source, target = launch.files / "server.cfg.tmpl", launch.files / "server.cfg"
    source.write_text("port=${ARBITRIUM_PORT_GAMEPORT_INTERNAL}\ncost=$$1\n")
    env = {"AGENT_TEMPLATE": f"{source}:{target}", "ARBITRIUM_PORT_GAMEPORT_INTERNAL": "7777"}
    done = launch(["cat", str(target)], env=env).finish()
    assert done.stdout == b"port=7777\ncost=$1\n"


def test_a_missing_name_is_an_error_that_says_which(launch: Launcher) -> None:
    """The game is not started; what was there stays."""
    source, target = launch.files / "server.cfg.tmpl", launch.files / "server.cfg"
    source.write_text("a\nport=${ARBITRIUM_PORT_GAEMPORT_INTERNAL}\n")
    target.write_text("old")
    done = launch(["echo", "started"], env={"AGENT_TEMPLATE": f"{source}:{target}"}).finish()
    assert done.code == 78
    assert done.stdout == b""
    assert "line 2: ARBITRIUM_PORT_GAEMPORT_INTERNAL" in done.stderr
    assert target.read_text() == "old"
