"""Counting players: by connections, by what a game answers to a query, and what is said where that fails."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import math
import pkgutil
import struct
import typing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent.config import parsers
from agent.errors import AgentError
from agent.game.query_protocols import COUNTED, REFUSED, check
from agent.lifecycle.game_report import GameReport
from agent.lifecycle.states import Phase
from agent.runtime.player_count import ConnectionCount, counter, poll, why
from agent.runtime.player_query import Tally, query, read
from agent.runtime.teeworlds import TeeworldsError, read_info_6, read_info_7


def long(number: int) -> bytes:
    """32 bits, little-endian."""
    return struct.pack("<I", number)


def short(number: int) -> bytes:
    """16 bits, little-endian."""
    return struct.pack("<H", number)


def pascal(text: str, extra: int = 0) -> bytes:
    """A string after its length."""
    return bytes([len(text) + extra]) + text.encode()


def ase(*texts: str) -> bytes:
    """Strings of the All-Seeing Eye: the length counts itself."""
    return b"".join(pascal(text, 1) for text in texts)


def zero(*texts: str) -> bytes:
    """Strings that end with a zero byte."""
    return b"".join(text.encode() + b"\0" for text in texts)


def frostbite(*words: str) -> bytes:
    """A packet of Battlefield's protocol."""
    body = b"".join(long(len(word)) + zero(word) for word in words)
    return long(1) + long(12 + len(body)) + long(len(words)) + body


def unreal(*numbers: int) -> bytes:
    """The details of an Unreal 2 server with these numbers at their end."""
    head = b"\x80\0\0\0\0" + long(0) + b"\x01\0" + long(7777) + long(7778)
    return head + pascal("UT\0") + pascal("DM-Map\0") + pascal("xDM\0") + b"".join(map(long, numbers)) + pascal("5\0")


def source(players: int, capacity: int, bots: int) -> bytes:
    """The info of a Source server."""
    head = b"\xff\xff\xff\xffI\x11" + zero("cs", "de_dust", "csgo", "Counter-Strike") + short(730)
    return head + bytes([players, capacity, bots]) + b"dl\0\x01" + zero("1.38")


def quake3(**info: object) -> bytes:
    """The info of a Quake 3 server."""
    return b"\xff\xff\xff\xffinfoResponse\n" + "".join(f"\\{key}\\{value}" for key, value in info.items()).encode()


def gamespy3(info: bytes, players: bytes = b"") -> bytes:
    """A GameSpy 3 answer in one packet."""
    return b"\0\x04\x05\x06\x07" + zero("splitnum") + b"\x80\0" + info + b"\0\x01" + players + b"\0\0"


MINECRAFT = json.dumps({"version": {"name": "1.21"}, "players": {"online": 3, "max": 20}}).encode()  # no description

