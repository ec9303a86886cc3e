"""Coverage-guided fuzzing of what reads input from game, platform, disk or operator, with atheris (libFuzzer).

    python -m tests.chaos.fuzz --inputs 1000000            every parser, one after the other, and a table
    python -m tests.chaos.fuzz --only notify statsd        these
    python -m tests.chaos.fuzz --only notify --again FILE  one input that was found before

A parser takes its input, or refuses it in the way that its docstring names. Everything else is a finding: another
exception, an answer that is wrong by the target's own check, or an input that takes longer than five seconds. The
input of a finding is kept in `.build/fuzz/`. tests/unit/test_fuzz.py holds the same promises with few inputs in every
run of the fast suite; what was found here becomes a test there, or beside the parser's other tests.
"""

# ruff: noqa: PLC0415 - atheris instruments what is imported while it looks
from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

Target = Callable[[bytes], None]
TARGETS: dict[str, Callable[[], Target]] = {}
"""What makes a target; the parsers are imported only then, so that atheris can instrument them."""
CORPUS: dict[str, list[bytes]] = {}
KEPT = Path(".build/fuzz")
LONGEST_INPUT = 2048


def target(*corpus: bytes) -> Callable[[Callable[[], Target]], Callable[[], Target]]:
    """Registers a target under its function's name, with inputs to start from."""

    def register(make: Callable[[], Target]) -> Callable[[], Target]:
        TARGETS[make.__name__] = make
        CORPUS[make.__name__] = list(corpus)
        return make

    return register


def text_of(data: bytes) -> str:
    """As the environment, argv and file names come: bytes that are no UTF-8 are lone surrogates."""
    return data.decode("utf-8", "surrogateescape").replace("\0", "")


# The platform --------------------------------------------------------------------------------------------------------

_MAPPING = b'{"ports":{"gameport":{"name":"gameport","internal":7777,"external":31504,"protocol":"UDP"}}}'


@target(
    b"ARBITRIUM_PORTS_MAPPING=" + _MAPPING,
    b"ARBITRIUM_PORT_GAMEPORT_INTERNAL=7777\nARBITRIUM_PORT_GAMEPORT_EXTERNAL=31504\nARBITRIUM_PORT_GAMEPORT_PROTOCOL=UDP",
    b'ARBITRIUM_DEPLOYMENT_LOCATION={"city":"Montreal","latitude":45.5,"longitude":-73.6}\nARBITRIUM_PUBLIC_IP=192.0.2.1',
    b'MM_MATCH_PROFILE=simple\nMM_TEAMS={"a":["1"]}\nMM_TICKET_IDS=["x"]\nMM_EXPANSION_STAGE=initial',
    b"ARBITRIUM_DELETE_URL=https://api.edgegap.com/v1/self/stop/a/1\nARBITRIUM_DELETE_TOKEN=t",
)
def environment() -> Target:
    """The injected variables: never an exception, and ports that are ports."""
    from agent.config import game_ports, injected

    def read(data: bytes) -> None:
        environ = dict(line.partition("=")[::2] for line in text_of(data).split("\n") if "=" in line)
        for port in game_ports.game_ports(environ).values():
            assert 0 <= port.internal <= 65535
            assert port.external is None or 0 <= port.external <= 65535
        found = injected.parse(environ)
        json.dumps(found.deployment.document(), allow_nan=False)

    return read


@target(
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body>Sign in</body></html>",
    b"HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 410 Gone\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n",
)
def answer_to_the_light_self_stop() -> Target:
    """Whatever a server says: confirmed only by a status line that confirms, and no exception."""
    import http.client

    from agent.init import release

    vars(release)["log"] = Mock()  # its lines are not what is looked at
    said = b""

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = Mock(makefile=lambda *_args, **_named: io.BytesIO(said))

    http.client.HTTPConnection = Connection  # type: ignore[misc]
    confirms = re.compile(r"HTTP/1\.[01] (200|202|410)[ \r\n]")

    def call(data: bytes) -> None:
        nonlocal said
        said = data
        status = release._call("http://192.0.2.1/v1/self/stop/a/1", "token", "false")
        if status in (200, 202, 410):
            assert confirms.search(data.decode("latin-1")), "confirmed without a status that confirms"

    return call


@target(b"5", b"Fri, 27 Nov 2026 12:00:00 GMT", b"0", b"-1", b"1e999")
def retry_after() -> Target:
    """A finite number of seconds from 0, or nothing."""
    from agent.edgegap.retry_after import retry_after_seconds

    def read(data: bytes) -> None:
        asked = retry_after_seconds({"Retry-After": text_of(data)}, 1_000_000.0)
        assert asked is None or (math.isfinite(asked) and asked >= 0)

    return read


