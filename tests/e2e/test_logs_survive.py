"""The whole agent under the platform's own stop, bad disks and dead stores: the story always gets out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.process.harness import COMMAND, Launcher, Run, eventually, everything_written, game
from tests.stores import BUCKET, Line, S3Server, s3_server
from tests.variants import one_fast

DEPLOYMENT = "23c01225b99d"
TOKEN = "3f1c9a7be2d84d0c9a7be2d84d0c11aa"


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """Starts agents; nothing outlives the test."""
    with Launcher(tmp_path) as launcher:
        yield launcher


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    """An S3 server."""
    with s3_server(tmp_path / "s3") as running:
        yield running


@pytest.fixture
def line(server: S3Server) -> Iterator[Line]:
    """A line to it that can be disturbed, in a thread of its own."""
    made = Line(server.port)
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with made:
            ready.set()
            while not over.is_set():  # noqa: ASYNC110 - set from another thread
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    yield made
    over.set()
    thread.join()


def plain(key: str, data: bytes) -> bytes:
    """An object, unpacked."""
    return zstandard.ZstdDecompressor().decompressobj().decompress(data) if key.endswith(".zst") else data


def stored(server: S3Server, name: str) -> bytes | None:
    """The newest object with this name in the store, unpacked."""
    found = sorted(key for key in server.objects() if key.rpartition("/")[2] == name)
    return plain(found[-1], server.objects()[found[-1]]) if found else None


def the_platform_stops(run: Run, grace: float) -> float:
    """SIGTERM, the grace, SIGKILL to everything; returns how long it took to end by itself, or the grace."""
    began = time.monotonic()
    run.signal(signal.SIGTERM)
    while time.monotonic() - began < grace:
        if run.process.poll() is not None:
            return time.monotonic() - began
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.process.wait()
    return grace


@pytest.mark.slow  # a second for all of the end: nothing else may run beside it
def test_the_platforms_own_case(launch: Launcher, server: S3Server, line: Line) -> None:
    """A game that ignores SIGTERM, 50 MB unshipped, a slow line, 5 s: exit.json and tail are in the store in time."""
    line.mode = "silent"  # nothing is shipped while it runs
    # The game's 50 MB cannot be compressed: hexadecimal digits of random bytes would become 25.
    script = "trap '' TERM INT; head -c 50000000 /dev/urandom; echo; echo last words; while :; do sleep 0.1; done"
    env = {**server.environ(line.port), "AGENT_LOG_URL": f"s3://{BUCKET}", "ARBITRIUM_REQUEST_ID": DEPLOYMENT}
    run = launch(["sh", "-c", script], env=env)
    run.wait_for(b"last words")
    assert run.is_ready_to_answer()
    line.mode, line.bytes_per_second = "pass", 1_000_000
    took = the_platform_stops(run, 5.0)
    document = json.loads(stored(server, "exit.json") or b"null")
    assert document is not None, f"no exit.json after {took:.2f} s: {run.stderr.text}"
    assert took < 5.0, "the agent ended by itself, inside the grace"
    assert document["cause"] == "killed_by_agent"
    assert document["reason"] == "platform_stop"
    assert (stored(server, "tail.log") or b"").endswith(b"\nlast words\n")
    missing = document["shipping"]["not_shipped"]
    arrived = [key for key in server.objects() if key.endswith(".ndjson.zst")]
    assert len(missing) + len(arrived) >= 12, "what did not make it is listed"
    assert "cannot ship everything" in run.stderr.text
    with contextlib.suppress(AssertionError):
        run.stderr.ends(1)


@pytest.mark.parametrize(
    ("code", "kind"),
    one_fast(("kill -SEGV $$", "signal"), ("exit 0", "clean"), ("exit 7", "exit_code"), ("wait", "stop")),
)
def test_on_every_way_out_the_rest_is_shipped(launch: Launcher, server: S3Server, code: str, kind: str) -> None:
    """Clean exit, crash, signal, SIGTERM: the last line is in the store, and the commands show it."""
    env = {**server.environ(), "AGENT_LOG_URL": f"s3://{BUCKET}/{{date}}", "ARBITRIUM_REQUEST_ID": DEPLOYMENT}
    script = "echo the last line; " + ("exec sleep 600" if kind == "stop" else code)
    run = launch(["sh", "-c", script], env=env, mode="subreaper")
    if kind == "stop":
        run.wait_for("the last line")
        run.signal(signal.SIGTERM)
    run.finish()
    document = json.loads(stored(server, "exit.json") or b"null")
    assert document["cause"] == ("signal" if kind == "stop" else kind)
    assert document["shipping"]["complete"] is True
    assert document["output_tail"] == "the last line\n"

    def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [COMMAND, *arguments, "--url", f"s3://{BUCKET}"]
        return subprocess.run(
            command, env={**os.environ, **server.environ()}, capture_output=True, text=True, timeout=60, check=False
        )

    logs = cli("logs", DEPLOYMENT, "--raw", "-s", "stdout")
    assert (logs.returncode, logs.stdout) == (0, "the last line\n"), logs.stderr
    assert cli("logs", "-g", "no such line").returncode == 1
    story = cli("autopsy", DEPLOYMENT)
    assert story.returncode == 0
    assert f"Deployment {DEPLOYMENT}, attempt 1" in story.stdout
    assert "the last line" in story.stdout


def test_after_a_second_sigterm_the_rest_is_shipped_all_the_same(launch: Launcher, server: S3Server) -> None:
    """It skips the game's time to obey, and nothing of the story."""
    env = {**server.environ(), "AGENT_LOG_URL": f"s3://{BUCKET}", "AGENT_GRACE_SECONDS": "60"}
    run = launch(["sh", "-c", "trap '' TERM; echo last words; while :; do sleep 0.1; done"], env=env)
    run.wait_for("last words")
    assert run.is_ready_to_answer()
    run.signal(signal.SIGTERM)
    run.stderr.wait_for("stopping: ")
    run.signal(signal.SIGTERM)
    assert run.finish().seconds < 20
    document = json.loads(stored(server, "exit.json") or b"null")
    assert document["cause"] == "killed_by_agent"
    assert document["shipping"]["complete"] is True
    assert stored(server, "tail.log") == b"last words\n"


