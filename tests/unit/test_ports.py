"""Ports and connections as the kernel tells them, with real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.game.ports import connections, listening, owners, what_listens


@contextmanager
def server(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A listening socket of this process."""
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen()
        yield listener


@contextmanager
def visitor(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that is connected to a port."""
    program = f"import socket; s = socket.create_connection(('127.0.0.1', {port})); print(flush=True); s.recv(1)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_counts_unless_the_game_made_it_itself(family: int) -> None:
    """Also where an IPv4 client talks to a socket of both families; the connection keeps its name."""
    with ExitStack() as stack:
        listener = stack.enter_context(server(family))
        port = listener.getsockname()[1]
        assert connections([port], [os.getpid()]) == frozenset()
        other = stack.enter_context(visitor(port))
        accepted = [stack.enter_context(listener.accept()[0])]
        (name,) = connections([port], [os.getpid()])
        assert connections([port], [os.getpid(), other.pid]) == frozenset()
        stack.enter_context(socket.create_connection(("127.0.0.1", port)))  # the game talks to itself
        accepted.append(stack.enter_context(listener.accept()[0]))
        assert connections([port], [os.getpid()]) == {name}
        assert len(connections([port], [])) == 2
        assert connections([1], []) == frozenset()


def test_a_table_that_cannot_be_read_is_not_nobody(tmp_path: Path) -> None:
    """A sandbox may hide it; without IPv6 there is only one."""
    with pytest.raises(OSError, match="tcp"):
        connections([7777], [], net=str(tmp_path))
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   0: 0100007F:1E61 0200000A:D431 01 00000000:00000000 00:00000000 00000000     0        0 4711 1\n"
    (tmp_path / "tcp").write_text(head + row)
    assert connections([7777], [], net=str(tmp_path)) == {"4711 0200000A:54321"}


def test_it_is_said_what_listens_instead() -> None:
    """A port that is one off is the commonest reason why a game is never seen ready."""
    own = [os.getpid()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, server() as tcp:
        udp.bind(("127.0.0.1", 0))
        bound, listens = udp.getsockname()[1], tcp.getsockname()[1]
        assert listening([bound], own)
        assert listening([listens], own)
        assert not listening([1], own)
        assert owners([bound], [1, os.getpid()]) == own
        assert owners([1], own) == []
        said = what_listens([1], own)
        assert said.startswith("it listens on TCP ")
        assert f"{listens}" in said.partition(" and UDP ")[0]
        assert f"{bound}" in said.partition(" and UDP ")[2]
        assert said.endswith(", not on 1")
    with subprocess.Popen(["sleep", "60"]) as other:
        assert what_listens([5154], [other.pid]) == "it listens on no port, not on 5154"
        other.kill()
