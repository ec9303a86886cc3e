"""What the vendor's own tools and others' call, replayed: one recording for each kind of client.

A recording is a life in the client's own manner: its header, its paths, its bodies, with values of our own; start-up,
deploy, wait, stop. Every answer is checked against the document, and what the client reads of it is looked at.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.edgegap.client import EdgegapClient
from agent.edgegap.models import RelaySessionCreate, RelayUser, VersionUpdate
from agent.emulator.tls import prepare
from tests.contract.backend import CONTRACT, PLAYER, backend, poll, quick

READY = "Status.READY"


@dataclass(frozen=True)
class Ask:
    """One call of a client: what it sends, and what it insists on in the answer."""

    method: str
    path: str
    body: Any = None
    status: int = 200
    reads: Mapping[str, type] = field(default_factory=dict)
    """Members that the client takes, and what it takes them for."""


@dataclass(frozen=True)
class Client:
    """A kind of client: its headers and its start, with `{app}`, `{version}` and `{id}` filled in."""

    name: str
    headers: dict[str, str]
    start: Sequence[Ask]
    deploy: Ask
    stop: Ask = Ask("DELETE", "/v1/stop/{id}", reads={"message": str})


JSON = {"Content-Type": "application/json", "Accept": "application/json"}
USER = {"user_type": "ip_address", "user_data": {"ip_address": "198.51.100.23"}}
CREDENTIALS = {"registry_url": str, "project": str, "username": str, "token": str}
V2 = {"application": "{app}", "version": "{version}", "users": [USER]}
VERSION = {
    "name": "replayed",
    "req_cpu": 256,
    "req_memory": 512,
    "docker_repository": "registry.example.com",
    "docker_image": "studio/server",
    "docker_tag": "7",
    "private_username": "robot",
    "private_token": "hush",
    "max_duration": 60,
    "ports": [{"port": 7777, "protocol": "UDP", "to_check": True, "name": "gameport"}],
}


def _sign_in(source: str, query: str = "") -> list[Ask]:
    return [
        Ask("POST", "/v1/wizard/init-quick-start", {"source": source}, 204),
        Ask("GET", f"/v1/wizard/registry-credentials{query}", reads=CREDENTIALS),
    ]


CLIENTS = [
    Client(
        "game backend's plugin",
        {},
        [Ask("GET", "/v1/app/{app}/version/{version}", reads={"name": str, "create_time": str})],
        Ask(
            "POST",
            "/beta/deployments",
            {
                "application_name": "{app}",
                "version": "{version}",
                "users": [{"ip_address": "198.51.100.23"}],
                "environment_variables": [{"key": "EVENT_URL", "value": "http://127.0.0.1:9/e", "is_hidden": True}],
                "tags": ["backend"],
                "webhook": {"url": "http://127.0.0.1:9/ready"},
            },
            202,
            {"request_id": str},
        ),
    ),
    Client(
        "Unity's plugin",
        JSON,
        [
            *_sign_in("unity"),
            Ask("GET", "/v1/apps?limit=100", reads={"applications": list, "total_count": int}),
            Ask("GET", "/v1/app/{app}", reads={"name": str, "is_active": bool, "create_time": str}),
            Ask("POST", "/v1/app/{app}/version", VERSION, reads={"success": bool, "version": dict}),
            Ask("PATCH", "/v1/app/{app}/version/replayed", {"docker_tag": "8"}, reads={"success": bool}),
        ],
        Ask("POST", "/v1/deploy", {"app_name": "{app}", "version_name": "{version}", "ip_list": ["198.51.100.23"]}),
    ),
    Client(
        "Unreal's plugin",
        {"User-Agent": "X-UnrealEngine-Agent", **JSON},
        [*_sign_in("unreal", "?source=unreal"), Ask("GET", "/v1/apps", reads={"applications": list})],
        Ask("POST", "/v2/deployments", {**V2, "tags": ["unreal"]}, 202, {"request_id": str}),
    ),
    Client(
        "Godot's plugin",
        {"Accept": "application/json"},
        [*_sign_in("unity"), Ask("GET", "/v1/apps"), Ask("GET", "/v1/ip", reads={"public_ip": str})],
        Ask("POST", "/v2/deployments", {**V2, "tags": ["godot"]}, 202, {"request_id": str}),
    ),
    Client(
        "an assistant's tools",
        JSON,
        [
            Ask("GET", "/v1/wizard/registry-credentials", status=404),
            *_sign_in("mcp"),
            Ask("GET", "/v1/container-registry/images/studio/server/tags", reads={"data": list}),
            Ask("GET", "/v1/app/{app}/versions", reads={"versions": list}),
        ],
        Ask("POST", "/v2/deployments", V2, 202, {"request_id": str}),
    ),
    Client(
        "a generated client in Go",
        {"User-Agent": "OpenAPI-Generator/1.0.0/go", "Accept": "application/json"},
        [
            Ask(
                "GET", "/v1/apps?limit=10&page=1", reads={"applications": list, "pagination": dict, "total_count": int}
            ),
            Ask("GET", "/v1/app/{app}/versions", reads={"versions": list, "pagination": dict}),
            Ask("GET", "/v1/locations?type=cloud", reads={"locations": list}),
        ],
        Ask(
            "POST",
            "/v2/deployments",
            {**V2, "require_cached_locations": False, "environment_variables": [], "tags": ["go"]},
            202,
            {"request_id": str},
        ),
    ),
    Client(
        "a generated client in Rust, which writes nulls for what may be null",
        {"User-Agent": "OpenAPI-Generator/1.0.0/rust", "Accept": "*/*"},
        [Ask("GET", "/v1/app/{app}/version/{version}", reads={"req_cpu": int, "ports": list, "is_active": bool})],
        Ask("POST", "/v2/deployments", {**V2, "require_cached_locations": None}, 202, {"request_id": str}),
    ),
    Client(
        "a kit with a base URL that ends in a slash",
        JSON,
        [
            Ask("GET", "//v1/apps", reads={"applications": list}),
            Ask("GET", "//v1/locations", reads={"locations": list}),
            Ask("GET", "/v1/locations/beacons/", reads={"locations": list, "count": int}),
        ],
        Ask(
            "POST",
            "//v1/deploy",
            {
                "app_name": "{app}",
                "geo_ip_list": [{"ip": "198.51.100.23", "latitude": 43.6, "longitude": -79.4}],
                "env_vars": [{"key": "MODE", "value": "duel"}],
                "tags": ["kit"],
                "skip_telemetry": True,
                "filters": [{"field": "country", "values": ["Canada"], "filter_type": "any"}],
            },
            200,
            {"request_id": str, "request_dns": str, "request_version": str, "city": str},
        ),
    ),
]


def _filled(value: Any, names: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, given in names.items():
        text = text.replace("{" + name + "}", given)
    return json.loads(text)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
async def test_a_client_starts_deploys_waits_and_stops(client: Client) -> None:
    """From its first call to the end of its deployment, everything it asks for is answered as it reads it."""
    async with backend() as caller, aiohttp.ClientSession(headers=client.headers) as session:
        names = {"app": "game", "version": await caller.version()}

        async def ask(one: Ask) -> Any:
            one = replace(one, path=_filled(one.path, names), body=_filled(one.body, names))
            body = None if one.body is None else json.dumps(one.body)
            headers = {**caller.emulator.authorization, **({"Content-Type": "application/json"} if body else {})}
            async with session.request(one.method, caller.emulator.url + one.path, data=body, headers=headers) as got:
                text = await got.text()
            answer: Any = json.loads(text) if text else None
            path = one.path.partition("?")[0].replace("//", "/").rstrip("/")
            CONTRACT.check(one.method, path.replace("studio/server", "server"), got.status, answer)
            assert got.status == one.status, (one, answer)
            for name, kind in one.reads.items():
                assert isinstance(answer[name], kind), (one, name)
            return answer

        for one in client.start:
            await ask(one)
        names["id"] = (await ask(client.deploy))["request_id"]
        status = Ask("GET", "/v1/status/{id}", reads={"whitelisting_active": bool, "fqdn": str, "ports": dict})
        await poll(lambda: ask(status), lambda seen: seen["current_status"] == READY)
        listed = await ask(Ask("GET", "/v1/deployments?page=1", reads={"data": list, "pagination": dict}))
        assert [(each["request_id"], each["status"]) for each in listed["data"]] == [(names["id"], READY)]
        stopped = await ask(client.stop)
        assert stopped["deployment_summary"]["whitelisting_active"] is False
        ended = await poll(lambda: ask(status), lambda seen: seen["current_status"] == "Status.TERMINATED")
        assert ended["removal_time"] > ended["start_time"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/ip/203.0.113.7/lookup"), ("POST", "/v1/lobbies"), ("GET", "/v1/fleets"), ("GET", "/v1/aom/x")],
)
async def test_what_is_not_served_is_said_and_not_called_missing(method: str, path: str) -> None:
    """501 with the operation: clients explain a 404 as an application that does not exist."""
    async with backend() as caller:
        answer = await caller.call(method, path)
        assert answer.status == 501
        assert answer.body["message"].startswith("cannot do this here: the emulator does not serve")
        assert f"{method} {path}" in answer.body["message"]


async def test_a_catalogue_is_changed_and_emptied_again() -> None:
    """PATCH keeps what it does not name and checks what it does; DELETE takes along what belongs to it."""
    async with backend() as caller:
        name = await caller.version(envs=[{"key": "A", "value": "hush", "is_secret": True}], force_cache=True)
        path = f"/v1/app/game/version/{name}"
        before = await caller.get(path)
        assert (before["force_cache"], before["caching_percent"], before["envs"]) == (True, 1.0, [])
        changed = (await caller.call("PATCH", path, {"docker_tag": "2"})).body["version"]
        differs = {key for key in before if before[key] != changed[key]}
        assert differs == {"docker_tag", "last_updated"}
        assert (await caller.call("PATCH", path, {"req_memory": 100_000})).status == 400
        assert (await caller.call("PATCH", "/v1/app/game", {"name": "arena", "is_active": False})).status == 200
        assert (await caller.call("GET", path)).status == 404
        assert (await caller.call("DELETE", f"/v1/app/arena/version/{name}")).body["success"] is True
        assert (await caller.call("DELETE", "/v1/app/arena")).body is None
        assert (await caller.call("DELETE", "/v1/app/arena")).status == 404


async def test_storages_and_their_pull_profiles_are_kept_linked_and_deleted() -> None:
    """Everything that the document has of them; a second storage of a name is 400, as it has no 409."""
    async with backend() as caller:
        name = await caller.version()
        body = {"name": "s", "access_key_id": "a", "secret_access_key": "hush", "endpoint": "file:///x", "bucket": "b"}
        assert [(await caller.call("POST", "/v1/storage/endpoint", body)).status for _ in range(2)] == [200, 400]
        storage = "/v1/storage/endpoint/s"
        assert (await caller.call("PATCH", storage, {"bucket": "c"})).body["bucket"] == "c"
        profile = {"name": "maps", "source": "maps", "source_type": "Folder", "destination": "/maps"}
        assert (await caller.call("POST", f"{storage}/pull-profile", profile)).status == 200
        link = f"{storage}/pull-profile/maps/app/game/version/{name}"
        assert (await caller.call("PUT", link)).body["app_version"] == name
        assert [(await caller.call("DELETE", link)).status for _ in range(2)] == [204, 404]
        assert len((await caller.get(f"{storage}/pull-profiles"))["pull_profiles"]) == 1
        assert (await caller.call("DELETE", storage)).status == 204
        assert (await caller.call("GET", storage)).status == 404


async def test_resources_of_a_deployment_replace_those_of_its_version_within_bounds() -> None:
    """What a client asks for is used, or refused by name; never ignored."""
    async with backend() as caller:
        version = await caller.version()
        deployment = caller.inner(await caller.deploy(version, resources={"cpu_units": 512, "memory_mib": 640}))
        assert (deployment.version.req_cpu, deployment.version.req_memory) == (512, 640)
        body = {"application": "game", "version": version, "users": [PLAYER], "resources": {"memory_mib": 9000}}
        refused = await caller.call("POST", "/v2/deployments", body)
        assert refused.status == 400
        assert "req_memory" in refused.body["message"]


async def test_what_nothing_reads_is_remarked_on_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Unknown members, known ones without effect, and parameters: a warning on log and page; with `strict`, 400."""
    body = {"name": "game", "is_active": True, "image": "", "colour": "red", "is_telemetry_agent_active": True}
    async with backend() as caller:
        assert (await caller.call("POST", "/v1/app", body)).status == 200
        await caller.get("/v1/apps", sort="name")
        assert caller.emulator.platform.warnings == [
            "createApplication: ignored colour (unknown)",
            "createApplication: ignored is_telemetry_agent_active (without effect here)",
            "listApplications: ignored the query's sort (unknown)",
        ]
        assert "colour" in caplog.text
    async with backend(quick(strict=True)) as caller:
        refused = await caller.call("POST", "/v1/app", body)
        assert refused.status == 400
        assert "colour (unknown)" in refused.body["message"]
        assert (await caller.get("/v1/apps"))["total_count"] == 0