def mount_tmpfs(path: Path, size: str) -> None:
    """A small file system, or a visible skip."""
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {done.stderr.decode().strip()}")


@pytest.fixture(params=["disk full", "read-only", "missing", "store unreachable", "store hangs", "slow terminal"])
def trouble(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """What goes wrong, and the settings that make it go wrong."""
    kind = str(request.param)
    spool = tmp_path / "trouble"
    env = {"AGENT_SPOOL_DIR": str(spool), "AGENT_SHIP_SECONDS": "2"}
    with contextlib.ExitStack() as stack:
        if kind in ("disk full", "read-only"):
            mount_tmpfs(spool, "1m")
            stack.callback(subprocess.run, ["umount", "-l", str(spool)], check=True)
            if kind == "read-only":
                subprocess.run(["mount", "-o", "remount,ro", str(spool)], check=True)
        elif kind == "missing":
            (tmp_path / "file").write_text("")
            env["AGENT_SPOOL_DIR"] = str(tmp_path / "file" / "spool")
        elif kind == "store unreachable":
            env |= {"AGENT_LOG_URL": "http://127.0.0.1:9/logs", "AGENT_SHIP_INTERVAL": "0.2"}
        elif kind == "store hangs":
            import socket  # noqa: PLC0415 - only here

            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            env |= {"AGENT_LOG_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/logs", "AGENT_SHIP_INTERVAL": "0.2"}
        yield kind, env


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_the_game_never_notices(
    launch: Launcher, trouble: tuple[str, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its longest write is measured and printed; it is not held up by what is wrong, and the exit code is its own."""
    kind, env = trouble
    result = tmp_path / "stalls.json"
    # 10 MB/s for 3 s: more than any buffer on the way holds.
    command = game("measures_stalls", str(result), "3", "10000000", "200")
    reading, writing = os.pipe()
    slow = kind == "slow terminal"
    run = launch(
        command, env={**env, "AGENT_ON_EXIT": "exit"}, mode="subreaper", stdout=writing if slow else subprocess.DEVNULL
    )
    os.close(writing)
    over = threading.Event()
    # Somebody reads 20 KB/s.
    reader = threading.Thread(target=_trickle if slow else os.close, args=(reading, over) if slow else (reading,))
    reader.start()
    eventually(result.exists, "the game is through", 60)
    finished = run.finish(60)
    over.set()
    reader.join()
    assert finished.code == 0, finished.stderr
    figures: dict[str, Any] = json.loads(result.read_text())
    with capsys.disabled():
        print(
            f"\nwrite stall, {kind}: {figures['writes']} writes, p50 {figures['p50_ms']:.3f} ms, "
            f"p99.9 {figures['p999_ms']:.2f} ms, worst {figures['worst_ms']:.1f} ms"
        )
    assert figures["bytes"] > 15_000_000, "it could write as fast as it wanted to"
    if kind in ("disk full", "read-only", "missing"):
        assert "cannot write to the spool directory" in finished.stderr
    if kind == "store unreachable":
        assert "cannot ship logs to http://127.0.0.1:9/logs" in finished.stderr


def _trickle(fd: int, over: threading.Event) -> None:
    while not over.is_set():
        os.read(fd, 1000)
        over.wait(0.05)
    os.close(fd)


def test_no_secret_gets_out(launch: Launcher, server: S3Server) -> None:
    """A game that prints its environment, a store key among the agent's own, a pattern: nothing in spool or store."""
    env = {
        **server.environ(),
        "AGENT_LOG_URL": f"s3://{BUCKET}",
        "ARBITRIUM_DELETE_TOKEN": TOKEN,
        "DATABASE_PASSWORD": "hunter2-hunter2",
        "AGENT_REDACT": "DATABASE_PASSWORD,/card [0-9]+/",
        "AGENT_KEEP": str(launch.files / "*.dump"),
        "AGENT_ON_EXIT": "exit",
    }
    script = (
        "env; echo $ARBITRIUM_DELETE_TOKEN | base64; printf '%s' \"$ARBITRIUM_DELETE_TOKEN\" > dump.dump; "
        "printf '%.10s' $ARBITRIUM_DELETE_TOKEN; sleep 0.2; echo ${ARBITRIUM_DELETE_TOKEN#??????????}; "
        "echo card 4111111111111111; exit 3"
    )
    run = launch(["sh", "-c", script], env=env, mode="subreaper")
    finished = run.finish()
    assert finished.code == 3
    assert TOKEN.encode() in finished.stdout, "what is passed on is unchanged unless AGENT_REDACT_STDOUT is on"
    assert env["AWS_SECRET_ACCESS_KEY"].encode() not in finished.stdout, "the game does not get the store's keys"
    everywhere = everything_written(run.spool)
    everywhere += b"".join(key.encode() + plain(key, data) for key, data in server.objects().items())
    assert b"[redacted]" in everywhere
    for secret in (TOKEN, env["AWS_SECRET_ACCESS_KEY"], "hunter2-hunter2", "4111111111111111", "M2YxYzlhN2Jl"):
        assert secret.encode() not in everywhere
        assert secret not in finished.stderr


def test_secrets_are_taken_out_of_what_is_passed_on_too(launch: Launcher) -> None:
    """AGENT_REDACT_STDOUT=on."""
    env = {"ARBITRIUM_DELETE_TOKEN": TOKEN, "AGENT_REDACT_STDOUT": "on", "AGENT_ON_EXIT": "exit"}
    finished = launch(["sh", "-c", "echo a $ARBITRIUM_DELETE_TOKEN b; exit 0"], env=env, mode="subreaper").finish()
    assert finished.stdout == b"a [redacted] b\n"


@pytest.mark.slow
def test_log_files_replays_and_cores_come_along(launch: Launcher, server: S3Server) -> None:
    """AGENT_LOG_FILES is followed, AGENT_KEEP is shipped, and a crash brings its core where the machine permits one."""
    env = {
        **server.environ(),
        "AGENT_LOG_URL": f"s3://{BUCKET}",
        "AGENT_LOG_FILES": str(launch.files / "logs" / "*.log"),
        "AGENT_KEEP": f"{launch.files}/*.replay,/nothing/here/*",
        "AGENT_CORE": "on",
        "AGENT_ON_CRASH": "exit",
    }
    script = (
        # The first file is left alone until the agent, which is slower than a game to start, has had time to find it.
        "mkdir logs; echo in a file >> logs/game.log; echo replay > one.replay; "
        "until curl -fsS $AGENT_URL/healthz; do :; done; sleep 3; "
        "mv logs/game.log logs/game.log.1; echo in the next file >> logs/game.log; kill -SEGV $$"
    )
    run = launch(["sh", "-c", script], env=env, mode="subreaper")
    assert run.finish().code == 139
    document = json.loads(stored(server, "exit.json") or b"null")
    assert (document["cause"], document["signal"]) == ("signal", "SIGSEGV")
    lines = [
        json.loads(text)
        for key, data in sorted(server.objects().items())
        if key.endswith(".ndjson.zst")
        for text in plain(key, data).splitlines()
    ]
    of_file = [item["line"] for item in lines if item["stream"] == str(launch.files / "logs" / "game.log")]
    assert of_file == ["in a file", "in the next file"]
    assert document["bundle"]["collected"][0]["path"] == f"{launch.files}/one.replay"
    assert document["bundle"]["missing"] == ["/nothing/here/*"]
    core = document["core"]
    if core["path"] is None:
        assert core["summary"].startswith(("cannot get a core", "no core"))
    else:
        assert any(key.endswith("core.zst") for key in server.objects())


@pytest.mark.slow
def test_two_agents_on_one_machine_share_a_spool_directory_and_a_store(launch: Launcher, server: S3Server) -> None:
    """Neither touches the other's; both stories are told."""
    env = {**server.environ(), "AGENT_LOG_URL": f"s3://{BUCKET}", "AGENT_CONTROL_PORT": "0", "AGENT_ON_EXIT": "exit"}
    runs = [
        launch(
            ["sh", "-c", f"echo from {name}; while [ ! -e done ]; do sleep 0.05; done"],
            env={**env, "ARBITRIUM_REQUEST_ID": name * 12, "AGENT_SOCKET_PATH": str(launch.files / f"{name}.sock")},
            mode="subreaper",
        )
        for name in "ab"
    ]
    for run, name in zip(runs, "ab", strict=True):
        run.wait_for(f"from {name}")
    (launch.files / "done").touch()
    for run in runs:
        run.finish()
    for name in "ab":
        [segment] = [
            plain(key, data)
            for key, data in server.objects().items()
            if f"-{name * 12}-1/" in key and key.endswith(".ndjson.zst")
        ]
        assert f"from {name}".encode() in segment


@contextlib.contextmanager
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup (v1) of 200 MiB."""
    root = Path("/sys/fs/cgroup/memory")
    if not (root / "memory.limit_in_bytes").exists():
        pytest.skip("making a memory cgroup (v1) is not possible here")
    group = root / f"arbitrium-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(200 << 20))
    except OSError as problem:
        pytest.skip(f"making a memory cgroup is not permitted here: {problem}")
    try:
        yield group
    finally:
        eventually(lambda: not (group / "cgroup.procs").read_text().strip(), "the cgroup is empty")
        group.rmdir()


@pytest.mark.parametrize("lives_on", [False, True])
@pytest.mark.slow
def test_an_oom_kill_of_a_child_is_the_cause_only_where_it_ended_the_game(
    launch: Launcher, tmp_path: Path, lives_on: bool
) -> None:
    """The kernel's counter knows what a wrapper's exit code does not; an orderly stop after it is orderly."""
    with small_cgroup() as group:
        # It eats when the whole agent is there.
        eat = 'import sys; a = []\nwhile True: a.append(b"x" * (8 << 20))'
        after = "trap 'exit 0' TERM; echo goes on; while :; do sleep 0.05; done" if lives_on else "exit 1"
        child = f"while [ ! -e go ]; do sleep 0.05; done; {sys.executable} -c '{eat}'; {after}"
        enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
        env = {"AGENT_ON_CRASH": "exit", "AGENT_LOG_URL": (tmp_path / "store").as_uri()}
        run = launch(["sh", "-c", child], env=env, mode="subreaper", prefix=enter)
        assert run.is_ready_to_answer()
        (launch.files / "go").touch()
        if lives_on:
            run.wait_for("goes on")
            assert run.stop().code == 0
        else:
            assert run.finish().code == 1
        (path,) = (tmp_path / "store").rglob("exit.json")
        document = json.loads(path.read_text())
        assert document["memory"]["oom_kills"] >= 1
        assert document["memory"]["limit_bytes"] == 200 << 20
        said = " ".join(document["evidence"])
        if lives_on:
            assert "all before the stop was asked for" in said
            assert document["cause"] == "clean", document
        else:
            assert document["cause"] == "out_of_memory", document
            assert "one of the game's processes" in document["summary"]