# The game ------------------------------------------------------------------------------------------------------------


@target(b"READY=1\nSTATUS=up", b"MAINPID=7", b"EXTEND_TIMEOUT_USEC=1000000", b"WATCHDOG=trigger", b"ERRNO=2\nBARRIER=1")
def notify() -> Target:
    """sd_notify's datagrams: assignments with names in capitals."""
    from agent.init.notify import parse

    def read(data: bytes) -> None:
        for name, value in parse(data).items():
            assert name.isupper()
            assert "\n" not in value

    return read


@target(b"shots:2|c|@0.1\nload:+0.5|g", b"tick:16|ms|#weapon:awp,ranked", b"damage:10:20|d", b"a:1|h|c:x|T1")
def statsd() -> Target:
    """Samples are counted or refused, and what is shown is text that Prometheus takes."""
    from agent.lifecycle.game_metrics import GameMetrics
    from agent.metrics.counts import StatsdCounts
    from agent.metrics.statsd import StatsdListener

    metrics = GameMetrics()
    listener = StatsdListener(Mock(family=0), metrics, StatsdCounts(), Mock())

    def read(data: bytes) -> None:
        metrics.clear()
        listener._cells.clear()
        listener.take(data)
        for name, value in metrics.flat().items():
            assert not math.isnan(value), name
            assert re.match(r"[a-zA-Z_:][a-zA-Z0-9_:]*", name)

    return read


@target(
    b'{"jsonrpc":"2.0","id":1,"method":"players.set","params":{"count":3}}',
    b'[{"jsonrpc":"2.0","id":1,"method":"status"},{"jsonrpc":"2.0","method":"health"}]',
    b'{"jsonrpc":"2.0","id":1e999,"method":"ready"}',
    b'{"jsonrpc":"2.0","id":"x","method":"stop","params":{"reason":"r","grace_seconds":1}}',
)
def control_socket() -> Target:
    """JSON-RPC: JSON in answer or nothing, and never an internal error."""
    from tests.unit.test_fuzz import check_answer

    return check_answer


@target(
    b'{"id":1,"method":0,"params":{}}\n{"id":2,"method":1,"params":{"channel":"server#1"}}',
    b'{"id":1,"connect":{}}\n{"id":2,"subscribe":{"channel":"server#1"}}\n{}',
    b'{"id":3,"ping":{}}',
)
def multiplay_socket() -> Target:
    """Centrifuge's JSON protocol: answers that are JSON, or the error that closes the connection."""
    from agent.compat.centrifuge import ProtocolError, Session
    from tests.unit.test_fuzz import no_constant

    def read(data: bytes) -> None:
        session = Session(lambda channel: channel == "server#1")
        with contextlib.suppress(ProtocolError):
            answers, _ = session.take(data.decode("utf-8", "replace"))
            for answer in answers:
                json.loads(answer, parse_constant=no_constant)

    return read


@target(
    b"\x00\x01\x02\x03\x04",
    b"\x01\x01\x02\x03\x04\x00\x01\x00\x00\x00\x13\x00\x00\x00\x0f\x00\x03\x00\x10\x01a\x01d\x017\x01m\x1ea",
)
def player_queries() -> Target:
    """SQP and both protocols of Teeworlds: numbers of players, or their own errors."""
    from agent.compat.sqp import SqpError, read_challenge, read_info
    from agent.runtime.teeworlds import TeeworldsError, read_info_6, read_info_7

    def read(data: bytes) -> None:
        with contextlib.suppress(SqpError):
            read_challenge(data)
        with contextlib.suppress(SqpError):
            assert min(read_info(data, 0x01020304)) >= 0
        for form in (read_info_6, read_info_7):
            with contextlib.suppress(TeeworldsError):
                assert min(form(data)) >= 0

    return read


@target(
    b'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nValueError: no',
    b"panic: runtime error: index out of range\n\ngoroutine 1 [running]:\nmain.main()",
    b"# A fatal error has been detected by the Java Runtime Environment:\n#\n#  SIGSEGV (0xb) at pc=0x1",
    b"./start.sh: line 3: 12 Killed   ./server",
)
def last_output() -> Target:
    """What a crash said of itself: a quote from the output, or nothing."""
    from agent.game.crash_reports import find_crash

    def read(data: bytes) -> None:
        find_crash(data)

    return read


