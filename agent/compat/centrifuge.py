"""Centrifuge's JSON protocol, versions 1 and 2: the part needed to read from one channel. Pure: text in, text out.

A message contains one command on each line, and its answers are also sent in one message. Version 1 has `method` and
`params` (no `method` is method 0, connect) and answers with `result`; version 2 names the command and the answer alike
(`{"id":1,"connect":{}}`). Source: https://centrifugal.dev/docs/transports/client_protocol, and the clients of both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from agent import __version__

Json = dict[str, Any]

PING_SECONDS = 25
"""How often each side is heard of at least."""
COMMANDS = 64
"""Commands in one message at most."""

# The methods of version 1, whose names are the fields of version 2.
_METHODS = {0: "connect", 1: "subscribe", 2: "unsubscribe", 3: "publish", 4: "presence", 7: "ping", 8: "send", 9: "rpc"}
# https://centrifugal.dev/docs/server/codes
_UNKNOWN_CHANNEL = {"code": 102, "message": "unknown channel"}
_NOT_FOUND = {"code": 104, "message": "method not found"}
_BAD_REQUEST = {"code": 107, "message": "bad request"}
_ALREADY = {"code": 105, "message": "already subscribed"}


class ProtocolError(Exception):
    """A message that is not of this protocol: the connection is closed."""


class Session:
    """One connection.

    Attributes:
        channels: those that are subscribed to.
        version: of the protocol, once a command told it.
    """

    def __init__(self, known: Callable[[str], bool]) -> None:
        """Takes what says whether there is a channel."""
        self._known = known
        self._client = str(uuid4())
        self._connected = False
        self.channels: set[str] = set()
        self.version = 1

    def take(self, text: str) -> tuple[list[str], list[str]]:
        """Takes a message.

        Returns:
            The answers, a line each, and the channels that were subscribed to by it.

        Raises:
            ProtocolError: it is not of this protocol.
        """
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) > COMMANDS:
            raise ProtocolError(f"more than {COMMANDS} commands in one message")
        answers: list[str] = []
        subscribed: list[str] = []
        for line in lines:
            try:
                command = json.loads(line)
            except (ValueError, RecursionError):
                raise ProtocolError("a command is not JSON") from None
            if not isinstance(command, dict):
                raise ProtocolError("a command is not a JSON object")
            if not command:
                continue  # version 2's answer to a ping
            before = set(self.channels)
            answer = self._answer(command)
            subscribed += self.channels - before
            if answer is not None:
                answers.append(json.dumps(answer, separators=(",", ":")))
        return answers, subscribed

    def _answer(self, command: Json) -> Json | None:
        number = command.get("id", 0)
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**32:
            raise ProtocolError("an id is not a number")
        name, params = self._read(command)
        result, error = self._do(name, params)
        if name == "send" or not number:
            return None  # nothing is answered to it
        if error is not None:
            return {"id": number, "error": error}
        if self.version == 1:
            return {"id": number, "result": result} if result or name != "ping" else {"id": number}
        return {"id": number, name: result}

    def _read(self, command: Json) -> tuple[str, Json]:
        """The name and parameters of a command, in either version."""
        name = next((name for name in _METHODS.values() if name in command), None)
        if name is not None:
            self.version = 2
            params = command[name]
        else:
            method = command.get("method", 0)
            if isinstance(method, str):  # before method numbers, the JSON protocol had names
                name = method.lower()
            else:
                name = _METHODS.get(method, "") if isinstance(method, int) else ""
            params = command.get("params")
        if params is None:
            params = {}
        if not isinstance(params, dict):
            raise ProtocolError("the parameters of a command are not a JSON object")
        return name, params

    def _do(self, name: str, params: Json) -> tuple[Json, Json | None]:
        """Carries out a command: its result, and what is wrong with it or None."""
        if name == "connect" and not self._connected:
            self._connected = True
            result: Json = {"client": self._client, "version": __version__}
            return (result | {"ping": PING_SECONDS, "pong": True} if self.version == 2 else result), None
        if name in ("ping", "send"):
            return {}, None
        if name not in ("connect", "subscribe", "unsubscribe"):
            return {}, _NOT_FOUND
        channel = params.get("channel")
        if name == "connect" or not self._connected or not isinstance(channel, str):
            return {}, _BAD_REQUEST
        if name == "unsubscribe":
            self.channels.discard(channel)
            return {}, None
        return {}, self._subscribe(channel)

    def _subscribe(self, channel: str) -> Json | None:
        if not self._known(channel):
            return _UNKNOWN_CHANNEL
        if channel in self.channels:
            return _ALREADY
        self.channels.add(channel)
        return None

    def push(self, channel: str, data: Json) -> str:
        """A publication to a channel, as this connection reads it."""
        message: Json
        if self.version == 1:
            message = {"result": {"channel": channel, "data": {"data": data}}}
        else:
            message = {"push": {"channel": channel, "pub": {"data": data}}}
        return json.dumps(message, separators=(",", ":"))

    @property
    def ping(self) -> str | None:
        """What the server sends as a ping; None in version 1, where WebSocket has its own."""
        return "{}" if self.version == 2 and self._connected else None
