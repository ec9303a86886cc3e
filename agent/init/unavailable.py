"""Answers calls with an error if the agent's process cannot be started, so that no call hangs forever.

During a restart of the agent, calls wait in the backlog of the listening sockets. After several failed starts in a row
it is unknown when the agent will be up, and a game that waits for an answer might wait forever.

Standard library only.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.init.agent_process import AgentProcess
    from agent.init.loop import Loop
    from agent.init.sockets import Sockets

AFTER_STARTS = 3
"""Starts in a row that failed."""
_AT_ONCE = 32
_READ_SECONDS = 0.2
_BODY = (
    b'{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"cannot answer: the agent cannot be '
    b"started; its log says why. The game's stop and logs are looked after all the same\"}"
)
_HTTP = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)
# A fatal alert, internal_error (RFC 8446, 6): a client that speaks TLS shows that, and 503 in the clear as bad TLS.
_TLS = bytes((21, 3, 3, 0, 2, 2, 80))
_RPC = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32003,"message":"cannot answer: the agent cannot be started"}}\n'


class Unavailable:
    """Listens on the agent's sockets only while the agent cannot be started."""

    def __init__(self, loop: Loop, sockets: Sockets, agent: AgentProcess, *, metrics_tls: bool = False) -> None:
        """Answers nothing yet.

        Args:
            loop: the init's.
            sockets: those that the agent would answer on.
            agent: whose starts are watched.
            metrics_tls: whether the metrics port speaks TLS.
        """
        self._loop = loop
        self._agent = agent
        self._answers: list[tuple[socket.socket, bytes]] = []
        self._open = 0  # connections that were answered but are not closed yet
        if sockets.control is not None:
            self._answers.append((sockets.control.sock, _HTTP))
        if sockets.metrics is not None:
            self._answers.append((sockets.metrics.sock, _TLS if metrics_tls else _HTTP))
        if sockets.unix is not None:
            self._answers.append((sockets.unix.sock, _RPC))
        agent.on_up(self._pause)
        agent.on_down(self._start)

    def _start(self) -> None:
        if self._agent.failed_starts >= AFTER_STARTS:
            for listener, answer in self._answers:
                self._loop.add_reader(listener.fileno(), partial(self._answer, listener, answer))

    def _pause(self) -> None:
        for listener, _ in self._answers:
            self._loop.remove_reader(listener.fileno())

    def _answer(self, listener: socket.socket, answer: bytes) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            connection = None  # gone already, or no descriptor is left: those that are answered give theirs back
        if connection is not None:
            self._open += 1
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # it is gone already
                connection.send(answer)
                connection.shutdown(socket.SHUT_WR)
            # If it were closed at once, unread input would cause a reset, and the answer could be lost.
            self._loop.call_later(_READ_SECONDS, self._close, connection)
        if connection is None or self._open >= _AT_ONCE:
            self._pause()
            self._loop.call_later(_READ_SECONDS, self._start)

    def _close(self, connection: socket.socket) -> None:
        self._open -= 1
        connection.close()