@target(b"plain", b"\x1b[31mred\x1b[0m", b"\xe2\x80\xaeevil", b"\x9b2J", b"a\r\nb")
def the_operators_terminal() -> Target:
    """Nothing is left that moves a cursor, ends a line or turns text round."""
    from agent.terminal_text import safe

    def read(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", safe(text))
        coloured = safe(text, keep_colours=True)
        rest = re.sub(r"\x1b\[[0-9;:]*m", "", coloured)
        assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", rest)
        coloured.encode()

    return read


@target(b"\x05", b"\x00line with \x05", b"\x03\x07....")
def redaction() -> Target:
    """A secret in any of its forms, cut anywhere by reads: it does not come out."""
    from agent.logs import needles
    from agent.logs.redact import Redactor

    secret = b"sq7-Zk/9+tEnU0="
    redactor = Redactor([secret])
    forms = sorted(needles.forms(secret))

    def read(data: bytes) -> None:
        if len(data) < 3:
            return
        form, step, rest = forms[data[0] % len(forms)], data[1] % 23 + 1, data[2:]
        place = data[1] % (len(rest) + 1)
        whole = rest[:place] + form + rest[place:]
        stream = redactor.stream()
        out = b"".join(stream.feed(whole[at : at + step]) for at in range(0, len(whole), step)) + stream.flush()
        assert form not in out

    return read


# The disk and the operator -------------------------------------------------------------------------------------------


@target()
def spool_frames() -> Target:
    """Frames of a segment: what stands before the damage is given as it was, and no more log than there is."""
    from agent.logs import frames
    from tests.unit.test_fuzz import PIECES

    whole = b"".join(PIECES)

    def read(data: bytes) -> None:
        changed = bytearray(whole)
        for at in range(0, len(data) - 2, 3):
            changed[int.from_bytes(data[at : at + 2]) % len(whole)] = data[at + 2]
        first = next((at for at, (a, b) in enumerate(zip(whole, changed, strict=True)) if a != b), len(whole))
        found = list(frames.parse([bytes(changed)]))
        right = list(frames.parse([whole[:first]]))
        assert found[: len(right)] == right
        assert sum(len(body) for kind, _, _, body in found if kind == frames.DATA) <= len(whole)
        list(frames.parse([data]))

    return read


@target(b'{"ts":"2026-11-28T00:00:00Z","stream":"stdout","line":"hello"}\n{"base64":"aGVsbG8="}')
def stored_segment() -> Target:
    """A segment in the store: lines or gaps."""
    import zstandard

    from agent.logs.reader import LogReader, Run
    from tests.unit.test_fuzz import Store

    def read(data: bytes) -> None:
        for packed in (data, zstandard.compress(data)):
            run = Run("r", "20261128T000000Z", "x", 1)
            for item in LogReader(Store(packed), run).more():  # type: ignore[arg-type]
                assert isinstance(item.text, str)

    return read


@target(b"\x00\x00\x00\x02\x00\x00\x00\x00{}", b'\x00\x00\x00\x14\x00\x00\x00\x00{"_":"Ping","at":1.0}')
def link() -> Target:
    """What a broken agent sends to the init: messages, or the error that gives it up."""
    from agent.link.wire import BrokenLinkError, Unpacker

    def read(data: bytes) -> None:
        with contextlib.suppress(BrokenLinkError):
            for _, payload in Unpacker().feed(data):
                assert isinstance(payload, bytes)

    return read


@target(
    b"AGENT_STOP=stdin:save@20%,signal:SIGTERM:group",
    b"AGENT_EMPTY_TIMEOUT=1m30s",
    b"AGENT_TEMPLATE=/a:/b",
    b"AGENT_LOG_URL=s3://bucket/prefix?x=1",
    b"AGENT_READY_WHEN=output:^up$",
    b"AGENT_AGONES_COUNTERS=rooms:1/5",
)
def settings() -> Target:
    """Each setting is read, or refused with a sentence."""
    from agent.config.table import TABLE
    from agent.errors import AgentError

    rows = list(TABLE.values())

    def read(data: bytes) -> None:
        name, _, text = text_of(data).partition("=")
        for row in [TABLE[name]] if name in TABLE else rows:
            said = "taken"
            try:
                row.parse(text)
            except (ValueError, AgentError) as refused:
                said = str(refused)
            assert said, row.name

    return read


@target(b"a ${NAME} b $$ ${OTHER}\n${", b"$${NAME}")
def template() -> Target:
    """A template is filled in, or its missing names are named."""
    from agent.config.templates import TemplateError, expand

    variables = {"NAME": "value"}

    def read(data: bytes) -> None:
        with contextlib.suppress(TemplateError):
            expand(text_of(data), variables, "source")

    return read


@target(
    b'#!/bin/bash\nset -e\ncd "$(dirname "$0")"\ntrap \'kill -TERM $pid\' TERM\n./server "$@" & pid=$!\nwait $pid',
    b"case $1 in a) exec x;; *) for i in 1 2; do y; done;; esac",
    b"f() { echo ${A:-b} ${B%%x*} `c` $((1+2)); }\nwhile read l <<< x; do f; done\ncat <<E\nE\n",
)
def start_script() -> Target:
    """The doctor's reader of shell scripts: a reading, however little of it is understood."""
    from agent.doctor import shell

    def read(data: bytes) -> None:
        shell.read(data.decode("utf-8", "replace"))

    return read


@target(
    b'ARG B=x\nFROM debian AS a\nENV A=1 B="2"\nCOPY --from=a /x /y\nENTRYPOINT ["e"]\nCMD /s \\\n \nEXPOSE 1/udp',
    b'# escape=`\nFROM x\nSHELL ["/bin/bash","-c"]\nRUN <<E\nls\nE\nUSER 1:1\nONBUILD CMD x',
)
def dockerfile() -> Target:
    """The doctor's reader of Dockerfiles: a reading, or a ValueError that says what is wrong."""
    from agent.doctor import dockerfile as reader

    def read(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            reader.read(data.decode("utf-8", "replace"))

    return read


@target(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\x3e\x00" + bytes(44))
def elf() -> Target:
    """The doctor's reader of programs: an ELF file, or none."""
    from agent.doctor.elf import read_elf

    def read(data: bytes) -> None:
        read_elf(io.BytesIO(data))

    return read


@target(b'{"code":0,"reason":"platform_stop","cause":{"kind":"clean"}}', b'{"schema":1,"happened":[{"at":1}]}')
def exit_json() -> Target:
    """A stranger's `exit.json` in the store: a row, or None."""
    from agent.fleet import exits

    directory = "app=a/version=1/date=2026-11-28/region=r/deployment=d/run=20261128T000000Z-x"

    def read(data: bytes) -> None:
        document = exits.parse(data)
        if document is not None:
            json.loads(exits.line(exits.row(directory, document)))

    return read


# Running -------------------------------------------------------------------------------------------------------------


def _fuzz(name: str, inputs: int, corpus: Path) -> None:
    """In a process of its own: libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["agent"]):
        read = TARGETS[name]()
    asyncio.set_event_loop(asyncio.new_event_loop())
    arguments = [f"-runs={inputs}", "-timeout=5", f"-max_len={LONGEST_INPUT}", "-seed=1", "-verbosity=0"]
    atheris.Setup([name, *arguments, f"-artifact_prefix={KEPT}/{name}-", str(corpus)], read)
    atheris.Fuzz()


def run(name: str, inputs: int) -> tuple[float, str]:
    """Fuzzes one target.

    Returns:
        How many seconds it took, and what was found: "" for nothing.
    """
    corpus = KEPT / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(CORPUS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.chaos.fuzz", "--child", name, "--inputs", str(inputs)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    seconds = time.monotonic() - begun
    if done.returncode == 0:
        return seconds, ""
    (KEPT / f"{name}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    uncaught = re.search(r"=== Uncaught Python exception: ===\n(.*)", done.stderr)
    return seconds, f"{uncaught[1] if uncaught else f'exit {done.returncode}'} (see {KEPT}/{name}.log)"


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--only", nargs="+", choices=sorted(TARGETS), default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--again", type=Path, help="a file with one input, for the one target of --only")
    parser.add_argument("--child", choices=sorted(TARGETS), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        _fuzz(given.child, given.inputs, KEPT / "corpus" / given.child)
        return 0
    if given.again:
        TARGETS[given.only[0]]()(given.again.read_bytes())
        return 0
    print("| parser | inputs | seconds | a second | found |\n|---|---|---|---|---|")
    found_any = False
    for name in given.only:
        seconds, found = run(name, given.inputs)
        found_any |= bool(found)
        shown = found or "nothing"
        rate = f"{given.inputs / seconds:,.0f}" if not found else ""
        print(f"| {name.replace('_', ' ')} | {given.inputs:,} | {seconds:.0f} | {rate} | {shown} |", flush=True)
    return int(found_any)


if __name__ == "__main__":
    sys.exit(main())
