"""How messages travel: a header, JSON, and a payload of bytes. Standard library only.

The format is JSON, because the agent's process may be broken when it writes: parsing its messages must never harm the
init.
"""

from __future__ import annotations

import json
import struct

from agent.lifecycle import game_report, states, stop_plan
from agent.link import messages
from agent.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HEADER = struct.Struct("!II")
LONGEST = 16 * 1024 * 1024
"""The most bytes of a message, payload included; the longest is a segment of the log."""
_KIND = "_"


def _records() -> dict[str, type[Record]]:
    found: dict[str, type[Record]] = {}
    for module in (states, stop_plan, game_report, messages):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Record) and value.__module__ == module.__name__:
                assert value.__name__ not in found, f"two records are called {value.__name__}"
                found[value.__name__] = value
    return found


_RECORDS = _records()
# Fields that contain a member of an enumeration: comparisons by identity need the member, not its text.
_WORDS = {
    "phase": states.Phase,
    "source": states.Source,
    "reason": states.Reason,
    "timer": states.Timer,
    "step": stop_plan.Step,
}


class BrokenLinkError(Exception):
    """The received bytes are not a valid message."""


def pack(message: Record, payload: bytes = b"") -> bytes:
    """A message as bytes."""
    text = _ENCODER.encode(message).encode()
    return _HEADER.pack(len(text), len(payload)) + text + payload


class Unpacker:
    """Splits received bytes into messages."""

    def __init__(self) -> None:
        """Begins with nothing."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Record, bytes]]:
        """The complete messages, with their payloads.

        Raises:
            BrokenLinkError: the bytes are not a valid message; nothing after them can be read.
        """
        self._buffer += data
        found = []
        while len(self._buffer) >= _HEADER.size:
            text, payload = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + text + payload
            if end > LONGEST:
                raise BrokenLinkError(f"a message of {end} bytes")
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            found.append((unpack(body[:text]), body[text:]))
        return found


def unpack(text: bytes) -> Record:
    """A message from its JSON.

    Raises:
        BrokenLinkError: it is invalid.
    """
    try:
        message = _DECODER.decode(text.decode())
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise BrokenLinkError(f"cannot read a message ({type(problem).__name__}: {problem})") from None
    if not isinstance(message, Record):
        raise BrokenLinkError("a message of no kind")
    return message


def _plain(value: object) -> dict[str, Any]:
    assert isinstance(value, Record), f"a message holds records and plain values, not {type(value).__name__}"
    return {_KIND: type(value).__name__, **{name: getattr(value, name) for name in value.fields}}


def _record(given: dict[str, Any]) -> Any:
    kind = given.pop(_KIND, None)
    if kind is None:
        return given
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in _WORDS and isinstance(value, str):
            values[name] = _WORDS[name](value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return _RECORDS[kind](**values)


# json.dumps and json.loads would make one for each message.
_ENCODER = json.JSONEncoder(default=_plain)
_DECODER = json.JSONDecoder(object_hook=_record)
