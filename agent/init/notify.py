"""`sd_notify`: the datagrams that games made for systemd send. Standard library only.

The protocol is described in man 3 sd_notify. The kernel adds the sender's credentials to each datagram (SO_PASSCRED,
switched on where the socket is bound).

A thread reads the socket, because the reader has to close descriptors that arrive with a datagram, and closing can
block: a socket with SO_LINGER and unsent data does (man 7 socket). The content of a datagram is handled on the loop.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import stat
import struct
import threading
import time

from agent import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from agent.init.loop import Loop

    class Listener(Protocol):
        """What notifications do; implemented by `agent.init.supervisor`."""

        def notified_ready(self) -> None:
            """The game is ready for players."""

        def notified_heartbeat(self) -> None:
            """The game lives."""

        def notified_ending(self) -> None:
            """The game is ending, by itself or because it was asked to."""

        def notified_text(self, text: str) -> None:
            """The game's status text."""

        def notified_main(self, pid: int) -> None:
            """Sets the game's main process; raises ValueError if the process is not one of the game's."""

        def notified_alarm(self) -> None:
            """The game's own watchdog reports a hang."""

        def notified_more_time(self, seconds: float) -> None:
            """The game is ending and asks for more time; raises AgentError if it cannot be granted."""

        def is_game(self, pid: int) -> bool:
            """Whether a process is part of the game."""

        def count_notification(self, operation: str, status: str) -> None:
            """Counts a notification."""


_LONGEST = 64 * 1024
_MOST_FDS = 253  # SCM_MAX_FD of the kernel
_UCRED = struct.Struct("iII")
_ANCILLARY_ROOM = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(_MOST_FDS * 4)
_BARRIER_SECONDS = 1.0
_MOST_WAITING = 64  # datagrams that were received and not handled
_WITHOUT_MEMORY = 0.1  # seconds until it is read again where the kernel had no memory for that


def parse(datagram: bytes) -> dict[str, str]:
    """The assignments of a datagram, one on each line; other lines are skipped, as in systemd."""
    found = {}
    for line in datagram.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name and name.replace("_", "").isalnum() and name.isupper():
            found[name] = value
    return found


class NotifySocket:
    """Reads the notify socket for as long as the init lives."""

    def __init__(self, sock: socket.socket, loop: Loop, listener: Listener, users: frozenset[int]) -> None:
        """Starts to read.

        Args:
            sock: a bound Unix datagram socket.
            loop: where notifications are handled.
            listener: what handles them.
            users: user ids that may send: the game's, the agent's, root.
        """
        self._sock = sock
        self._loop = loop
        self._listener = listener
        self._users = users
        self._said: set[str] = set()
        self._waiting = 0  # datagrams that were received and not handled
        # What a process that is forked now inherits: it must not keep a sender's descriptors open.
        self._lock = threading.Lock()
        self._held: set[int] = set()
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._close_inherited
        )
        # A game that sends faster than the init handles has to wait, as it would for systemd: what waits takes memory.
        self._room = threading.Semaphore(_MOST_WAITING)
        sock.setblocking(True)
        thread = threading.Thread(target=self._run, name="notify", daemon=True)
        with contextlib.suppress(RuntimeError):  # no thread available: sd_notify is not read, everything else works
            thread.start()

    def idle(self) -> bool:
        """Whether everything that has arrived so far was handled."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        with self._lock:  # nothing is between the socket and the count
            try:
                return not poll.poll(0) and not self._waiting
            except OSError:  # no memory for it: whoever asks must not wait for that
                return True

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while True:
            self._room.acquire()
            try:
                poll.poll()
                with self._lock:
                    datagram, ancillary, _, _ = self._sock.recvmsg(
                        _LONGEST, _ANCILLARY_ROOM, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
                    )
                    sender, descriptors = _ancillary(ancillary)
                    self._held.update(descriptors)
                    self._waiting += 1
            except (InterruptedError, BlockingIOError):
                self._room.release()
                continue
            except OSError:
                if self._sock.fileno() < 0:
                    return  # closed: the init is exiting
                self._room.release()
                time.sleep(_WITHOUT_MEMORY)  # ENOMEM, ENOBUFS: the sender's datagram waits
                continue
            done = threading.Event()
            self._loop.call_soon_threadsafe(self._take, datagram, sender, done)
            # The sender of BARRIER=1 waits until this is closed, which says that all earlier datagrams were handled.
            if descriptors:
                done.wait(_BARRIER_SECONDS)
            for descriptor in descriptors:
                self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        with contextlib.suppress(OSError), self._lock:
            self._held.discard(descriptor)
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                return
        # Closing a socket may take its time (SO_LINGER), for which no fork waits.
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def _close_inherited(self) -> None:
        """In a process that was just forked, and may fork in turn."""
        while self._held:
            with contextlib.suppress(OSError):
                os.close(self._held.pop())
        self._lock.release()

    def _take(self, datagram: bytes, sender: tuple[int, int] | None, done: threading.Event) -> None:
        try:
            if sender is None or sender[1] not in self._users:
                self._say_once(
                    "cannot accept a notification (sd_notify): it is from neither the game's user nor the agent's"
                )
            elif not self._listener.is_game(sender[0]):
                self._say_once(f"cannot accept a notification (sd_notify): process {sender[0]} is not part of the game")
            else:
                self._act(parse(datagram))
        finally:
            with self._lock:
                self._waiting -= 1
            self._room.release()
            done.set()

    def _act(self, given: Mapping[str, str]) -> None:
        listener = self._listener
        if "MAINPID" in given:
            self._call("mainpid", lambda: listener.notified_main(_number(given["MAINPID"], 2**31)))
        if "STATUS" in given:
            self._call("status", lambda: listener.notified_text(given["STATUS"]))
        if given.get("READY") == "1":
            self._call("ready", listener.notified_ready)
        if given.get("WATCHDOG") == "1":
            self._call("health", listener.notified_heartbeat)
        if "ERRNO" in given:
            self._call("status", lambda: listener.notified_text(_error(given["ERRNO"])))
        if given.get("STOPPING") == "1":
            self._call("stop", listener.notified_ending)
        if given.get("WATCHDOG") == "trigger":
            self._call("alarm", listener.notified_alarm)
        if "EXTEND_TIMEOUT_USEC" in given:
            self._call("stop.ack", lambda: listener.notified_more_time(_more(given["EXTEND_TIMEOUT_USEC"])))

    def _call(self, operation: str, call: Callable[[], object]) -> None:
        status = "ok"
        try:
            call()
        except Exception as problem:
            # The socket has no way to answer, so the problem is logged.
            status = "invalid"
            self._say_once(f"cannot accept a notification (sd_notify): {problem}")
        self._listener.count_notification(operation, status)

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said and len(self._said) < 100:
            self._said.add(sentence)
            log.warning(sentence)


def _ancillary(messages: list[tuple[int, int, bytes]]) -> tuple[tuple[int, int] | None, list[int]]:
    """Process and user id of the sender, and the descriptors that it sent."""
    sender: tuple[int, int] | None = None
    descriptors = array.array("i")
    for level, kind, data in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid, uid, _ = _UCRED.unpack(data[: _UCRED.size])
            sender = (pid, uid)
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return sender, list(descriptors)


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{text[:50]!r} is not a number")
    return min(int(text), most)


def _error(text: str) -> str:
    number = _number(text, 9999)
    return f"error {number}: {os.strerror(number)}"


def _more(text: str) -> float:
    return _number(text, 3_600_000_000) / 1e6
