"""Logs reach a real S3 server: all of them, once, in order, and through everything that can happen to the line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from agent.logs.ending import SEGMENTS_AT_ONCE
from agent.logs.redact import Redactor
from agent.logs.ship import Shipper, ShipReport
from tests.local_spool import LocalSpool
from tests.stores import BUCKET, SECRET_KEY, Line, S3Server, s3_server

IDENTITY = {"application": "arena", "version": "v1.2", "deployment_id": "23c01225b99d"}
SECRET = "topsecret-token-0123456789"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for all tests of this module; each uses a prefix of its own."""
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
async def line(server: S3Server) -> AsyncIterator[Line]:
    """A line to it that can be disturbed."""
    async with Line(server.port) as made:
        yield made


class Ship:
    """A spool and a shipper on a line, with what they said."""

    def __init__(self, directory: Path, prefix: str, server: S3Server, line: Line) -> None:
        self.prefix = prefix
        self.server = server
        self.line = line
        self.said: list[str] = []
        self.spool = LocalSpool(str(directory / "spool"), 1 << 26, segment_bytes=1 << 17, say=self.said.append)
        self.redactor = Redactor([SECRET])
        self.shipper = self.make()
        self.running: asyncio.Task[None] | None = None

    def make(self, url: str = "", **options: object) -> Shipper:
        """A shipper for this spool."""
        return Shipper(
            url or f"s3://{BUCKET}/{self.prefix}",
            self.spool,
            IDENTITY,
            redactor=self.redactor,
            say=self.said.append,
            **{"interval": 0.2, **options},  # type: ignore[arg-type]  # passed on as they are
        )

    def run(self) -> None:
        """Begins to ship."""
        self.running = asyncio.get_running_loop().create_task(self.shipper.run())

    async def finish(self, seconds: float = 20.0, **more: object) -> ShipReport:
        """Ends it, and waits for the task."""
        deadline = asyncio.get_running_loop().time() + seconds
        result = await self.shipper.finish(deadline, {"cause": "clean"}, **more)  # type: ignore[arg-type]  # as above
        if self.running is not None:
            await self.running
        return result

    def stored(self) -> dict[str, bytes]:
        """Objects below this ship's prefix, by key below that."""
        return {
            key.removeprefix(f"{self.prefix}/"): data
            for key, data in self.server.objects().items()
            if key.startswith(f"{self.prefix}/")
        }

    def lines(self) -> list[str]:
        """All shipped lines, put together again in the order of their keys."""
        return reassembled(self.stored())


def reassembled(stored: dict[str, bytes]) -> list[str]:
    """The lines in all segments, in the order of their keys."""
    out = []
    rest = ""
    for key in sorted(stored):
        if key.endswith(".ndjson.zst"):
            for text in zstandard.ZstdDecompressor().decompressobj().decompress(stored[key]).splitlines():
                item = json.loads(text)
                rest += item["line"]
                if not item.get("partial"):
                    out.append(rest)
                    rest = ""
    return out


@pytest.fixture
def ship(
    tmp_path: Path, server: S3Server, line: Line, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Ship]:
    """A ship with a prefix of its own."""
    for name, value in server.environ(line.port).items():
        monkeypatch.setenv(name, value)
    made = Ship(tmp_path, request.node.name.partition("[")[0] + str(abs(hash(request.node.name))), server, line)
    yield made
    made.spool.close(time.monotonic() + 10)


async def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until something is so, or fails."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        await asyncio.sleep(0.01)


def write(spool: LocalSpool, first: int, count: int, width: int = 40) -> list[str]:
    """Numbered lines, as a game writes them; returns them."""
    lines = [f"{number:08d} ".ljust(width, "x") for number in range(first, first + count)]
    for at in range(0, count, 100):
        spool.append("stdout", "".join(f"{line}\n" for line in lines[at : at + 100]).encode())
    return lines


async def test_the_log_is_shipped_while_the_game_runs(ship: Ship) -> None:
    """Small segments by age, large ones by size; and what is confirmed is deleted here."""
    ship.run()
    sent = write(ship.spool, 0, 10)
    await eventually(lambda: ship.lines() == sent)
    sent += write(ship.spool, 10, 10_000)
    await eventually(lambda: ship.lines() == sent)
    await eventually(lambda: ship.spool.counters()["bytes_held"] == 0)
    assert ship.spool.by_stream()["stdout"][0] == ship.spool.by_stream()["stdout"][1]
    assert ship.said == []