async def test_an_empty_list_of_values_stops_nothing() -> None:
    """Whatever the kind of filter: it is a list that somebody forgot to fill."""
    async with backend() as caller:
        deployment_id = await caller.running()
        for kind in ("any", "all", "not"):
            body: Any = {"filters": [{"field": "request_id", "filter_type": kind, "values": []}]}
            answer = await caller.call("POST", "/v1/deployments/bulk-stop", body)
            assert (answer.status, answer.body) == (202, {"processable": []})
        assert (await caller.status(deployment_id))["current_status"] == READY


async def test_beacons_answer_pings_over_udp_and_tcp() -> None:
    """What is sent comes back, from the ports that the list names."""
    async with backend() as caller:
        beacons = (await caller.get("/v1/locations/beacons"))["locations"]
        assert len(beacons) >= 3
        beacon = beacons[0]
        reader, writer = await asyncio.open_connection(beacon["host"], beacon["tcp_port"])
        writer.write(b"Ping")
        assert await reader.readexactly(4) == b"Ping"
        writer.close()
        with _udp(beacon["host"], beacon["udp_port"]) as sock:
            sock.send(b"Ping")
            assert await _received(sock) == b"Ping"
        assert (await caller.get("/v1/locations/beacons", limit="2", page="2"))["count"] == 2