# Protocol, what the server sends, and what it says. Answers are written by the protocols' descriptions, with bots, odd
# keys and missing parts as servers have them; those of real servers are asked in tests/e2e/test_player_queries.py.
UDP_ANSWERS: list[tuple[str, bytes, Tally]] = [
    ("a2s", source(5, 16, 3), Tally(2, 16, 3)),
    ("source", source(3, 16, 3), Tally(0, 16, 3)),
    ("a2s", source(2, 16, 5), Tally(2, 16, 5)),  # it does not count its bots among its players
    (
        "won",
        b"\xff\xff\xff\xffm"
        + zero("1.2.3.4:27015", "hl", "crossfire", "valve", "HL")
        + bytes([4, 12, 47])
        + b"dl\0\0\0"
        + b"\x01",
        Tally(3, 12, 1),
    ),
    ("ase", b"EYE1" + ase("mta", "22003", "My", "race", "map", "1.5", "0", "7", "32", ""), Tally(7, 32)),
    (
        "gamespy1",
        b"\\hostname\\UT\\numplayers\\3\\maxplayers\\16\\player_0\\ada\\frags_0\\1\\final\\\\queryid\\1.1",
        Tally(3, 16),
    ),
    ("avp2", b"\\hostname\\A\\numplayers\\0\\maxplayers\\8\\final\\\\queryid\\1.1", Tally(0, 8)),
    ("ssc", b"\\hostname\\S\\numplayers\\2\\maxplayers\\0\\final\\\\queryid\\1.1", Tally(2, None)),
    (
        "gamespy2",
        b"\0\x04\x05\x06\x07" + zero("hostname", "x", "numplayers", "4", "maxplayers", "64", "") + b"\0\0\0\0\0\0",
        Tally(4, 64),
    ),
    (
        "halo1",
        b"\0\x04\x05\x06\x07" + zero("numplayers", "1", "maxplayers", "16", "") + b"\0\0\0\0\0\0",
        Tally(1, 16),
    ),
    ("gamespy3", gamespy3(zero("hostname", "x", "numplayers", "6", "maxplayers", "20")), Tally(6, 20)),
    ("gamespy4", gamespy3(zero("hostname", "x", "numplayers", "0", "maxplayers", "20")), Tally(0, 20)),
    (
        "battlefield2",
        gamespy3(
            zero("numplayers", "3", "maxplayers", "64"),
            zero("player_")
            + b"\0"
            + zero("ada", "bot1", "bot2", "")
            + zero("AIBot_")
            + b"\0"
            + zero("0", "1", "1", ""),
        ),
        Tally(1, 64, 2),
    ),
    ("unreal2", unreal(2, 16, 0, 0), Tally(2, 16)),
    ("killingfloor", unreal(5, 6, 1, 10, 0, 0), Tally(5, 6)),
    (
        "quake1",
        b'\xff\xff\xff\xffn\\maxclients\\8\\map\\dm6\n1 5 10 25 "ada" "base" 4 4\n2 0 1 30 "bob" "" 0 0\n',
        Tally(2, 8),
    ),
    ("quake2", b'\xff\xff\xff\xffprint\n\\maxclients\\8\\mapname\\q2dm1\n5 25 "ada"\n', Tally(1, 8)),
    ("quake2", b"\xff\xff\xff\xffprint\n\\maxclients\\8\\mapname\\q2dm1\n", Tally(0, 8)),
    ("quake3", quake3(clients=4, g_humanplayers=1, sv_maxclients=12), Tally(1, 12, 3)),  # ioquake3
    ("quake3", quake3(clients=2, sv_maxclients=12), Tally(2, 12)),
    ("quake3", quake3(modname="data", clients=4, bots=4, sv_maxclients=8), Tally(0, 8, 4)),  # Xonotic
    ("quake3", quake3(clients=2, bots=4, sv_maxclients=24), Tally(2, 24, 4)),  # Unvanquished
    ("cod4", quake3(clients=9, g_humanplayers=9, sv_maxclients=32), Tally(9, 32, 0)),
    ("cod1", quake3(clients=9, sv_maxclients=32), Tally(9, 32)),
    ("cod5", quake3(clients=9, sv_maxclients=32), Tally(9, 32)),
    ("jediknight", quake3(clients=9, sv_maxclients=32), Tally(9, 32)),
    ("warfork", b'\xff\xff\xff\xffstatusResponse\n\\sv_maxclients\\16\\gametype\\ca\n1 20 "ada" 2\n', Tally(1, 16)),
    (
        "raknet",
        b"\x1c"
        + bytes(16)
        + b"\x00\xff\xff\x00\xfe\xfe\xfe\xfe\xfd\xfd\xfd\xfd\x12\x34\x56\x78\0\x5d"
        + b"MCPE;Bedrock;390;1.14.60;2;10;13253860892328930865;level;Survival;1;19132;19133;",
        Tally(2, 10),
    ),
    (
        "samp",
        b"SAMP" + bytes(7) + b"\0" + short(11) + short(50) + long(1) + b"x" + long(1) + b"y" + long(1) + b"z",
        Tally(11, 50),
    ),
    (
        "vcmp",
        b"MP04" + bytes(7) + b"04rel006\0\0\0\0\0" + short(11) + short(50) + long(1) + b"x" + long(1) + b"y" + long(1),
        Tally(11, 50),
    ),
    (
        "teeworlds",  # 0.6
        b"\xff" * 10
        + b"inf3"
        + zero("77", "0.6.4", "my", "ctf1", "CTF", "0", "1", "16", "2", "16", "ada", "", "0", "1", "1"),
        Tally(2, 16),
    ),
]
TCP_ANSWERS: list[tuple[str, bytes, Tally]] = [
    (
        "minecraft",
        bytes([len(MINECRAFT) + 2, 0, len(MINECRAFT)]) + MINECRAFT,
        Tally(3, 20),
    ),
    (
        "battlefield",
        frostbite("OK", "My Server", "12", "64", "CQ", "MP_001", "0", "1", "0", "0", "", "true", "true", "false"),
        Tally(12, 64),
    ),
    (
        "fivem",
        b'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{"clients":3,"sv_maxclients":"48","hostname":"x"}',
        Tally(3, 48),
    ),
]