async def test_keys_sort_by_time_and_carry_what_is_known(ship: Ship) -> None:
    """Application, version, deployment, attempt; the segments in the order in which they were written."""
    ship.run()
    sent = write(ship.spool, 0, 20_000)
    result = await ship.finish(tail=b"the end")
    [directory] = {key.rpartition("/")[0] for key in ship.stored()}
    assert directory == result.directory
    assert directory.startswith("arena/v1.2/20")
    assert directory.endswith("Z-23c01225b99d-1")
    assert ship.lines() == sent
    about = json.loads(ship.stored()[f"{directory}/run.json"])
    assert about["deployment_id"] == "23c01225b99d"
    assert about["attempt"] == "1"
    assert ship.stored()[f"{directory}/tail.log"] == b"the end"
    exit_document = json.loads(ship.stored()[f"{directory}/exit.json"])
    assert exit_document["cause"] == "clean"
    assert exit_document["shipping"]["complete"] is True
    assert exit_document["shipping"]["not_shipped"] == []
    assert result.not_shipped == []
    assert result.local is not None
    local = json.loads(Path(result.local).read_text())
    assert local["shipping"].pop("shipped") == ["exit.json", *exit_document["shipping"].pop("shipped")]
    assert local == exit_document


async def test_at_the_end_the_most_useful_comes_first(ship: Ship, tmp_path: Path) -> None:
    """exit.json, tail, segments (the newest first), kept files, core, and exit.json once more."""
    (tmp_path / "replay.bin").write_bytes(b"r" * 100)
    core = tmp_path / "core.1"
    core.write_bytes(b"c" * 100)
    ship.shipper = ship.make(keep=[str(tmp_path / "*.bin")])
    write(ship.spool, 0, 50_000)
    result = await ship.finish(tail=b"end", core=str(core))
    names = [
        line.split()[1].partition(result.directory + "/")[2] for line in ship.line.requests if line.startswith("PUT")
    ]
    assert names[:3] == ["exit.json", "tail.log", "run.json"]
    assert names[-1] == "exit.json"
    segments = [name for name in names if name.endswith(".ndjson.zst")]
    assert names[3 : 3 + len(segments)] == segments
    # Four are under way at once, so neighbours may change places.
    numbers = [int(name[:6]) for name in segments]
    assert all(number <= numbers[at - 4] for at, number in enumerate(numbers) if at >= 4)
    files = [name.partition("?")[0] for name in names[3 + len(segments) : -1] if "core" in name or "replay" in name]
    assert files[0].endswith("replay.bin.zst")
    assert "core.zst" in result.shipped


async def test_a_store_that_is_busy_for_a_while_costs_nothing(ship: Ship) -> None:
    """503 is tried again; said once, and once more when it is over; nothing is lost or doubled."""
    ship.line.mode = "busy"
    ship.run()
    sent = write(ship.spool, 0, 5_000)
    await eventually(lambda: ship.shipper.counters()["failures"] > 0)
    assert ship.shipper.problem
    ship.line.mode = "pass"
    sent += write(ship.spool, 5_000, 100)
    await eventually(lambda: ship.lines() == sent)
    assert [text.partition(":")[0] for text in ship.said] == ["cannot ship logs to s3", "the store takes logs again"]
    assert ship.shipper.problem == ""


async def test_an_upload_that_is_cut_in_the_middle_is_repeated(ship: Ship) -> None:
    """No half object is ever seen."""
    ship.line.mode, ship.line.cuts = "cut", 4
    ship.run()
    sent = write(ship.spool, 0, 8_000)
    await eventually(lambda: ship.lines() == sent)
    assert ship.line.cuts == 0


async def test_a_server_that_is_killed_and_comes_back_gets_everything(ship: Ship, server: S3Server) -> None:
    """With uploads under way at that moment."""
    ship.run()
    sent = write(ship.spool, 0, 2_000)
    await eventually(lambda: ship.lines() == sent)
    server.kill()
    sent += write(ship.spool, 2_000, 5_000)
    await eventually(lambda: ship.shipper.counters()["failures"] > 0)
    server.start()
    await eventually(lambda: ship.lines() == sent)