def _udp(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect((host, port))
    return sock


async def _received(sock: socket.socket) -> bytes:
    async with asyncio.timeout(20):
        return await asyncio.get_running_loop().sock_recv(sock, 2048)


async def test_a_relay_forwards_between_its_players_and_lets_nobody_else_in() -> None:
    """Pings are answered, data goes both ways with the number of its connection, a revoked player is out."""
    async with backend() as caller, EdgegapClient(caller.emulator.token, caller.emulator.url) as client:
        users = [RelayUser(ip="198.51.100.1"), RelayUser(ip="198.51.100.2")]
        made = await client.create_relay_session(RelaySessionCreate(users=users))
        assert not made.ready
        session = await poll(lambda: client.get_relay_session(made.session_id), lambda seen: seen.ready)
        assert session.relay is not None
        assert session.relay.ports is not None
        ports = session.relay.ports
        assert ports.server is not None
        assert ports.client is not None
        host, guest = (user.authorization_token or 0 for user in session.session_users)

        def head(user: int, kind: int) -> bytes:
            return struct.pack("<IIB", user, session.authorization_token or 0, kind)

        with _udp("127.0.0.1", ports.server.port or 0) as server, _udp("127.0.0.1", ports.client.port or 0) as player:
            for sock, user in ((server, host), (player, guest)):
                sock.send(head(user, 1))
                assert await _received(sock) == b"\x01\x02"
            player.send(head(guest, 2) + b"hello")
            received = await _received(server)
            assert (received[:1], received[5:]) == (b"\x02", b"hello")
            server.send(head(host, 2) + received[1:5] + b"welcome")
            assert await _received(player) == b"\x02welcome"
            await client.revoke_relay_user(session.session_id, guest)
            player.send(head(guest, 1))
            assert await _received(player) == b"\x01\x03"
        late = await client.authorize_relay_user(session.session_id, "198.51.100.3")
        assert late.session_user is not None
        assert len(await client.list_relay_sessions().first()) == 1
        await client.delete_relay_session(session.session_id)
        assert (await caller.call("GET", f"/v1/relays/sessions/{session.session_id}")).status == 404
        await client.update_version("game", await caller.version(), VersionUpdate(docker_tag="9"))


@pytest.mark.parametrize(
    ("domain", "name"),
    [("", lambda _: "127.0.0.1"), ("localhost", lambda i: f"{i}.localhost"), ("pr.edgegap.net", None)],
)
async def test_the_name_of_a_deployment_can_lead_here(domain: str, name: Callable[[str], str] | None) -> None:
    """The address itself, a domain of choice, or the platform's own."""
    async with backend(quick(domain=domain)) as caller:
        port = {"port": 0, "protocol": "TCP", "name": "game"}
        deployment_id = await caller.running(ports=[port])
        status = await caller.status(deployment_id)
        wanted = name(deployment_id) if name else f"{deployment_id}.pr.edgegap.net"
        assert status["fqdn"] == wanted
        assert status["ports"]["game"]["link"].startswith(f"{wanted}:")


async def test_https_is_served_under_the_platforms_own_name(tmp_path: Path) -> None:
    """A client that trusts the authority, and is led here, sees a valid certificate for api.edgegap.com."""
    directory = tmp_path / "authority"
    async with backend(quick(tls_port=0, tls_directory=str(directory))) as caller:
        platform = caller.emulator.platform
        context = ssl.create_default_context(cafile=platform.tls_authority)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", platform.tls_port, ssl=context, server_hostname="api.edgegap.com"
        )
        token = caller.emulator.token
        lines = ["GET /v1/ip HTTP/1.1", "Host: api.edgegap.com", f"Authorization: token {token}", "Connection: close"]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert b'"public_ip"' in await reader.read()
        writer.close()
    assert (directory / "authority.key").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    before = (directory / "authority.pem").read_bytes()
    prepare(str(directory))
    assert (directory / "authority.pem").read_bytes() == before, "it has to be trusted once only"


@pytest.mark.parametrize(
    "lines",
    [
        ["GET http://localhost:{port}/emulator/requests HTTP/1.1", "Host: evil.example"],
        ["GET /emulator/requests HTTP/1.1", "Host: localhost:{port}", "Origin: http://localhost:{port}", "Origin: x"],
        ["GET /emulator/requests HTTP/1.1", "Host: evil.example"],
    ],
)
async def test_another_sites_page_does_not_reach_the_emulators_own_paths(lines: list[str]) -> None:
    """Neither by a whole URL as the target, nor by a second Origin, nor by a name that leads here."""
    async with backend() as caller:
        port = int(caller.emulator.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write("\r\n".join([*(line.format(port=port) for line in lines), "Connection: close", "", ""]).encode())
        status = (await reader.read()).split(b" ")[1]
        writer.close()
        assert status in {b"400", b"401", b"403"}
