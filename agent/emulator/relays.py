"""Relay sessions: players who cannot reach each other play over a UDP relay on this machine.

The relay speaks what the vendor's transports for Mirror and FishNet speak (observed in clients). Every datagram to it
begins with the user's and the session's authorization token, 4 bytes each, little-endian, and a byte that says what it
is: 1 ping, 2 data. The hosting player sends to the port `server`, all others to `client`. Data of and for the host has
the number of the connection (4 bytes, little-endian) before its payload, so that it can tell the others apart. What the
relay sends begins with the byte alone; a ping is answered with the state of the connection.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent.emulator.errors import ApiError, CannotPlace
from agent.emulator.models import RelaySessionCreate
from agent.emulator.places import PLACES, Place, nearest, place_of_address, selected_places
from agent.emulator.services import Services

HEADER = struct.Struct("<IIB")
CONNECTION = struct.Struct("<i")
PING, DATA = 1, 2
VALID, INVALID = 2, 3
"""States of a connection, as pings are answered."""
MOST_SESSIONS = 200
"""Each holds two ports."""


def _token() -> int:
    """An authorization token: 32 bits, of which clients make an unsigned number."""
    return secrets.randbelow(2**32 - 1) + 1


@dataclass
class RelayUser:
    """A player of a session."""

    ip_address: str
    token: int = field(default_factory=_token)

    def as_json(self) -> dict[str, Any]:
        """The contract's member of `session_users`."""
        latitude, longitude = place_of_address(self.ip_address)
        return {
            "ip_address": self.ip_address,
            "latitude": latitude,
            "longitude": longitude,
            "authorization_token": self.token,
        }


class RelaySession:
    """One session and its relay.

    Args:
        request: what was asked for.
        place: where its relay is.
    """

    def __init__(self, request: RelaySessionCreate, place: Place) -> None:
        """See the class."""
        self.id = f"{secrets.token_hex(6)}-S"
        self.token = _token()
        self.users = {user.token: user for user in (RelayUser(each.ip) for each in request.users)}
        self.webhook_url = request.webhook_url
        self.place = place
        self.status = "Initializing"
        self.error = ""
        self.address = ("", "")
        """IP address and name of the relay."""
        self.ports: dict[str, int] = {}
        self.task: asyncio.Task[None] | None = None
        self._server: Any = None
        self._clients: dict[int, Any] = {}
        self._connections: dict[int, int] = {}
        self._transports: dict[str, asyncio.DatagramTransport] = {}

    @property
    def ready(self) -> bool:
        """Whether players can use it."""
        return self.status == "READY"

    @property
    def linked(self) -> bool:
        """Whether it has a relay."""
        return self.status in {"Linked", "READY"}

    def as_json(self) -> dict[str, Any]:
        """The contract's `RelaySession`."""
        ip_address, name = self.address
        body: dict[str, Any] = {
            "session_id": self.id,
            "authorization_token": self.token,
            "status": self.status,
            "ready": self.ready,
            "linked": self.linked,
            "session_users": [user.as_json() for user in self.users.values()],
        }
        if self.linked:
            ports = {
                role: {"port": port, "protocol": "UDP", "link": f"{name}:{port}"} for role, port in self.ports.items()
            }
            body["relay"] = {"ip": ip_address, "host": name, "ports": ports}
        if self.error:
            body["error"] = self.error
        if self.webhook_url:
            body["webhook_url"] = self.webhook_url
        return body

    def revoke(self, token: int) -> None:
        """Let a user in no more.

        Raises:
            ApiError: 404, there is none with this token.
        """
        if token not in self.users:
            raise ApiError(404, f"cannot find a user of session {self.id} with this authorization token; see its users")
        del self.users[token]
        self._clients.pop(token, None)

    async def listen(self, role: str, host: str, port: int) -> None:
        """Open one of its two ports.

        Raises:
            OSError: it is taken.
        """
        handle = self._from_server if role == "server" else self._from_client
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Port(handle), local_addr=(host, port)
        )
        self._transports[role] = transport

    def _from_server(self, data: bytes, addr: Any) -> None:
        """A datagram of the player who hosts."""
        head = self._head("server", data, addr)
        if head is None:
            return
        self._server = addr
        payload = data[HEADER.size :]
        if head[1] == DATA and len(payload) > CONNECTION.size:
            (connection,) = CONNECTION.unpack_from(payload)
            client = next((token for token, number in self._connections.items() if number == connection), None)
            if client in self._clients:
                self._send("client", bytes((DATA,)) + payload[CONNECTION.size :], self._clients[client])

    def _from_client(self, data: bytes, addr: Any) -> None:
        """A datagram of another player."""
        head = self._head("client", data, addr)
        if head is None:
            return
        token, kind = head
        self._clients[token] = addr
        connection = self._connections.setdefault(token, len(self._connections) + 1)
        if kind == DATA and self._server is not None:
            payload = data[HEADER.size :]
            self._send("server", bytes((DATA,)) + CONNECTION.pack(connection) + payload, self._server)

    def _head(self, role: str, data: bytes, addr: Any) -> tuple[int, int] | None:
        """The user's token and the kind of a datagram; None when it is not let in."""
        if len(data) < HEADER.size:
            return None
        user, session, kind = HEADER.unpack_from(data)
        known = session == self.token and user in self.users
        if kind == PING:
            self._send(role, bytes((PING, VALID if known else INVALID)), addr)
        return (user, kind) if known else None

    def _send(self, role: str, data: bytes, addr: Any) -> None:
        transport = self._transports[role]
        if not transport.is_closing():
            transport.sendto(data, addr)

    def close(self) -> None:
        """Forward no more."""
        for transport in self._transports.values():
            transport.close()


