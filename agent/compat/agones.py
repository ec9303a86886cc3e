"""Agones: maps the calls of its sidecar to our operations. REST is on port 9358; gRPC is in `agent.compat.agones_grpc`.

Values are dictionaries in the JSON form of the protocol's messages, with the names of the `.proto` files; both
transports read and write these. Source: Agones' protocol files and its own local SDK server.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from agent import log
from agent.api.models import MetricsInput, Nothing, PlayerInput, PlayersInput, StopInput
from agent.api.problems import Kind, OperationError
from agent.compat.agones_config import Counter, List, Spec
from agent.compat.contracts import ENDING, Closable, Link, Tasks, game, settled
from agent.errors import AgentError, how_to_install
from agent.lifecycle.game_report import MAX_PLAYERS
from agent.lifecycle.states import Phase

Json = dict[str, Any]

PREFIX = "agones.dev/sdk-"
"""Labels and annotations that the game sets have this in front of their names."""
LAST_ALLOCATED = "agones.dev/last-allocated"
INT64 = 2**63
LIST_LIMIT = 1000
"""The largest capacity of a list."""
PLAYERS = "players"
"""A counter or list of this name says how many play."""
_CALLER = game("agones")
_METADATA_LIMIT = 256

# gRPC's codes by name: https://grpc.github.io/grpc/core/md_doc_statuscodes.html, and the HTTP status of each as
# grpc-gateway has it.
CODES = {
    "UNKNOWN": (2, 500),
    "INVALID_ARGUMENT": (3, 400),
    "NOT_FOUND": (5, 404),
    "ALREADY_EXISTS": (6, 409),
    "PERMISSION_DENIED": (7, 403),
    "FAILED_PRECONDITION": (9, 400),
    "OUT_OF_RANGE": (11, 400),
    "UNIMPLEMENTED": (12, 501),
    "INTERNAL": (13, 500),
    "UNAVAILABLE": (14, 503),
}
_KINDS = {
    Kind.BAD_INPUT: "INVALID_ARGUMENT",
    Kind.FORBIDDEN: "PERMISSION_DENIED",
    Kind.NOT_FOUND: "NOT_FOUND",
    Kind.WRONG_METHOD: "UNIMPLEMENTED",  # so does grpc-gateway, with 501
    Kind.INTERNAL: "INTERNAL",
    Kind.UNAVAILABLE: "UNAVAILABLE",
}


class AgonesError(Exception):
    """What Agones would answer with an error; `code` is one of `CODES`."""

    def __init__(self, code: str, message: str) -> None:
        """Takes the name of the code and a sentence."""
        super().__init__(message)
        self.code = code


class Agones:
    """The sidecar; see `agent.compat.contracts.Host`."""

    name = "agones"

    def __init__(self, link: Link, spec: Spec) -> None:
        """Takes the agent and what a `gameserver.yaml` says; nothing is served yet."""
        self.listeners: Mapping[str, Callable[[Any], Awaitable[Closable]]] = {
            "agones-http": self._serve_http,
            "agones-grpc": self._serve_grpc,
        }
        self._link = link
        self._health = spec.health
        self._labels = dict(spec.labels)
        self._annotations = {**_match_annotations(link), **spec.annotations}
        self._counters = {name: Counter(counter.count, counter.capacity) for name, counter in spec.counters.items()}
        self._lists = {name: List(list(found.values), found.capacity) for name, found in spec.lists.items()}
        self._capacity = spec.player_capacity
        self._created = int(link.wall())
        self._state = ""  # Allocated or Reserved, where the game has come so far; else the phase says it
        self._reserved_until = 0.0
        self._was_ready = False
        self._generation = 1
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None
        self._shown: Json | None = None
        self._watchers: set[asyncio.Event] = set()
        self._tasks = Tasks()

    # The calls --------------------------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """`Ready`: players may come. Where the settings say so, the deployment's one match is allocated at once."""
        first = not self._was_ready
        self._was_ready = True
        self._leave_reserved()
        await settled(self._link.operations.ready(Nothing(), _CALLER))
        self._moved()
        if first and self._link.settings.agones_allocate:
            self._allocated()

    async def allocate(self) -> None:
        """`Allocate`: the game allocates itself. It is ready by that as well."""
        self._was_ready = True
        self._leave_reserved()
        await settled(self._link.operations.ready(Nothing(), _CALLER))
        self._allocated()

    async def reserve(self, seconds: int) -> None:
        """`Reserve`: not to be allocated for so many seconds, then `Ready` again; 0: until the game says otherwise."""
        if seconds < 0:
            raise AgonesError("INVALID_ARGUMENT", "cannot reserve: seconds takes 0 or more")
        self._was_ready = True
        await settled(self._link.operations.ready(Nothing(), _CALLER))
        self._leave_reserved()
        self._state = "Reserved"
        if seconds:
            seconds = min(seconds, 7 * 86400)
            self._reserved_until = self._link.wall() + seconds
            self._timer = asyncio.get_running_loop().call_later(seconds, self._reservation_over)
        self._moved()

    async def shutdown(self) -> None:
        """`Shutdown`: our stop, with self-stop and all that belongs to it."""
        await settled(self._link.operations.stop(StopInput(reason="Agones SDK: Shutdown"), _CALLER))
        self._moved()

    async def health(self) -> None:
        """`Health`: a heartbeat."""
        await settled(self._link.operations.health(Nothing(), _CALLER))

    def set_metadata(self, kind: str, key: str, value: str) -> None:
        """`SetLabel` and `SetAnnotation`."""
        held = self._labels if kind == "label" else self._annotations
        if len(held) >= _METADATA_LIMIT and PREFIX + key not in held:
            raise AgonesError("FAILED_PRECONDITION", f"cannot set a {kind}: there are {_METADATA_LIMIT} already")
        held[PREFIX + key] = value
        self._moved()

    def gameserver(self) -> Json:
        """`GetGameServer`: the whole of it."""
        link, deployment = self._link, self._link.deployment
        address = deployment.public_ip or "127.0.0.1"
        addresses = [{"type": "ExternalIP", "address": address}]
        if deployment.fqdn:
            addresses.append({"type": "ExternalDNS", "address": deployment.fqdn})
        report = link.report
        return {
            "object_meta": {
                "name": deployment.request_id or "local",
                "namespace": "default",
                "uid": link.ids.get("agones_uid", ""),
                "resource_version": str(self._generation),
                "generation": str(self._generation),
                "creation_timestamp": str(self._created),
                "deletion_timestamp": "0",
                "annotations": dict(self._annotations),
                "labels": dict(self._labels),
            },
            "spec": {
                "health": {
                    "disabled": not self._health.period,
                    "period_seconds": round(self._health.period),
                    "failure_threshold": self._health.threshold,
                    "initial_delay_seconds": round(self._health.delay),
                }
            },
            "status": {
                "state": self.state,
                "address": address,
                "addresses": addresses,
                "ports": [
                    {"name": port.name, "port": port.external or port.internal} for port in deployment.ports.values()
                ],
                "players": {
                    "count": str(report.count),
                    "capacity": str(self.capacity()),
                    "ids": list(report.ids),
                },
                "counters": {name: counter.shown() for name, counter in self._counters.items()},
                "lists": {name: found.shown() for name, found in self._lists.items()},
            },
        }

    @property
    def state(self) -> str:
        """Agones' word for where the deployment is."""
        phase = self._link.phase()
        if phase in ENDING:
            return "Unhealthy" if self._lost_health() else "Shutdown"
        if phase in (Phase.READY, Phase.DRAINING):
            return self._state or "Ready"
        return "Starting"

    async def watch(self) -> AsyncGenerator[Json, None]:
        """`WatchGameServer`: as it is now, then at each change."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            while True:
                changed.clear()
                yield self.gameserver()
                await changed.wait()
        finally:
            self._watchers.discard(changed)

    # Players ----------------------------------------------------------------------------------------------------------

    async def connect(self, player: str) -> bool:
        """`PlayerConnect`: whether that is news."""
        if player in self._link.report.ids:
            return False
        await self._say_capacity()
        await settled(self._link.operations.players_join(_player(player), _CALLER))
        return True

    async def disconnect(self, player: str) -> bool:
        """`PlayerDisconnect`: whether that is news."""
        known = player in self._link.report.ids
        await settled(self._link.operations.players_leave(_player(player), _CALLER))
        return known

    async def set_capacity(self, capacity: int) -> None:
        """`SetPlayerCapacity`; less than play now is allowed, and lets nobody in until enough have left."""
        _in_range("count", capacity)
        if capacity < 0:
            raise AgonesError("INVALID_ARGUMENT", "cannot set the players' capacity: count takes 0 or more")
        self._capacity = capacity
        if capacity >= self._link.report.count:
            await self._say_capacity()
        self._moved()

    def capacity(self) -> int:
        """`GetPlayerCapacity`: 0 where nobody said."""
        said = self._link.report.capacity if self._capacity is None else self._capacity
        return said or 0

    def players(self) -> list[str]:
        """`GetConnectedPlayers`."""
        return list(self._link.report.ids)

    async def _say_capacity(self) -> None:
        if self._capacity is None:
            return
        capacity = min(self._capacity, MAX_PLAYERS)
        if self._link.report.capacity != capacity:
            given = PlayersInput(capacity=capacity)
            await settled(self._link.operations.players_set(given, _CALLER))

    # Counters and lists -----------------------------------------------------------------------------------------------

    def counter(self, name: str) -> Json:
        """`GetCounter`."""
        return {"name": name, **self._counter(name).shown()}

    async def update_counter(self, name: str, given: Mapping[str, Any]) -> Json:
        """`UpdateCounter`: a count, a capacity, a difference, or several of them; all or none of it."""
        counter = self._counter(name)
        capacity = int64(given, "capacity", counter.capacity)
        count = int64(given, "count", counter.count) + int64(given, "countDiff", int64(given, "count_diff", 0))
        if capacity < 0:
            raise AgonesError("OUT_OF_RANGE", f"cannot update counter {name}: capacity {capacity} is less than 0")
        if "capacity" in given and not ({"count", "countDiff", "count_diff"} & set(given)):
            count = min(count, capacity)  # a smaller capacity cuts the count, as Agones does
        if not 0 <= count <= capacity:
            raise AgonesError(
                "OUT_OF_RANGE", f"cannot update counter {name}: count {count} is not within 0 to {capacity}"
            )
        counter.count, counter.capacity = count, capacity
        await self._counted("counter", name, count, capacity)
        return self.counter(name)

    def list(self, name: str) -> Json:
        """`GetList`."""
        return {"name": name, **self._list(name).shown()}

    async def update_list(self, name: str, given: Mapping[str, Any], fields: set[str]) -> Json:
        """`UpdateList`: the fields named are set; values beyond the capacity are cut off, as Agones does."""
        found = self._list(name)
        if unknown := fields - {"capacity", "values", "name"}:
            raise AgonesError("INVALID_ARGUMENT", f"cannot update list {name}: {min(unknown)} is no field of it")
        capacity = int64(given, "capacity", 0) if "capacity" in fields else found.capacity
        if not 0 <= capacity <= LIST_LIMIT:
            raise AgonesError("OUT_OF_RANGE", f"cannot update list {name}: capacity takes 0 to {LIST_LIMIT}")
        values = found.values
        if "values" in fields:
            values = given.get("values") or []
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise AgonesError("INVALID_ARGUMENT", f"cannot update list {name}: values takes texts")
            values = [*dict.fromkeys(values)]
        found.values, found.capacity = values[:capacity], capacity
        await self._listed(name)
        return self.list(name)

    async def add_value(self, name: str, value: str) -> Json:
        """`AddListValue`."""
        found = self._list(name)
        if value in found.values:
            raise AgonesError("ALREADY_EXISTS", f"cannot add to list {name}: {value!r} is there already")
        if len(found.values) >= found.capacity:
            raise AgonesError("OUT_OF_RANGE", f"cannot add to list {name}: all {found.capacity} places are taken")
        found.values.append(value)
        await self._listed(name)
        return self.list(name)

    async def remove_value(self, name: str, value: str) -> Json:
        """`RemoveListValue`."""
        found = self._list(name)
        if value not in found.values:
            raise AgonesError("NOT_FOUND", f"cannot remove from list {name}: {value!r} is not there")
        found.values.remove(value)
        await self._listed(name)
        return self.list(name)

    def _counter(self, name: str) -> Counter:
        if name not in self._counters:
            raise AgonesError("NOT_FOUND", f"cannot find counter {name}: AGENT_AGONES_COUNTERS does not have it")
        return self._counters[name]

    def _list(self, name: str) -> List:
        if name not in self._lists:
            raise AgonesError("NOT_FOUND", f"cannot find list {name}: AGENT_AGONES_LISTS does not have it")
        return self._lists[name]

    async def _listed(self, name: str) -> None:
        found = self._lists[name]
        await self._counted("list", name, len(found.values), found.capacity)

    async def _counted(self, kind: str, name: str, count: int, capacity: int) -> None:
        """A counter or list as figures for Prometheus, and as players where it is called so."""
        labels = {"name": name}
        try:
            figures = MetricsInput.model_validate(
                {
                    f"agones_{kind}": {"value": count, "labels": labels},
                    f"agones_{kind}_capacity": {"value": capacity, "labels": labels},
                }
            )
            await settled(self._link.operations.metrics(figures, _CALLER))
        except (OperationError, ValueError) as problem:
            log.warning(f"cannot show {kind} {name} of Agones as a metric: {problem}")
        if name == PLAYERS:
            try:
                given = PlayersInput(count=count, capacity=max(count, capacity))
                await settled(self._link.operations.players_set(given, _CALLER))
            except (OperationError, ValueError) as problem:
                log.warning(f"cannot count {name} of Agones as players: {problem}")
        self._moved()

    # The lifecycle, the other way -------------------------------------------------------------------------------------

    def on_change(self) -> None:
        """See `Host`."""
        if self._link.phase() is Phase.STARTING and self._was_ready:
            # The game was started again and has said nothing yet.
            self._leave_reserved()
            self._was_ready = False
            self._moved()
        self._tell()

    def ask_to_stop(self, seconds: float) -> str:
        """`Shutdown` in the state, for who watches; the phase says it already."""
        self._tell()
        return "" if self._watchers else "nobody watches the game server (WatchGameServer)"

    def snapshot(self) -> Json:
        """See `Host`."""
        return {
            "labels": self._labels,
            "annotations": self._annotations,
            "counters": {name: [each.count, each.capacity] for name, each in self._counters.items()},
            "lists": {name: [each.values, each.capacity] for name, each in self._lists.items()},
            "capacity": self._capacity,
            "created": self._created,
            "state": self._state,
            "reserved_until": self._reserved_until,
            "was_ready": self._was_ready,
            "generation": self._generation,
            "armed": self._armed,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See `Host`."""
        self._labels, self._annotations = dict(saved["labels"]), dict(saved["annotations"])
        self._counters = {name: Counter(count, capacity) for name, (count, capacity) in saved["counters"].items()}
        self._lists = {name: List(list(values), capacity) for name, (values, capacity) in saved["lists"].items()}
        self._capacity, self._created = saved["capacity"], saved["created"]
        self._state, self._was_ready = saved["state"], saved["was_ready"]
        self._generation = saved["generation"]
        self._reserved_until = saved["reserved_until"]
        if self._state == "Reserved" and self._reserved_until:
            left = max(0.0, self._reserved_until - self._link.wall())
            self._timer = asyncio.get_running_loop().call_later(left, self._reservation_over)
        if saved["armed"]:
            self._arm()

    async def close(self) -> None:
        """See `Host`."""
        self._leave_reserved()
        await self._tasks.close()

    def heard(self) -> None:
        """The game speaks Agones: from now on its health is expected, as Agones does from the start."""
        if not self._armed:
            self._arm()
            self._tasks.start(self._first_health(), "agones health")
            for name in self._lists:
                self._tasks.start(self._listed(name), "agones list")
            for name, counter in self._counters.items():
                shown = self._counted("counter", name, counter.count, counter.capacity)
                self._tasks.start(shown, "agones counter")

    def _arm(self) -> None:
        self._armed = True
        if self._health.period and self._health.threshold:
            self._link.limit_health(self._health.period * self._health.threshold)

    async def _first_health(self) -> None:
        """The game's first call counts as a heartbeat, and once more when the initial delay is over."""
        if not (self._health.period and self._health.threshold):
            return
        beats = self._link.report.heartbeats
        await self.health()
        await asyncio.sleep(self._health.delay)
        if self._link.report.heartbeats == beats + 1:
            await self.health()

    def _lost_health(self) -> bool:
        stop = self._link.operations.status(Nothing(), _CALLER).stop
        return stop is not None and str(stop.reason) == "heartbeat_lost"

    def _allocated(self) -> None:
        self._state = "Allocated"
        self._annotations[LAST_ALLOCATED] = datetime.fromtimestamp(self._link.wall(), UTC).isoformat()
        self._moved()

    def _leave_reserved(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._state, self._reserved_until = "", 0.0

    def _reservation_over(self) -> None:
        self._leave_reserved()
        self._moved()

    def _moved(self) -> None:
        self._link.changed()
        self._tell()

    def _tell(self) -> None:
        """Tells who watches, where there is something to tell."""
        shown = self.gameserver()
        del shown["object_meta"]["resource_version"], shown["object_meta"]["generation"]
        if shown == self._shown:
            return
        self._shown = shown
        self._generation += 1
        for changed in self._watchers:
            changed.set()

    # The transports ---------------------------------------------------------------------------------------------------

    async def _serve_http(self, sock: Any) -> Closable:
        from agent.compat import agones_rest as rest  # noqa: PLC0415 - it imports this module

        return await rest.server(self, self._link).start(sock)

    async def _serve_grpc(self, sock: Any) -> Closable:
        try:
            from agent.compat import agones_grpc  # noqa: PLC0415 - grpclib and protobuf, which only this needs
        except ImportError:
            raise AgentError(
                "grpclib and protobuf are not installed; in an image, build the agent's with EXTRAS=agones, elsewhere "
                f"{how_to_install('agones')}; or use REST"
            ) from None
        server: Closable = await agones_grpc.serve(self, sock, self._link.on_request)
        return server


def failure(problem: OperationError | AgonesError) -> tuple[str, str]:
    """The name of gRPC's code, and the words, for what could not be done."""
    if isinstance(problem, AgonesError):
        return problem.code, str(problem)
    return _KINDS.get(problem.kind, "UNKNOWN"), str(problem)


def int64(given: Mapping[str, Any], name: str, default: int) -> int:
    """A whole number of 64 bits, as JSON has it for protocol buffers: a number or text."""
    value = given.get(name, default)
    if (isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value)) or (
        isinstance(value, float) and value.is_integer()
    ):
        value = int(value)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool):
        raise AgonesError("INVALID_ARGUMENT", f"cannot read {name}: it takes a whole number, or one as text")
    _in_range(name, value)
    return value


def _in_range(name: str, value: int) -> None:
    if not -INT64 <= value < INT64:
        raise AgonesError("INVALID_ARGUMENT", f"cannot read {name}: it takes a number of 64 bits")


def _player(player: str) -> PlayerInput:
    try:
        return PlayerInput(id=player)
    except ValueError:
        raise AgonesError("INVALID_ARGUMENT", "cannot read playerID: it takes 1 to 128 printable characters") from None


def _match_annotations(link: Link) -> dict[str, str]:
    """What the matchmaker injected, where a game made for Agones looks for what came with its allocation."""
    match = link.deployment.match
    found = {f"edgegap.com/ticket-{name}": json.dumps(ticket) for name, ticket in match.tickets.items()}
    if match.match_id:
        found["edgegap.com/match-id"] = match.match_id
    if match.profile is not None:
        found["edgegap.com/match-profile"] = (
            match.profile if isinstance(match.profile, str) else json.dumps(match.profile)
        )
    if match.ticket_ids:
        found["edgegap.com/ticket-ids"] = json.dumps(match.ticket_ids)
    return found