class Answers(asyncio.DatagramProtocol):
    """Sends one answer to whatever it is sent."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def connection_made(self, transport: Any) -> None:
        """Keep it."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer; GameSpy 4 asks for a challenge first."""
        self.transport.sendto(b"\x09\x04\x05\x06\x079513307\0" if data[:3] == b"\xfe\xfd\x09" else self.answer, addr)


@asynccontextmanager
async def udp_server(answer: bytes) -> AsyncIterator[int]:
    """A server that knows one answer; gives its port."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Answers(answer), local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@asynccontextmanager
async def tcp_server(answer: bytes) -> AsyncIterator[int]:
    """The same over TCP; it hangs up when it has answered."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("protocol", "answer", "tally"), UDP_ANSWERS, ids=[one[0] for one in UDP_ANSWERS])
async def test_what_a_server_answers_is_counted(protocol: str, answer: bytes, tally: Tally) -> None:
    """Each protocol has its own words for the same two numbers, and some tell bots apart."""
    async with udp_server(answer) as port:
        assert await query(protocol, "127.0.0.1", port)() == tally


@pytest.mark.parametrize(("protocol", "answer", "tally"), TCP_ANSWERS, ids=[one[0] for one in TCP_ANSWERS])
async def test_what_a_server_answers_over_tcp_is_counted(protocol: str, answer: bytes, tally: Tally) -> None:
    """A Minecraft server without a description, FiveM's own words."""
    async with tcp_server(answer) as port:
        assert await query(protocol, "127.0.0.1", port)() == tally


@pytest.mark.parametrize("protocol", sorted(set(COUNTED) - {"sqp", "fivem", "minecraft", "battlefield"}))
async def test_nonsense_is_an_error_and_never_nobody(protocol: str) -> None:
    """A server that answers what cannot be read may have players: the count fails, in a way that is caught."""
    for nonsense in (b"", b"\xff" * 40, b"A" * 100):
        async with udp_server(nonsense) as port:
            with pytest.raises(Exception):  # noqa: B017, PT011 - a library raises what it likes
                async with asyncio.timeout(0.05):
                    await query(protocol, "127.0.0.1", port)()


def test_every_protocol_of_the_installed_library_counts_or_is_refused() -> None:
    """A new one, or one that changed its name, has to be read before anybody's server depends on it."""
    package = importlib.import_module("opengsq.protocols")
    known = {
        name.lower()
        for module in pkgutil.iter_modules(package.__path__)
        for name, found in vars(importlib.import_module(f"opengsq.protocols.{module.name}")).items()
        if isinstance(found, type)
        and found.__module__ == f"opengsq.protocols.{module.name}"
        and hasattr(found, "full_name")
    }
    judged = set(COUNTED) | set(REFUSED)
    assert known - judged == set()
    assert judged - known == {"a2s", "sqp", "teeworlds", "minetest", "luanti"}
    assert not set(COUNTED) & set(REFUSED)


@pytest.mark.parametrize("protocol", sorted(set(COUNTED) - {"sqp"}))
def test_every_protocol_that_counts_can_be_asked(protocol: str) -> None:
    """The library's class takes what it is given, and its method and its answer have what is read."""
    assert callable(query(protocol, "127.0.0.1", 7777))
    class_name, method, reader = COUNTED[protocol]
    if class_name:
        package = importlib.import_module(f"opengsq.protocols{'.warfork' if class_name == 'Warfork' else ''}")
        asked = getattr(getattr(package, class_name), method)
        assert asyncio.iscoroutinefunction(asked)
        if reader == "fields":
            answer = typing.get_type_hints(asked)["return"]
            names = {field.name for field in dataclasses.fields(answer)}
            assert {"num_players", "players"} & names
            assert "max_players" in names