async def test_wrong_keys_are_said_at_once_and_nothing_is_lost(ship: Ship, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end does not wait for a store that refuses; everything stays in the spool, and is listed."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    ship.run()
    write(ship.spool, 0, 5_000)
    await eventually(lambda: bool(ship.said))
    assert "403 Forbidden" in ship.said[0]
    began = time.monotonic()
    result = await ship.finish(30)
    assert time.monotonic() - began < 20
    assert ship.stored() == {}
    assert {str(part["what"]) for part in result.not_shipped} >= {"exit.json", "tail.log"}
    assert all("403 Forbidden" in str(part["why"]) for part in result.not_shipped)
    assert "cannot ship everything" in ship.said[-1]
    assert ship.spool.counters()["bytes_held"] > 5_000 * 40
    assert result.local is not None
    document = json.loads(Path(result.local).read_text())
    assert document["shipping"]["complete"] is False
    assert len(document["shipping"]["not_shipped"]) == len(result.not_shipped)


async def test_a_store_that_never_answers_holds_nobody_up(ship: Ship) -> None:
    """Neither while the game runs nor at the end."""
    ship.line.mode = "silent"
    ship.run()
    write(ship.spool, 0, 5_000)
    await asyncio.sleep(0)
    began = time.monotonic()
    result = await ship.finish(1.0, tail=b"end")
    assert 0.5 < time.monotonic() - began < 10
    assert {str(part["what"]) for part in result.not_shipped} >= {"exit.json", "tail.log"}
    assert ship.spool.counters()["bytes_dropped"] == 0


async def test_the_platforms_own_case(ship: Ship) -> None:
    """50 MB unshipped, a slow line, two seconds: exit.json and tail arrive, and the rest is listed.

    Whether the store's copy is the last one is a matter of tenths of a second: tests/e2e/test_logs_survive.py.
    """
    for number in range(50):
        ship.spool.append("stdout", os.urandom(500_000).hex().encode() + b"\n" + b"%d\n" % number)
        ship.spool.flush(time.monotonic() + 10)
    ship.line.bytes_per_second = 400_000
    result = await ship.finish(2.0, tail=b"t" * 65536)
    stored = ship.stored()
    assert stored[f"{result.directory}/tail.log"] == b"t" * 65536
    assert json.loads(stored[f"{result.directory}/exit.json"])["shipping"]["complete"] is False
    assert result.local is not None
    document = json.loads(Path(result.local).read_text())
    listed = {part["what"] for part in document["shipping"]["not_shipped"]}
    arrived = {key.rpartition("/")[2] for key in stored if key.endswith(".ndjson.zst")}
    missing = {str(part["what"]) for part in result.not_shipped}
    assert len(missing) > 40
    # On a machine with no time for the last copy on disk, the one before it is there, which lists more.
    assert listed >= missing - {"exit.json"}
    # Of those under way at the deadline, the store may have one that it had no time to confirm.
    assert len(missing & arrived) <= SEGMENTS_AT_ONCE
    assert ship.spool.counters()["bytes_dropped"] == 0


async def test_a_disk_that_hangs_at_the_end_does_not_cost_the_store_its_copy(ship: Ship) -> None:
    """The local exit.json cannot be written; the one in the store is what counts."""
    ship.run()
    sent = write(ship.spool, 0, 100)
    await eventually(lambda: ship.lines() == sent)
    # Opening a FIFO that nobody reads blocks for ever, as a dead network file system does.
    os.mkfifo(f"{ship.spool.run}/exit.json.tmp")
    result = await ship.finish(3, tail=b"end")
    assert result.local is None
    assert json.loads(ship.stored()[f"{result.directory}/exit.json"])["cause"] == "clean"
    assert ship.stored()[f"{result.directory}/tail.log"] == b"end"


@pytest.mark.parametrize("before", [False, True])
async def test_a_deadline_that_is_moved_counts(ship: Ship, before: bool) -> None:
    """A second SIGTERM: what waits is skipped, also where it came before shipping began."""
    ship.line.mode = "silent"
    write(ship.spool, 0, 100)
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    if before:
        ship.shipper.hurry(loop.time() + 0.3)
        await ship.finish(60, tail=b"end")
    else:
        ending = loop.create_task(ship.finish(60, tail=b"end"))
        await asyncio.sleep(0.1)
        ship.shipper.hurry(loop.time() + 0.2)
        await ending
    assert time.monotonic() - began < 20


async def test_what_a_killed_agent_left_is_shipped_by_the_next_one(ship: Ship, tmp_path: Path) -> None:
    """Into the directory of the run that it belongs to, once, with its own exit.json."""
    ship.line.mode = "silent"
    ship.run()
    sent = write(ship.spool, 0, 10_000)
    await ship.finish(0.3, tail=b"end")
    first = ship.shipper.directory
    ship.spool.close(time.monotonic() + 10)
    ship.line.mode = "pass"
    heir = Ship(tmp_path, ship.prefix, ship.server, ship.line)
    heir.run()
    write(heir.spool, 0, 1)
    await eventually(lambda: any(key == f"{first}/exit.json" for key in ship.stored()))
    assert reassembled({key: data for key, data in ship.stored().items() if key.startswith(first)}) == sent
    result = await heir.finish()
    assert result.directory.endswith("-23c01225b99d-2")
    heir.spool.close(time.monotonic() + 10)


async def test_damaged_files_in_the_spool_stop_nothing(ship: Ship, tmp_path: Path) -> None:
    """What an agent that was killed left, damaged in every file; and nothing in it decides about keys."""
    sent = write(ship.spool, 0, 500)
    ship.spool.seal()
    assert ship.spool.flush(time.monotonic() + 10)
    run = Path(ship.spool.run)
    ship.spool.close(time.monotonic() + 10)
    (run / "gaps").write_bytes(b"1 \xff\xb2\n\xff 3\n\xc2\xb2 1\n7 12\n")
    (run / "parts.json").write_text('[[1, "arena/v1/somebody-elses-1"]]')
    (run / "000009.seg").mkdir()
    (run / "exit.json").symlink_to("/etc/hostname")
    (tmp_path / "spool" / "attempts.json").write_text('{"x": 1e999, "y": [' + "[" * 100_000)
    (run.parent / "20200101T000000Z-0").mkdir()
    heir = Ship(tmp_path, ship.prefix, ship.server, ship.line)
    heir.run()
    more = write(heir.spool, 500, 10)
    result = await heir.finish()
    heir.spool.close(time.monotonic() + 10)
    assert result.not_shipped == []
    assert ship.lines() == sent + more
    assert not any("somebody-elses" in key for key in ship.stored())


async def test_a_segment_that_is_shipped_twice_is_there_once(ship: Ship, tmp_path: Path) -> None:
    """The agent was killed between the store's confirmation and the deletion of its own copy."""
    ship.run()
    sent = write(ship.spool, 0, 1_000)
    await eventually(lambda: ship.lines() == sent)
    copy = tmp_path / "copy"
    ship.line.mode = "busy"
    more = write(ship.spool, 1_000, 1_000)
    await eventually(lambda: bool(ship.spool.segments()))
    copy.write_bytes(Path(str(ship.spool.segments()[0].path)).read_bytes())
    original = Path(str(ship.spool.segments()[0].path))
    ship.line.mode = "pass"
    await eventually(lambda: ship.lines() == sent + more)
    await eventually(lambda: not original.exists())
    await ship.finish()
    original.write_bytes(copy.read_bytes())
    ship.spool.close(time.monotonic() + 10)
    heir = Ship(tmp_path, ship.prefix, ship.server, ship.line)
    heir.run()
    await eventually(lambda: not original.exists())
    await heir.finish()
    heir.spool.close(time.monotonic() + 10)
    assert ship.lines() == sent + more


async def test_each_attempt_of_one_run_has_its_own_directory(ship: Ship) -> None:
    """A game that was started again by the agent: one directory for each start, one `exit.json` in each."""
    ship.run()
    first = write(ship.spool, 0, 500)
    ship.spool.put_file("exit.json", b"{}\n")  # as the init does as soon as the game is gone
    one = await ship.finish(tail=b"first end")
    ship.shipper = ship.make()
    ship.run()
    second = write(ship.spool, 500, 500)
    ship.spool.put_file("exit.json", b"{}\n")
    two = await ship.finish(tail=b"second end")
    assert (one.directory[-2:], two.directory[-2:]) == ("-1", "-2")
    stored = ship.stored()
    assert reassembled({key: data for key, data in stored.items() if key.startswith(one.directory)}) == first
    assert reassembled({key: data for key, data in stored.items() if key.startswith(two.directory)}) == second
    assert stored[f"{two.directory}/tail.log"] == b"second end"
    assert json.loads(stored[f"{two.directory}/run.json"])["first_segment"] > 1
    assert Path(ship.spool.run, "exit-1.json").exists()


async def test_no_secret_reaches_the_store(ship: Ship, tmp_path: Path) -> None:
    """Not in kept files, not in exit.json, not in the message of an error; in none of its forms."""
    forms = [SECRET, base64.b64encode(SECRET.encode()).decode(), SECRET.replace("-", "%2D")]
    (tmp_path / "dump.txt").write_text("\n".join(forms) + "x" * 2_000_000 + forms[0])
    core = tmp_path / "core"
    core.write_bytes(b"\x7fELF" + b"\0" * 1000 + SECRET.encode() + b"\0" * 1000)
    ship.shipper = ship.make(keep=[str(tmp_path / "dump.txt"), f"/nothing/{SECRET}/*"])
    stream = ship.redactor.stream()
    ship.spool.append("stdout", stream.feed(f"a {SECRET} b\n".encode()) + stream.flush())
    deadline = asyncio.get_running_loop().time() + 20
    report = {"cause": "clean", "words": [f"said {SECRET}"], SECRET: {"a": forms[1]}}
    result = await ship.shipper.finish(deadline, report, tail=b"end", core=str(core))
    plain = b""
    for key, data in ship.stored().items():
        plain += key.encode()
        plain += zstandard.ZstdDecompressor().decompressobj().decompress(data) if key.endswith(".zst") else data
    plain += Path(str(result.local)).read_bytes() + repr(result).encode() + " ".join(ship.said).encode()
    for form in forms:
        assert form.encode() not in plain
    assert SECRET_KEY.encode() not in plain
    kept = [data for key, data in ship.stored().items() if key.endswith("core.zst")]
    assert len(zstandard.ZstdDecompressor().decompressobj().decompress(kept[0])) == core.stat().st_size


async def test_the_manifest_says_what_became_of_every_pattern(ship: Ship, tmp_path: Path) -> None:
    """Collected, missing, unreadable; a file of 12 MB in several parts."""
    (tmp_path / "replays").mkdir()
    (tmp_path / "replays" / "big.rpl").write_bytes(os.urandom(12_000_000))
    (tmp_path / "replays" / ".hidden.rpl").write_bytes(b"h")
    os.mkfifo(tmp_path / "replays" / "fifo.rpl")
    (tmp_path / "replays" / "gone.rpl").symlink_to("/does/not/exist")
    ship.shipper = ship.make(keep=[str(tmp_path / "**" / "*.rpl"), str(tmp_path / "*.dmp")])
    ship.shipper.keep(str(tmp_path / "replays" / "big.rpl"))
    result = await ship.finish()
    stored = ship.stored()
    manifest = json.loads(stored[f"{result.directory}/manifest.json"])
    assert [Path(one["path"]).name for one in manifest["collected"]] == [".hidden.rpl", "big.rpl"]
    assert manifest["missing"] == [str(tmp_path / "*.dmp")]
    assert {Path(one["path"]).name for one in manifest["unreadable"]} == {"fifo.rpl", "gone.rpl"}
    packed = stored[f"{result.directory}/{manifest['collected'][1]['key']}"]
    assert (
        zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        == (tmp_path / "replays" / "big.rpl").read_bytes()
    )
    assert json.loads(stored[f"{result.directory}/exit.json"])["bundle"] == manifest


async def test_the_stores_own_variables_win(ship: Ship, monkeypatch: pytest.MonkeyPatch) -> None:
    """AGENT_STORE_* beside the game's AWS_*, whose session token belongs to other keys."""
    keys = {
        "AGENT_STORE_ACCESS_KEY_ID": os.environ["AWS_ACCESS_KEY_ID"],
        "AGENT_STORE_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"],
        "AGENT_STORE_ENDPOINT": os.environ["AWS_ENDPOINT_URL"],
    }
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-games-own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-games-own")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-games-own")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    ship.shipper = ship.make(environ=keys)
    sent = write(ship.spool, 0, 100)
    result = await ship.finish()
    assert result.not_shipped == []
    assert ship.lines() == sent


