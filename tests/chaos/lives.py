"""Random lives of a deployment: what the game does, what is asked of it, what fails around it. Each from one seed.

A life is played with the installed command against a fake platform and a store that fail as the seed says, and judged
from outside: exit code, `exit.json`, calls to the platform, time, and what is left behind.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, Self

import pytest

from tests.fakes import TOKEN, FakePlatform, Reply
from tests.process.harness import Finished, Launcher, Mode, Run, agent_process, game

Trigger = Literal["sigterm", "api", "itself"]
Store = Literal["none", "file", "slow", "broken", "hanging", "cuts"]
Hurt = Literal["", "killed", "suspended"]

GRACES = (2.0, 3.0, 5.0)
"""Seconds between the platform's SIGTERM and its SIGKILL."""
SLOW_MACHINE = 0.5
"""Seconds past the grace that are counted and not wrong: where too much runs, what watches is late as well."""
WAIT_FOR_PLATFORM = 40.0
"""Seconds until a self-stop has been asked for, however the platform answers before."""

# Those that go on until they are stopped: program, arguments, and the exit codes that can come of it, besides that of a
# signal before the game had a handler (143), and that of SIGKILL where it is deaf or has too little time (137).
GAMES: tuple[tuple[str, tuple[str, ...], frozenset[int]], ...] = (
    ("polite", (), frozenset({0})),
    ("polite", ("42",), frozenset({42})),
    ("slow_on_sigterm", ("0.7",), frozenset({0})),
    ("ignores_sigterm", (), frozenset()),
    ("forks_helpers", (), frozenset({0})),
    ("leaves_orphans", ("20",), frozenset({0})),
    ("forks_on_sigterm", (), frozenset({0})),
    ("freezes", (), frozenset({0})),
    ("closes_stdout", (), frozenset({5})),
    ("forks_a_daemon", (), frozenset({0})),
)
# Those that end by themselves: program, arguments, exit code.
ENDINGS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("exits", ("0",), 0),
    ("exits", ("7",), 7),
    ("dies_of_signal", ("SIGSEGV",), 139),
    ("dies_of_signal", ("SIGABRT",), 134),
    ("dies_of_signal", ("SIGKILL",), 137),
    ("leaves_orphans", ("20", "and-exits", "9"), 9),
    ("forks_a_daemon", ("and-exits", "4"), 4),
)
# What the platform answers before it confirms.
ANSWERS: tuple[Reply, ...] = (
    Reply(503),
    Reply(500, body="<html>"),
    Reply(429, {"Retry-After": "0"}),
    Reply(429, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
    Reply(200, body="<html><body>Please log in</body></html>"),
    Reply(307, {"Location": "http://127.0.0.1:1/"}),
    Reply(manner="reset"),
    Reply(202, body='{"message": '),
    Reply(410),
    Reply(401),
    Reply(404),
)
_CONFIRMS = {200, 202, 410}
_REFUSES = {400, 401, 403, 404}


@dataclass
class Scenario:
    """What happens in one life, all of it drawn from its seed."""

    seed: int
    trigger: Trigger
    command: list[str]
    codes: frozenset[int]
    grace: float
    on_platform: bool
    answers: list[Reply]
    store: Store
    hurt: Hurt
    hurt_after: float
    act_after: float
    calls: list[tuple[str, str, object]]
    second_signal: bool
    mode: Mode

    @classmethod
    def draw(cls, seed: int) -> Scenario:
        """The life of this seed; always the same one."""
        dice = random.Random(seed)
        trigger: Trigger = dice.choice(("sigterm", "sigterm", "api", "itself"))
        if trigger == "itself":
            program, arguments, code = dice.choice(ENDINGS)
            command, codes = game(program, *arguments), frozenset({code})
        else:
            program, arguments, own = dice.choice(GAMES)
            command, codes = game(program, *arguments), own | {137, 143}
        return cls(
            seed=seed,
            trigger=trigger,
            command=command,
            codes=codes,
            grace=dice.choice(GRACES),
            on_platform=dice.random() < 0.7,
            answers=[dice.choice(ANSWERS) for _ in range(dice.choice((0, 0, 1, 2)))],
            store=dice.choice(("none", "file", "file", "slow", "broken", "hanging", "cuts")),
            hurt=dice.choice(("", "", "", "killed", "suspended")),
            hurt_after=dice.uniform(0.0, 1.5),
            act_after=dice.choice((0.0, dice.uniform(0.0, 0.3), dice.uniform(0.0, 2.0))),
            calls=[dice.choice(_CALLS) for _ in range(dice.randrange(12))],
            second_signal=dice.random() < 0.15,
            mode=dice.choice(("subreaper", "pid1")),
        )


_CALLS: tuple[tuple[str, str, object], ...] = (
    ("POST", "/v1/ready", None),
    ("POST", "/v1/health", None),
    ("PUT", "/v1/players", {"count": 3, "capacity": 8}),
    ("PUT", "/v1/players", {"count": -1}),
    ("GET", "/v1/status", None),
    ("GET", "/nowhere", None),
    ("POST", "/v1/stop", b"{not json"),
    ("POST", "/v1/metrics", [{"name": "ticks", "value": 1}]),
    ("PATCH", "/v1/stop", None),
)


@dataclass
class Verdict:
    """What was seen of one life.

    Attributes:
        wrong: what should not have been; empty for a life as it should be.
        late: seconds between SIGTERM and the end, as a part of the grace; 0 where the life was over before.
        confirmed, refused: how often the platform confirmed a self-stop, and refused one.
    """

    scenario: Scenario
    wrong: list[str] = field(default_factory=list)
    late: float = 0.0
    confirmed: int = 0
    refused: int = 0


class FaultyStore:
    """An HTTP store that keeps to one way to fail, for all requests or some of them."""

    def __init__(self, how: Store, seed: int) -> None:
        """Listens at once.

        Args:
            how: `slow` takes its time, `broken` answers 503 half the time, `hanging` never answers, `cuts` closes the
                connection half the time.
            seed: of the choices.
        """
        dice, over = random.Random(seed), threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if how == "hanging":
                    over.wait(60)
                    self.close_connection = True
                    return
                if how == "slow":
                    over.wait(0.5)
                fails = dice.random() < 0.5
                if how == "cuts" and fails:
                    self.close_connection = True
                    return
                self.send_response(503 if how == "broken" and fails else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that went away is no news here."""

        self._over = over
        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What AGENT_LOG_URL takes."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{{key}}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def live(seed: int, directory: Path) -> Verdict:
    """Plays the life of a seed and judges it.

    Args:
        seed: see `Scenario.draw`.
        directory: for the files of this life; made, and left for whoever wants to look.
    """
    scenario = Scenario.draw(seed)
    verdict = Verdict(scenario)
    directory.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        env = {"AGENT_GRACE_SECONDS": f"{scenario.grace:g}", "AGENT_SHIP_SECONDS": "3", "AGENT_SHIP_INTERVAL": "0.5"}
        platform = None
        if scenario.on_platform:
            platform = stack.enter_context(FakePlatform(scenario.answers))
            env |= platform.environment()
        if scenario.store == "file":
            env["AGENT_LOG_URL"] = f"file://{directory}/store"
        elif scenario.store != "none":
            env["AGENT_LOG_URL"] = stack.enter_context(FaultyStore(scenario.store, seed)).url
        launch = stack.enter_context(Launcher(directory))
        run = launch(scenario.command, mode=scenario.mode, env=env)
        try:
            _play(run, scenario, platform, verdict)
        except (AssertionError, OSError, ValueError, LookupError, pytest.fail.Exception) as problem:
            verdict.wrong.append(f"{type(problem).__name__}: {problem}"[:2000])
    return verdict


def _play(run: Run, scenario: Scenario, platform: FakePlatform | None, verdict: Verdict) -> None:
    run.wait_for("ready")
    if scenario.trigger != "itself":
        callers = threading.Thread(target=_call, args=(run, scenario.calls), daemon=True)
        callers.start()
    if scenario.hurt:
        threading.Timer(scenario.hurt_after, _hurt, (run, scenario.hurt)).start()
    time.sleep(scenario.act_after)  # the random moment is the point
    asked = True
    if scenario.trigger == "api":
        asked = _ask_to_stop(run)
    ends_itself = scenario.trigger == "itself" or (scenario.trigger == "api" and asked)
    if ends_itself and platform is not None:
        _wait_for_self_stop(platform, scenario)
    elif ends_itself:
        _judge(run, run.finish(), scenario, platform, verdict, stopped=False)
        return
    run.signal(signal.SIGTERM)
    if scenario.second_signal:
        time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.pid, signal.SIGTERM)
    done = run.finish()
    verdict.late = done.seconds / scenario.grace
    if done.seconds > scenario.grace + SLOW_MACHINE:
        late = f"ended {done.seconds:.2f} s after SIGTERM, and the grace is {scenario.grace:g} s"
        verdict.wrong.append(f"{late}: {done.stderr[-2000:]}")
    _judge(run, done, scenario, platform, verdict, stopped=not ends_itself)


def _judge(
    run: Run, done: Finished, scenario: Scenario, platform: FakePlatform | None, verdict: Verdict, *, stopped: bool
) -> None:
    if done.code not in scenario.codes:
        verdict.wrong.append(f"exit code {done.code}, and possible are {sorted(scenario.codes)}")
    verdict.wrong += _wrong_in_document(run, done, _reasons(scenario, stopped=stopped, code=done.code))
    if TOKEN in done.stderr:
        verdict.wrong.append("the token is in the log")
    if "Traceback" in done.stderr or "report this" in done.stderr:
        verdict.wrong.append(f"a fault: {done.stderr[-1500:]}")
    left = [path.name for path in run.files.iterdir() if path.name not in ("spool", "store")]
    left += [path.name for path in run.spool.glob("*/*") if path.suffix in (".first", ".tmp", ".part")]
    if left:
        verdict.wrong.append(f"left behind: {left}")
    if platform is not None:
        _judge_calls(platform, scenario, verdict, stopped=stopped)


def _wrong_in_document(run: Run, done: Finished, reasons: set[str]) -> list[str]:
    """What is wrong with `exit.json`."""
    documents = [json.loads(path.read_text()) for path in run.spool.glob("*/exit.json")]
    if len(documents) != 1:
        return [f"{len(documents)} exit.json"]
    document, wrong = documents[0], []
    if document["exit_code"] != done.code:
        wrong.append(f"exit.json says {document['exit_code']}, and the exit code is {done.code}")
    if document["reason"] not in reasons:
        wrong.append(f"the reason is {document['reason']}, and possible are {sorted(reasons)}")
    if not document["summary"]:
        wrong.append("exit.json has no summary")
    return wrong


def _judge_calls(platform: FakePlatform, scenario: Scenario, verdict: Verdict, *, stopped: bool) -> None:
    """The deployment is stopped once, where the platform did not do it itself, or that was refused."""
    answers = _answers(platform, scenario)
    verdict.confirmed = sum(confirms(reply) for reply in answers)
    verdict.refused = sum(refuses(reply) for reply in answers)
    if verdict.confirmed > 1:
        verdict.wrong.append(f"stopped {verdict.confirmed} times")
    if not stopped and not verdict.confirmed and not verdict.refused:
        verdict.wrong.append("never stopped, and not refused")


def refuses(reply: Reply) -> bool:
    """Whether an answer is a refusal, after which the agent holds and asks again now and then."""
    return reply.manner == "answer" and reply.status in _REFUSES


def confirms(reply: Reply) -> bool:
    """Whether an answer means that the deployment is, or will be, stopped; a web page means nothing."""
    page = reply.status == 200 and (reply.body or "").startswith("<html")
    return reply.manner == "answer" and reply.status in _CONFIRMS and not page


def _answers(platform: FakePlatform, scenario: Scenario) -> Sequence[Reply]:
    made = len([call for call in platform.calls if call.method == "DELETE"])
    return [*scenario.answers[:made], *[Reply(202)] * (made - len(scenario.answers))]


def _wait_for_self_stop(platform: FakePlatform, scenario: Scenario) -> None:
    """Until the platform has confirmed or refused, and a moment longer, in which it must not be asked again."""
    settled = (i for i, one in enumerate(scenario.answers) if confirms(one) or refuses(one))
    platform.wait_for_calls(1 + next(settled, len(scenario.answers)), WAIT_FOR_PLATFORM)
    time.sleep(0.3)


def _reasons(scenario: Scenario, *, stopped: bool, code: int) -> set[str]:
    match scenario.trigger:
        case "sigterm":
            return {"platform_stop"}
        case "api":
            return {"platform_stop"} if stopped else {"requested"}
        case _:
            return {"game_exited" if code == 0 else "game_crashed"}


def _call(run: Run, calls: Sequence[tuple[str, str, object]]) -> None:
    """Calls of the game's, each on a connection of its own; the agent may be gone at any, and back at the next."""
    for method, path, body in calls:
        if run.process.poll() is not None:
            return
        with contextlib.suppress(Exception):
            _request(run, method, path, body)


def _request(run: Run, method: str, path: str, body: object) -> int:
    host, _, port = run.game_environment["AGENT_URL"].removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    with contextlib.closing(connection):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        return connection.getresponse().status


def _ask_to_stop(run: Run) -> bool:
    """Whether a stop was accepted; the agent may fall before it answers, and is asked again then."""
    for _ in range(5):
        try:
            if _request(run, "POST", "/v1/stop", {"reason": "match over"}) == 202:
                return True
        except (OSError, http.client.HTTPException):
            time.sleep(0.2)
    return False


def _hurt(run: Run, how: Hurt) -> None:
    with contextlib.suppress(Exception):
        pid = agent_process(run.pid)
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        if how == "suspended":
            threading.Timer(2.0, _wake, (pid,)).start()


def _wake(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def play(seeds: Sequence[int], directory: Path, at_once: int) -> list[Verdict]:
    """Plays lives, several at once.

    Args:
        seeds: one a life.
        directory: for their files.
        at_once: how many.
    """
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda seed: live(seed, directory / str(seed)), seeds))