@pytest.mark.parametrize("protocol", [*sorted(REFUSED), "nonsense"])
def test_a_protocol_that_cannot_count_is_refused_with_what_can(protocol: str) -> None:
    """At the start, by name; `query:palworld` took the whole agent down."""
    with pytest.raises(AgentError, match=f"cannot count players by {protocol}, which .* tcp:PORT, .* a2s, "):
        counter(f"query:{protocol}://127.0.0.1:7777", [])
    with pytest.raises(ValueError, match="cannot count players by"):
        parsers.players_from(f"query:{protocol}://127.0.0.1:7777")


def test_names_are_taken_in_any_case() -> None:
    """As the library writes them, and as people do."""
    assert check("Minecraft") == "minecraft"
    assert parsers.players_from("query:A2S://127.0.0.1:27015") == "query:A2S://127.0.0.1:27015"


@pytest.mark.parametrize(
    ("reader", "answer"),
    [
        ("quake3", {"sv_maxclients": "8"}),
        ("quake3", {"clients": "-3", "sv_maxclients": "8"}),
        ("minecraft", {"version": {}}),
        ("minecraft", {"players": {"online": math.inf, "max": 20}}),
        ("minecraft", None),
    ],
)
def test_an_answer_without_the_number_is_an_error(reader: str, answer: object) -> None:
    """And not zero."""
    with pytest.raises(AgentError, match="cannot read the number of players"):
        read(reader, answer)


def test_teeworlds_answers_that_cannot_be_read() -> None:
    """Cut short, or something else."""
    assert read_info_7(b"\0" + zero("0.7.5", "my", "host", "ctf1", "CTF") + bytes([0, 1, 2, 8, 3, 0x50 & 0x3F])) == (
        3,
        16,
    )
    less_than_none = bytes([0, 1, 2, 8, 0x43, 0x50 & 0x3F])
    for data in (b"", b"\0abc", b"\x80", b"\0" + zero("0.7.5", "my", "host", "ctf1", "CTF") + less_than_none):
        with pytest.raises(TeeworldsError):
            read_info_7(data)
        with pytest.raises(TeeworldsError):
            read_info_6(data)


# Polling -------------------------------------------------------------------------------------------------------------


class Poll:
    """A poll with answers, a clock and a phase that the test sets; each step of `run` is one count."""

    def __init__(self, *answers: Tally | BaseException) -> None:
        self.answers = list(answers)
        self.report = GameReport()
        self.told: list[bool] = []
        self.now = 1000.0
        self.phase = Phase.READY
        self.step = 10.0

    async def count(self) -> Tally:
        """The next answer."""
        if not self.answers:
            await asyncio.Event().wait()
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def unknown(self, unknown: bool) -> None:
        """A count is over."""
        self.told.append(unknown)
        self.now += self.step

    async def run(self, count: Callable[[], Awaitable[Tally]] | None = None) -> list[bool]:
        """Counts until there are no answers left."""
        wanted = len(self.told) + len(self.answers)
        task = asyncio.create_task(
            poll(count or self.count, self.report, lambda: self.now, 0.001, self.unknown, phase=lambda: self.phase)
        )
        async with asyncio.timeout(10):
            while len(self.told) < wanted and not task.done():  # noqa: ASYNC110 - it tells nobody when it has counted
                await asyncio.sleep(0.001)
        assert not task.done(), "the poll has ended"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return self.told


async def test_polling_takes_numbers_and_survives_failures(capfd: pytest.CaptureFixture[str]) -> None:
    """The last number stays; each reason is said once, and its end."""
    one = Poll(Tally(3, 16), OSError("no answer"), OSError("no answer"), TimeoutError(), Tally(2, 16), Tally(2, 16))
    assert await one.run() == [False, True, True, True, False, False]
    assert (one.report.count, one.report.capacity) == (2, 16)
    said = capfd.readouterr().err
    assert said.count("cannot count players") == 2
    assert "cannot count players: OSError: no answer; the server counts as occupied" in said
    assert "cannot count players: the game does not answer the query" in said
    assert said.count("players can be counted again after 30 s: 2 players") == 1


async def test_a_game_that_answers_every_other_query_is_not_news_each_time(capfd: pytest.CaptureFixture[str]) -> None:
    """The same reason is said again after ten minutes at the earliest."""
    one = Poll()
    one.answers = [TimeoutError(), Tally(1)] * 20
    await one.run()
    assert capfd.readouterr().err.count("cannot count players") == 1
    one.now += 700
    one.answers = [TimeoutError()]
    await one.run()
    assert capfd.readouterr().err.count("cannot count players") == 1