async def test_a_configuration_that_is_none_is_said_and_holds_nobody_up(ship: Ship) -> None:
    """An unknown AGENT_STORE_ variable."""
    ship.shipper = ship.make(environ={"AGENT_STORE_NONSENSE": "1"})
    write(ship.spool, 0, 10)
    result = await ship.finish(5)
    assert "nonsense" in str(result.not_shipped[0]["why"])
    assert any("nonsense" in text for text in ship.said)


async def test_a_log_that_is_to_be_verbatim_is(ship: Ship) -> None:
    """The bytes as they were, in files that any tool reads."""
    ship.shipper = ship.make(form="verbatim")
    ship.spool.append("stdout", b"one\n\xff\x00")
    ship.spool.append("stderr", b"two\n")
    result = await ship.finish()
    [packed] = [data for key, data in ship.stored().items() if key.endswith(".log.zst")]
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == b"one\n\xff\x00two\n"
    assert result.not_shipped == []


async def test_a_cancelled_run_ends_quietly(ship: Ship) -> None:
    """The agent is taken apart while an upload is under way."""
    ship.line.mode = "silent"
    ship.run()
    write(ship.spool, 0, 5_000)
    await eventually(lambda: bool(ship.spool.segments()))
    assert ship.running is not None
    ship.running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ship.running
    ship.running = None
    await ship.finish(0.2)
