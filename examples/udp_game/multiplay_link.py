"""What the same game says to Multiplay's local daemon, and what it hears: `server.json`, REST, events and SQP, no SDK.

The events come over a WebSocket, in Centrifuge's JSON protocol; both are spoken here on a plain socket. arbitrium-agent
is the daemon where AGENT_COMPAT has `multiplay`.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import threading
from typing import BinaryIO

from .agent_link import AgentLink, complain

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class MultiplayLink(AgentLink):
    """The game's line to the daemon."""

    def __init__(self) -> None:
        """Reads `server.json`, answers queries from now on, and listens for events."""
        with open(os.path.expanduser("~/server.json"), encoding="utf-8") as file:
            config = json.load(file)
        self._server = int(config["serverID"])
        self._ready = threading.Event()
        self._players: set[str] = set()
        self._capacity = 0
        super().__init__(config.get("localProxyUrl") or "http://localhost:8086")
        self.stops_the_game = False  # a game ends itself there
        queries = threading.Thread(
            target=self._answer_queries, args=(int(config["queryPort"]),), name="sqp", daemon=True
        )
        queries.start()

    def ready(self) -> None:
        """Ready as soon as the server is allocated."""
        self._ready.set()

    def heartbeat(self) -> None:
        """Multiplay knows none: it sends queries."""

    def capacity(self, players: int) -> None:
        """Answered to queries."""
        self._capacity = players

    def joined(self, player: str) -> None:
        """One player more."""
        self._players.add(player)

    def left(self, player: str) -> None:
        """One player less."""
        self._players.discard(player)

    def figures(self, figures: dict[str, object]) -> None:
        """Multiplay takes none."""

    def stop(self, reason: str) -> None:
        """There is no such call: the game ends."""

    def _listen(self) -> None:
        try:
            with socket.create_connection(self._address, timeout=None) as connection, connection.makefile("rb") as read:
                self._handshake(connection, read)
                subscribe = {"id": 2, "method": 1, "params": {"channel": f"server#{self._server}"}}
                commands = json.dumps({"id": 1, "params": {}}) + "\n" + json.dumps(subscribe)
                _send(connection, _TEXT, commands.encode())
                while (frame := _receive(read)) is not None:
                    opcode, payload = frame
                    if opcode == _PING:
                        _send(connection, _PONG, payload)
                    elif opcode == _CLOSE:
                        return
                    for line in payload.splitlines() if opcode == _TEXT else ():
                        self._take(json.loads(line))
        except (OSError, ValueError, KeyError) as problem:
            complain(f"cannot listen to Multiplay's daemon: {problem}; SIGTERM still stops the game")

    def _handshake(self, connection: socket.socket, read: BinaryIO) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /v1/connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        if b" 101 " not in read.readline():
            raise OSError("it does not open a WebSocket")
        while read.readline().strip():
            pass

    def _take(self, message: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        event = message.get("result", {}).get("data", {}).get("data", {})
        if event.get("EventType") == "AllocateEventType":
            self._ready.wait()
            self._say("POST", f"/v1/server/{self._server}/allocation/{event['AllocationID']}/ready-for-players", {})
        elif event.get("EventType") == "DeallocateEventType":
            self.words = "Multiplay: deallocated"
            self.stop_announced.set()
            self.told_to_end = True

    def _answer_queries(self, port: int) -> None:
        """SQP: a challenge, then the server's info for whoever has it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as queries:
            try:
                queries.bind(("0.0.0.0", port))  # noqa: S104 - Multiplay asks from outside
            except OSError as problem:
                complain(f"cannot answer queries on UDP port {port}: {problem.strerror}")
                return
            challenge = struct.unpack(">I", os.urandom(4))[0]
            while True:
                data, sender = queries.recvfrom(64)
                if data[:1] == b"\x00":
                    queries.sendto(struct.pack(">BI", 0, challenge), sender)
                elif data[:5] == struct.pack(">BI", 1, challenge):
                    names = b"".join(bytes([len(name)]) + name for name in (b"udp_game", b"match", b"1", b"field"))
                    info = struct.pack(">HH", len(self._players), self._capacity) + names + struct.pack(">H", 0)
                    head = struct.pack(">BIHBBHI", 1, challenge, 1, 0, 0, len(info) + 4, len(info))
                    queries.sendto(head + info, sender)


def _send(connection: socket.socket, opcode: int, payload: bytes) -> None:
    """One frame; a client's are masked (RFC 6455, 5.2)."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    connection.sendall(bytes([0x80 | opcode]) + length + mask + masked)


def _receive(read: BinaryIO) -> tuple[int, bytes] | None:
    """The next frame, or None at the end; the daemon sends none in fragments."""
    head = read.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if length == 126:
        length = struct.unpack(">H", read.read(2))[0]
    elif length == 127:
        length = struct.unpack(">Q", read.read(8))[0]
    return head[0] & 0x0F, read.read(length)