async def test_nothing_is_said_while_the_game_starts_or_ends(capfd: pytest.CaptureFixture[str]) -> None:
    """It cannot answer yet; one that never does is told of after two minutes."""
    one = Poll(*[ConnectionRefusedError()] * 5)
    one.phase = Phase.STARTING
    await one.run()
    assert one.told == [True] * 5
    assert "cannot count" not in capfd.readouterr().err
    one.answers = [ConnectionRefusedError()] * 10
    await Poll.run(one)
    assert "cannot count" not in capfd.readouterr().err  # each poll has its own story
    one.answers = [ConnectionRefusedError()] * 14
    await one.run()
    assert capfd.readouterr().err.count("nothing listens on the port that is asked") == 1
    one.phase, one.answers = Phase.STOPPING, [TimeoutError()]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await one.run()
    assert len(one.answers) == 1, "nobody is asked while the game ends"


async def test_bots_are_said_once_and_are_no_players(capfd: pytest.CaptureFixture[str]) -> None:
    """An empty server with bots is empty."""
    one = Poll(Tally(0, 16, 4), Tally(0, 16, 5), Tally(1, 16, 0))
    await one.run()
    assert one.report.count == 1
    said = capfd.readouterr().err
    assert "0 players and 4 bots; bots do not count as players" in said
    assert said.count("bots") == 4


async def test_a_cancellation_inside_a_library_is_one_failed_count() -> None:
    """And does not end the poll."""
    assert await Poll(asyncio.CancelledError(), Tally(1)).run() == [True, False]


@pytest.mark.parametrize(("answer", "unknown"), [(Tally(5, 4), False), (Tally(-1, 4), True)])
async def test_a_number_that_cannot_be_is_never_taken_for_nobody(answer: Tally, unknown: bool) -> None:
    """More players than places are players; nonsense is a count that failed."""
    one = Poll(answer)
    assert await one.run() == [unknown]
    assert one.report.count == (0 if unknown else 5)


@pytest.mark.parametrize(
    "problem",
    [
        TimeoutError(),
        OSError(),
        OSError(13, "Permission denied", "/proc/net/tcp"),
        ValueError(),
        AgentError(""),
        KeyError(),
    ],
)
def test_a_reason_is_never_empty(problem: Exception) -> None:
    """Many exceptions say nothing."""
    assert len(why(problem)) > 10


# Connections ---------------------------------------------------------------------------------------------------------


def test_a_short_connection_is_nobody_who_plays() -> None:
    """A port probe; after a minute it is somebody, and stays so until all have left."""
    now = 0.0
    count = ConnectionCount([7777], now=lambda: now)
    for now, found, settled in [
        (0.0, {"probe"}, False),
        (10.0, set(), False),
        (20.0, {"player"}, False),
        (79.0, {"player", "probe2"}, False),
        (80.0, {"player", "probe2"}, True),
        (90.0, {"probe2"}, True),
        (100.0, set(), True),
        (110.0, {"probe3"}, False),
    ]:
        count.note(found)
        assert count.settled is settled, now


async def test_everybody_left_and_nobody_had_stayed() -> None:
    """The policies are told, so that a health check neither arms the empty timeout nor keeps it away."""
    report, visits = GameReport(), list[int]()
    count = ConnectionCount([1])
    seen = [{"a"}, set[str](), {"b"}]

    async def connected() -> Tally:
        count.note(found := seen.pop(0) if seen else {"b"})
        return Tally(len(found))

    count.__class__ = type("Fake", (ConnectionCount,), {"__call__": lambda _: connected()})
    told: list[bool] = []
    task = asyncio.create_task(
        poll(count, report, lambda: 1.0, 0.001, told.append, short_visit=lambda: visits.append(report.count))
    )
    async with asyncio.timeout(10):
        while len(told) < 5:  # noqa: ASYNC110 - it tells nobody when it has counted
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert visits == [0]


def test_where_players_come_from() -> None:
    """The game's own word needs no counter."""
    assert counter("api", []) is None
    assert counter("tcp", [7777]) is not None
    assert counter("query:a2s://127.0.0.1:27015", []) is not None


def test_connections_cannot_be_counted_without_a_port() -> None:
    """A game on UDP alone would look empty for ever, and be stopped under its players."""
    with pytest.raises(AgentError, match="the mapping has no TCP port"):
        counter("tcp", [])
