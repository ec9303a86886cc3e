"""The agent's end of the link to the init: messages in and out, questions and their answers, on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

from agent import log
from agent.errors import AgentError
from agent.link.messages import Answer, Ping, Pong
from agent.link.wire import BrokenLinkError, Unpacker, pack
from agent.record import Record

_READ = 64 * 1024  # more would be mapped and unmapped by malloc for each message (mallopt(3), M_MMAP_THRESHOLD)
# Before a ping is answered, all input that has arrived from clients is read. This takes several rounds of the loop (for
# accepting a connection, reading from it, and the task that answers), and a short wait for data that was just sent.
_PONG_AFTER = 0.02
_PONG_ROUNDS = 20

Handler = Callable[[Any, bytes], object]


class Link:
    """The link. Sending never waits: messages are queued until the socket accepts them."""

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]) -> None:
        """Reads nothing before `start`.

        Args:
            sock: this end of the socket pair; it belongs to the link from now on.
            loop: the event loop.
            on_lost: called when the init is gone, or sends an invalid message.
        """
        sock.setblocking(False)
        self._sock = sock
        self._loop = loop
        self._on_lost = on_lost
        self._handlers: dict[type[Record], Handler] = {Answer: self._on_answer, Ping: self._on_ping}
        self._unpacker = Unpacker()
        self._unsent = bytearray()
        self._asked: dict[int, asyncio.Future[tuple[Any, bytes]]] = {}
        self._number = 0
        self._before_pong: Callable[[], object] = lambda: None

    def before_pong(self, callback: Callable[[], object]) -> None:
        """Calls back before a ping is answered, to send facts first that the init does not know yet."""
        self._before_pong = callback

    def start(self) -> None:
        """Begins to read."""
        self._loop.add_reader(self._sock, self._read)

    def handle(self, kind: type[Record], handler: Handler) -> None:
        """Registers the handler for a type of message: `handler(message, payload)`."""
        self._handlers[kind] = handler

    def send(self, message: Record, payload: bytes = b"") -> None:
        """Sends a message. For the event loop's thread."""
        self._unsent += pack(message, payload)
        self._write()

    def send_threadsafe(self, message: Record, payload: bytes = b"") -> None:
        """Sends a message from another thread."""
        self._loop.call_soon_threadsafe(self.send, message, payload)

    async def ask(self, make: Callable[[int], Record]) -> tuple[Any, bytes]:
        """Asks a question and waits for its answer.

        Args:
            make: creates the message from the number of the question.

        Returns:
            The answer's value and its payload.

        Raises:
            AgentError: the init cannot answer it; the message says why.
        """
        self._number += 1
        number = self._number
        future: asyncio.Future[tuple[Any, bytes]] = self._loop.create_future()
        self._asked[number] = future
        self.send(make(number))
        try:
            return await future
        finally:
            self._asked.pop(number, None)

    def ask_from_thread(self, make: Callable[[int], Record], seconds: float) -> tuple[Any, bytes]:
        """The same from another thread, which waits.

        Raises:
            TimeoutError: no answer came in so many seconds.
            AgentError: as `ask`.
        """
        return asyncio.run_coroutine_threadsafe(self.ask(make), self._loop).result(seconds)

    def flush(self, seconds: float) -> None:
        """Sends the queued messages, waiting at most this many seconds; used during shutdown."""
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.settimeout(seconds)
        with contextlib.suppress(OSError):  # the init is gone, or does not read
            self._sock.sendall(self._unsent)
        self._unsent.clear()

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent[:_READ])]
            self._loop.remove_writer(self._sock)
        except BlockingIOError:
            self._loop.add_writer(self._sock, self._write)
        except OSError:
            self._on_lost()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._sock)
            self._on_lost()
            return
        try:
            messages = self._unpacker.feed(data)
        except BrokenLinkError as problem:
            log.error(f"cannot understand the init ({problem}); ending the agent's process, which is started again")
            self._loop.remove_reader(self._sock)
            self._on_lost()
            return
        for message, payload in messages:
            handler = self._handlers.get(type(message))
            if handler is None:
                continue
            try:
                handler(message, payload)
            except Exception as problem:
                log.fault(f"cannot handle {type(message).__name__} from the init", problem)

    def _on_answer(self, message: Answer, payload: bytes) -> None:
        future = self._asked.get(message.ask)
        if future is None or future.done():
            return
        if message.error:
            future.set_exception(AgentError(message.error))
        else:
            future.set_result((json.loads(message.value), payload))

    def _on_ping(self, message: Ping, _payload: bytes) -> None:
        self._loop.call_later(_PONG_AFTER, self._pong, message.number, _PONG_ROUNDS)

    def _pong(self, number: int, rounds: int) -> None:
        if rounds:
            self._loop.call_soon(self._pong, number, rounds - 1)
            return
        self._before_pong()
        self.send(Pong(number))
