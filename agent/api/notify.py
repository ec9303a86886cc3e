"""`sd_notify`: the datagrams that games made for systemd send, taken as the same operations as everything else.

Source of the protocol: man 3 sd_notify. With each datagram come its sender's credentials, which the
kernel fills in (SO_PASSCRED, switched on where the socket is bound).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent import log
from agent.api.access import Peer
from agent.api.contracts import Caller
from agent.api.models import AckInput, Nothing
from agent.api.operations import Operations
from agent.api.problems import OperationError
from agent.lifecycle.states import Source

_LONGEST = 64 * 1024
_MOST_FDS = 253  # SCM_MAX_FD of the kernel
_UCRED = struct.Struct("iII")

OnRequest = Callable[[str, str, str, float], None]


def parse(datagram: bytes) -> dict[str, str]:
    """The assignments of a datagram, a line each; what is none is left out, as systemd does."""
    found = {}
    for line in datagram.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name and name.replace("_", "").isalnum() and name.isupper():
            found[name] = value
    return found


@dataclass(frozen=True, slots=True)
class Effects:
    """What notifications do beside the operations.

    Attributes:
        set_text: takes the text of `STATUS=`.
        name_main: takes the game's main process from `MAINPID=`; a `ValueError` says why it is none.
        alarm: `WATCHDOG=trigger`: the game found out that it hangs; takes the words for it.
    """

    set_text: Callable[[str], None]
    name_main: Callable[[int], None]
    alarm: Callable[[str], None]


class NotifyServer:
    """Reads the socket on the event loop; made by `serve`."""

    def __init__(
        self,
        sock: socket.socket,
        operations: Operations,
        effects: Effects,
        *,
        users: frozenset[int],
        on_request: OnRequest | None,
    ) -> None:
        """Takes a bound datagram socket; it belongs to the server from now on."""
        self._sock = sock
        self._operations = operations
        self._effects = effects
        self._users = users
        self._on_request = on_request
        self._said: set[str] = set()
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self.read)

    async def close(self) -> None:
        """Reads no more."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def read(self) -> None:
        """Takes in what has come; called as well where it matters that it was said before something happened."""
        if self._sock.fileno() < 0:
            return
        for _ in range(64):  # others have their turn as well
            room = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(_MOST_FDS * 4)
            try:
                datagram, ancillary, _, _ = self._sock.recvmsg(_LONGEST, room, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as problem:
                log.warning(f"cannot read the notify socket: {problem}")
                return
            peer, descriptors = _ancillary(ancillary)
            try:
                if peer is not None and peer.uid in self._users:
                    self._take(parse(datagram))
                else:
                    self._say_once("cannot take a notification: its sender is neither the game's user nor the agent's")
            finally:
                # BARRIER=1 waits for this: that the other end is closed says that all before it was taken in.
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)

    def _take(self, given: Mapping[str, str]) -> None:
        caller = Caller("notify", Source.GAME)
        if "MAINPID" in given:
            self._call("mainpid", lambda: self._effects.name_main(_number(given["MAINPID"], 2**31)))
        if "STATUS" in given:
            self._call("status", lambda: self._effects.set_text(given["STATUS"]))
        if given.get("READY") == "1":
            self._call("ready", lambda: self._operations.ready(Nothing(), caller))
        if given.get("WATCHDOG") == "1":
            self._call("health", lambda: self._operations.health(Nothing(), caller))
        if "ERRNO" in given:
            self._call("status", lambda: self._effects.set_text(_error(given["ERRNO"])))
        if given.get("STOPPING") == "1":
            self._call("stop", lambda: self._operations.ending("STOPPING=1", caller))
        if given.get("WATCHDOG") == "trigger":
            self._call("alarm", lambda: self._effects.alarm("the game's own watchdog gave the alarm"))
        if "EXTEND_TIMEOUT_USEC" in given:
            self._call("stop.ack", lambda: self._operations.stop_ack(_more(given["EXTEND_TIMEOUT_USEC"]), caller))

    def _call(self, operation: str, call: Callable[[], object]) -> None:
        began, status = time.perf_counter(), "ok"
        try:
            call()
        except OperationError as problem:
            # Nobody hears an answer over this socket, so that it is said here.
            status = str(problem.kind.code)
            self._say_once(f"{problem} (sd_notify)")
        except ValueError as problem:
            status = "invalid"
            self._say_once(f"cannot take a notification: {problem} (sd_notify)")
        if self._on_request is not None:
            self._on_request("notify", operation, status, time.perf_counter() - began)

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said and len(self._said) < 100:
            self._said.add(sentence)
            log.warning(sentence)


def serve(
    sock: socket.socket,
    operations: Operations,
    effects: Effects,
    *,
    users: frozenset[int],
    on_request: OnRequest | None = None,
) -> NotifyServer:
    """Serves the notify socket.

    Args:
        sock: a bound Unix datagram socket; it belongs to the server from now on.
        operations: what the notifications call.
        effects: what else they do.
        users: user ids that may send: the game's, the agent's, root.
        on_request: told of each notification.
    """
    return NotifyServer(sock, operations, effects, users=users, on_request=on_request)


def _ancillary(messages: list[tuple[int, int, bytes]]) -> tuple[Peer | None, list[int]]:
    peer: Peer | None = None
    descriptors = array.array("i")
    for level, kind, data in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            peer = Peer(*_UCRED.unpack(data[: _UCRED.size]))
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return peer, list(descriptors)


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{text[:50]!r} is no number")
    return min(int(text), most)


def _error(text: str) -> str:
    number = _number(text, 9999)
    return f"error {number}: {os.strerror(number)}"


def _more(text: str) -> AckInput:
    return AckInput(more_seconds=_number(text, 3_600_000_000) / 1e6)
