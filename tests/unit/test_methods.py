"""Stop methods: how the list is read, and when each has its turn."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.game.rcon import RconError, execute
from agent.lifecycle.stop_methods import Method, parse, turns, with_last_resort


def test_a_list_is_read_in_order() -> None:
    """Kinds, arguments and shares; a comma of a line is written with a backslash."""
    assert parse(r"notify@40%, stdin:say bye\, all@2s ,signal:int,command:/game/hook.sh --now,rcon:stop") == (
        Method("notify", fraction=0.4),
        Method("stdin", "say bye, all", seconds=2.0),
        Method("signal", "SIGINT"),
        Method("command", "/game/hook.sh --now"),
        Method("rcon", "stop"),
    )


def test_the_wrong_part_is_named() -> None:
    """Among several methods a person has to see which one is meant."""
    with pytest.raises(ValueError, match=r"'shout:x@40%' is none of them"):
        parse("notify,shout:x@40%")
    with pytest.raises(ValueError, match="these are 110%"):
        parse("notify@60%,stdin:stop@50%")


def test_an_at_sign_of_a_line_is_no_share() -> None:
    """Only a percentage or a duration at the end is one."""
    assert parse("stdin:mail me@home") == (Method("stdin", "mail me@home"),)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ",",
            "notify:x",
            "stdin",
            "stdin:",
            "signal:",
            "signal:SIGFOO",
            "signal:KILL",
            "signal:9",
            "shout:x",
            "agones:now",
            "playfab:",
            "@40%",
        ),
        *("notify@0%", "stdin:stop@101%", "notify@60%,stdin:stop@50%", "command:sh -c 'x", "rcon:"),
    ],
)
def test_what_is_no_method_is_refused(text: str) -> None:
    """With a sentence that says what it takes."""
    with pytest.raises(ValueError, match=r"^takes "):
        parse(text)


@given(st.text())
def test_whatever_is_written_is_taken_or_refused(text: str) -> None:
    """Never anything but a ValueError that says what it takes."""
    try:
        methods = parse(text)
    except ValueError as wrong:
        said = str(wrong)
    else:
        said = "takes " if methods else ""
    assert said.startswith("takes ")


def test_sigterm_is_the_last_resort() -> None:
    """It follows what the user lists, unless the user lists it."""
    assert with_last_resort(parse("stdin:stop"))[-1] == Method("signal", "SIGTERM")
    assert with_last_resort(parse("signal:TERM,stdin:stop"))[-1] == Method("stdin", "stop")


_METHODS = st.lists(
    st.one_of(
        st.just(Method("notify")),
        st.floats(0.01, 1).map(lambda fraction: Method("notify", fraction=fraction)),
        st.floats(0, 100).map(lambda seconds: Method("notify", seconds=seconds)),
    ),
    min_size=1,
    max_size=6,
)


@given(_METHODS, st.floats(0, 3600))
def test_turns_are_in_order_and_fill_the_time(methods: list[Method], seconds: float) -> None:
    """No turn ends before the one ahead of it, and the last one ends when the time is over: never late, never early."""
    ends = turns(methods, seconds)
    assert len(ends) == len(methods)
    assert all(earlier <= later + 1e-9 for earlier, later in itertools.pairwise(ends))
    assert ends[-1] == seconds


def test_percentages_are_of_the_whole() -> None:
    """Also when only a part of it is left, as long as they fit in that."""
    methods = [Method("stdin", "x", fraction=0.5), Method("signal", "SIGTERM")]
    assert turns(methods, 6.0, 10.0) == pytest.approx([5.0, 6.0])
    assert turns(methods, 4.0, 10.0) == pytest.approx([3.9, 4.0])


def test_shares_are_kept_where_there_is_room() -> None:
    """40 % and two seconds of ten leave four for the rest, in halves."""
    methods = [
        Method("notify", fraction=0.4),
        Method("stdin", "x", seconds=2),
        Method("signal", "SIGINT"),
        Method("notify"),
    ]
    assert turns(methods, 10.0) == pytest.approx([4.0, 6.0, 8.0, 10.0])


class RconServer:
    """Speaks the server's side of Source RCON, as Minecraft does."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.commands: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                (size,) = struct.unpack("<i", await reader.readexactly(4))
                data = await reader.readexactly(size)
                number, kind = struct.unpack("<ii", data[:8])
                body = data[8:-2].decode()
                if kind == 3:
                    good = body == self.password
                    writer.write(struct.pack("<iii", 10, number if good else -1, 2) + b"\0\0")
                else:
                    self.commands.append(body)
                    writer.write(struct.pack("<iii", 12, number, 0) + b"ok\0\0")
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_a_command_gets_through_rcon() -> None:
    """Authentication first, then the command, then its answer."""
    server = RconServer("secret")
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        assert await execute("127.0.0.1", port, "secret", "stop") == "ok"
        assert server.commands == ["stop"]
        with pytest.raises(RconError, match="password is wrong"):
            await execute("127.0.0.1", port, "guess", "stop")
    assert server.commands == ["stop"]


async def test_a_server_that_hangs_up_at_the_command_has_heard_it() -> None:
    """It may be gone before its answer, or before the agent has finished sending; that is what was asked for."""

    class Abrupt(RconServer):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.readexactly(4 + 10 + len(self.password))
            writer.write(struct.pack("<iii", 10, struct.unpack("<ii", data[4:12])[0], 2) + b"\0\0")
            await reader.readexactly(1)
            writer.transport.abort()

    heard: list[bool] = []
    async with await asyncio.start_server(Abrupt("secret").serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        assert await execute("127.0.0.1", port, "secret", "stop", sent=lambda: heard.append(True)) == ""
    assert heard == [True]


async def test_no_rcon_server_is_said() -> None:
    """A refused connection names the address, and not the password."""
    with pytest.raises(RconError, match=r"cannot connect to 127\.0\.0\.1:1 ") as wrong:
        await execute("127.0.0.1", 1, "secret", "stop")
    assert "secret" not in str(wrong.value)
