"""A client for a running agent over its socket. Standard library only, because commands must start fast.

Games and scripts in Python may use it too; for other languages, the protocol is a line of JSON in each direction, see
`docs/api.md`.
"""

import errno
import json
import os
import socket
import time
from typing import Any, Self

from agent.config.homes import homes
from agent.errors import AgentError
from agent.init.sockets import default_socket_paths, peer_credentials

_OFF = ("off", "false", "no", "0")


class CannotReachError(AgentError):
    """No agent answers."""


class RefusedError(AgentError):
    """The agent refused the call.

    Attributes:
        problem: its problem document: `status`, `detail`, and `errors` for wrong fields.
    """

    def __init__(self, message: str, problem: "dict[str, object]") -> None:
        """Takes the agent's problem document."""
        super().__init__(message)
        self.problem = problem


class AgentClient:
    """A connection to the agent; use it as a context manager.

    Args:
        path: of the socket; by default from AGENT_SOCKET or AGENT_SOCKET_PATH, else the default paths.
        timeout: seconds to wait for an answer.

    Raises:
        CannotReachError: no agent listens there.
    """

    def __init__(self, path: "str | None" = None, timeout: float = 10.0) -> None:
        """Connects."""
        self._timeout = timeout
        self._socket = _connect([path] if path else socket_paths(), timeout)
        self._received = b""
        self._calls = 0
        self._events: list[dict[str, object]] = []

    def __enter__(self) -> Self:
        """Gives the connection itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self._socket.close()

    def call(self, method: str, **params: object) -> "dict[str, object]":
        """Calls an operation and waits for its answer.

        Args:
            method: its name.
            params: its input; None values are omitted.

        Raises:
            RefusedError: the agent refused the call.
            CannotReachError: it did not answer in time, or closed the connection.
        """
        self._calls += 1
        given = {name: value for name, value in params.items() if value is not None}
        request = {"jsonrpc": "2.0", "id": self._calls, "method": method, "params": given}
        end = time.monotonic() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as problem:
            raise CannotReachError(f"cannot reach the agent: {_reason(problem)}") from None
        while True:
            message = self._message(max(0.001, end - time.monotonic()))
            if message is None:
                raise CannotReachError("cannot reach the agent: it closed the connection")
            if message.get("method") == "event":
                self._events.append(message["params"])
            elif "error" in message:
                # An error without an id is about the connection: this user may not use it, or there are too many.
                raise RefusedError(message["error"]["message"], message["error"].get("data", {}))
            elif message.get("id") == self._calls:
                result: dict[str, object] = message["result"]
                return result

    def event(self, timeout: "float | None" = None) -> "dict[str, object] | None":
        """Waits for the next event, after a call of `subscribe`.

        Args:
            timeout: seconds to wait; None waits forever.

        Returns:
            The event (`id`, `type` and `data`), or None if the agent is gone.

        Raises:
            CannotReachError: the time is over.
        """
        if self._events:
            return self._events.pop(0)
        while True:
            message = self._message(timeout)
            if message is None:
                return None
            if message.get("method") == "event":
                event: dict[str, object] = message["params"]
                return event

    def _message(self, timeout: "float | None") -> "dict[str, Any] | None":
        while b"\n" not in self._received:
            try:
                self._socket.settimeout(timeout)
                received = self._socket.recv(65536)
            except TimeoutError:
                raise CannotReachError(f"cannot reach the agent: no answer within {timeout:.3g} s") from None
            except OSError as problem:
                if problem.errno == errno.ECONNRESET:
                    return None
                raise CannotReachError(f"cannot reach the agent: {_reason(problem)}") from None
            if not received:
                return None
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise CannotReachError("cannot reach the agent: what answers at its socket is no agent")
        return message


def socket_paths() -> "list[str]":
    """Possible paths of the agent's socket, most likely first.

    A configured path is the only one: another path might belong to another agent.

    Raises:
        CannotReachError: the socket is switched off.
    """
    named = os.environ.get("AGENT_SOCKET") or os.environ.get("AGENT_SOCKET_PATH")
    if not named:
        return list(dict.fromkeys([*default_socket_paths(), *(f"{home}/agent.sock" for home in homes())]))
    if named.strip().lower() in _OFF:
        raise CannotReachError("cannot reach the agent: its socket is off (AGENT_SOCKET_PATH); use HTTP (AGENT_URL)")
    return [named]


def _connect(paths: "list[str]", timeout: float) -> socket.socket:
    tried = []
    for path in paths:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(path)
            _check_owner(connection, path)
        except OSError as problem:
            connection.close()
            tried.append(f"{path}: {_reason(problem)}")
        else:
            return connection
    raise CannotReachError(
        f"cannot reach the agent: {', '.join(tried)}; start the game with `arbitrium-agent run -- COMMAND`, "
        "or say in AGENT_SOCKET where its agent listens"
    )


def _check_owner(connection: socket.socket, path: str) -> None:
    """Refuses an agent of a user other than root, this user, and the owner of the socket's directory.

    Any user can create a socket in /tmp before the agent does, and would receive its calls. Raises OSError.
    """
    _, uid, _ = peer_credentials(connection)
    if uid not in (0, os.geteuid(), os.stat(os.path.dirname(path) or ".").st_uid):
        raise OSError(f"user {uid} listens there, who is neither this user nor the directory's owner")


def _reason(problem: OSError) -> str:
    match problem.errno:
        case errno.ENOENT:
            return "no socket there"
        case errno.ECONNREFUSED:
            return "no agent listens any more"
        case errno.EACCES | errno.EPERM:
            return "this user may not connect"
        case errno.EPIPE:
            return "it closed the connection"
        case _:
            return (problem.strerror or str(problem) or type(problem).__name__).lower()