class _Port(asyncio.DatagramProtocol):
    """One UDP port of a relay."""

    def __init__(self, handle: Callable[[bytes, Any], None]) -> None:
        self._handle = handle

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._handle(data, addr)

    def error_received(self, exc: Exception) -> None:
        """A player is gone (ICMP)."""


class Relays:
    """All relay sessions.

    Args:
        services: ports, settings and webhooks of the platform.
    """

    def __init__(self, services: Services) -> None:
        """See the class."""
        self._services = services
        self.sessions: dict[str, RelaySession] = {}

    def create(self, request: RelaySessionCreate) -> RelaySession:
        """Begin a session; its relay is ready a little later.

        Raises:
            ApiError: 400 for filters that no place meets, 503 with too many sessions, or while the emulator closes.
        """
        if self._services.closing.is_set() or len(self.sessions) >= MOST_SESSIONS:
            raise ApiError(503, f"cannot begin a relay session: there are {len(self.sessions)}; delete some")
        session = RelaySession(request, self._place(request))
        self.sessions[session.id] = session
        session.task = asyncio.create_task(self._link(session), name=f"relay {session.id}")
        return session

    def _place(self, request: RelaySessionCreate) -> Place:
        places: Sequence[Place] = selected_places(PLACES, request.filters)
        if not places:
            raise ApiError(400, "cannot begin a relay session: no place meets all filters; leave one out")
        return nearest([place_of_address(user.ip) for user in request.users], places)

    async def _link(self, session: RelaySession) -> None:
        """Initializing, linked, ready."""
        services = self._services
        delays, host = services.settings.delays, services.settings.public_ip
        await services.pause(delays.seeking)
        try:
            for role in ("server", "client"):
                session.ports[role] = await services.port_book.open_free(partial(session.listen, role, host))
        except CannotPlace as error:
            session.error = str(error)
            session.status = "Error"
            return
        domain = services.settings.domain
        session.address = (host, f"{session.id.lower()}.{domain}" if domain else host)
        session.status = "Linked"
        await services.pause(delays.seeked)
        session.status = "READY"
        if session.webhook_url:
            services.webhooks.send(session.webhook_url, session.as_json())

    def session(self, session_id: str, status: int = 404) -> RelaySession:
        """A session by id.

        Raises:
            ApiError: `status`, there is none.
        """
        if session_id not in self.sessions:
            raise ApiError(status, f"cannot find relay session {session_id}; list those there are")
        return self.sessions[session_id]

    def authorize(self, session_id: str, address: str) -> tuple[RelaySession, RelayUser]:
        """Let a further user in.

        Raises:
            ApiError: 400 without the session (its document has no 404 here), 409 for one who is in already.
        """
        session = self.session(session_id, status=400)
        if any(user.ip_address == address for user in session.users.values()):
            raise ApiError(409, f"cannot authorize {address}: the user is in session {session_id} already")
        user = RelayUser(address)
        session.users[user.token] = user
        return session, user

    async def delete(self, session_id: str) -> None:
        """End a session.

        Raises:
            ApiError: 404, there is none.
        """
        session = self.session(session_id)
        del self.sessions[session_id]
        if session.task is not None:
            session.task.cancel()
            await asyncio.gather(session.task, return_exceptions=True)
        session.close()
        self._services.port_book.give_back(session.ports.values())

    async def close(self) -> None:
        """End all of them."""
        for session_id in list(self.sessions):
            await self.delete(session_id)
