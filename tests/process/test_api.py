"""The local API as a game in any language meets it: HTTP, the socket and the command line do the same thing."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import INJECTED, FakePlatform
from tests.process.harness import COMMAND, DEADLINE, Answer, Launcher, Run, base_environment, eventually, game

PLATFORM = {**INJECTED, "ARBITRIUM_HOST_BEACON_ENABLED": "", "MM_TICKET_IDS": '["a", "b"]'}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One running agent for all tests here that change nothing, or only what they set themselves."""
    with Launcher(tmp_path_factory.mktemp("api")) as launcher:
        run = launcher(game("ignores_sigterm"), env=PLATFORM, mode="subreaper")
        run.wait_for("ready")
        yield run


@pytest.fixture
def fresh(launch: Launcher) -> Run:
    """A running agent of the test's own."""
    run = launch(game("polite"), env=PLATFORM, mode="subreaper")
    run.wait_for("ready")
    return run


def is_problem(answer: Answer) -> dict[str, Any]:
    """Check that an answer is an RFC 9457 problem document that a person can act on; returns it."""
    assert answer.type == "application/problem+json", (answer.status, answer.type, answer.body)
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status
    assert problem["title"]
    assert problem.get("type")
    assert problem.get("detail", problem["title"])
    return problem


def phase(run: Run) -> str:
    """The lifecycle phase as the API reports it."""
    return str(run.http("GET", "/v1/status").json()["phase"])


class TestOperations:
    """Each row of the table of operations, over HTTP and over the socket."""

    def test_ready_over_http(self, fresh: Run) -> None:
        """`POST /v1/ready` makes the game ready, twice makes no difference, and `/readyz` follows."""
        assert phase(fresh) == "starting"
        assert fresh.http("GET", "/readyz").status == 503
        for _ in range(2):
            assert fresh.http("POST", "/v1/ready").status in {200, 202, 204}
            assert phase(fresh) == "ready"
        assert fresh.http("GET", "/readyz").status == 200

    def test_ready_over_the_socket(self, fresh: Run) -> None:
        """The same through JSON-RPC, seen by HTTP."""
        with fresh.rpc() as rpc:
            assert "result" in rpc.call("ready")
            assert rpc.call("status")["result"]["phase"] == "ready"
        assert fresh.http("GET", "/readyz").status == 200

    def test_readiness_ends_with_a_stop(self, launch: Launcher) -> None:
        """A game that is being stopped takes no new players: `/readyz` is 503, while `/healthz` is still 200."""
        run = launch(game("ignores_sigterm"), env={"AGENT_GRACE_SECONDS": "3600"}, mode="subreaper")
        run.wait_for("ready")
        run.http("POST", "/v1/ready")
        run.http("POST", "/v1/stop")
        assert run.http("GET", "/readyz").status == 503
        assert run.http("GET", "/healthz").status == 200
        assert run.http("POST", "/v1/ready").status < 500
        assert run.http("GET", "/readyz").status == 503, "ready comes too late to undo a stop"

    def test_health(self, shared: Run) -> None:
        """A heartbeat is accepted, over both transports, and noted in the status."""
        assert shared.http("POST", "/v1/health").status in {200, 202, 204}
        with shared.rpc() as rpc:
            assert "result" in rpc.call("health")
        assert re.search(r"heartbeat|health", shared.http("GET", "/v1/status").body.decode())

    def test_deployment_is_what_the_platform_injected(self, shared: Run) -> None:
        """`GET /v1/deployment` has every injected value, typed, the same on the socket."""
        seen = shared.http("GET", "/v1/deployment").json()
        with shared.rpc() as rpc:
            assert rpc.call("deployment")["result"] == seen
        text = json.dumps(seen)
        for value in ("23c01225b99d", "172.236.117.196", "chicago-edge-od-1205-e3-30a8e1", "Chicago", "PUBLIC_CLOUD"):
            assert value in text
        for number in (7777, 32013, 1536, 3072, 2000, 41.9981, -88.0219):
            assert re.search(rf"[ \[:]{re.escape(str(number))}(\.0)?[,\]}}]", text), number
        assert '["tag1", "tag2"]' in text

    def test_status_is_the_same_on_both(self, shared: Run) -> None:
        """What HTTP and the socket say of the state has the same fields and the same phase."""
        over_http = shared.http("GET", "/v1/status").json()
        with shared.rpc() as rpc:
            over_socket = rpc.call("status")["result"]
        assert over_http.keys() == over_socket.keys()
        assert over_http["phase"] == over_socket["phase"]

    def test_players(self, fresh: Run) -> None:
        """A count and a capacity can be set; players can join and leave by name; the status has the number."""
        assert fresh.http("PUT", "/v1/players", {"count": 3, "capacity": 10}).status in {200, 204}
        assert players(fresh) == (3, 10)
        with fresh.rpc() as rpc:
            assert "result" in rpc.call("players.set", count=0, capacity=16)
            assert players(fresh) == (0, 16)
            assert "result" in rpc.call("players.join", id="alice")
            assert fresh.http("PUT", "/v1/players/bob").status in {200, 201, 204}
            assert fresh.http("PUT", "/v1/players/bob").status in {200, 201, 204}
            assert players(fresh) == (2, 16)
            assert fresh.http("DELETE", "/v1/players/alice").status in {200, 204}
            assert "result" in rpc.call("players.leave", id="bob")
            assert players(fresh) == (0, 16)

    def test_players_with_awkward_names(self, fresh: Run) -> None:
        """A player's id may hold a slash, a space and letters of any script, and is the same on both transports."""
        assert fresh.http("PUT", "/v1/players/J%C3%BCrgen%20%2F%2042").status in {200, 201, 204}
        with fresh.rpc() as rpc:
            assert "result" in rpc.call("players.leave", id="Jürgen / 42")
        assert players(fresh)[0] == 0

    def test_openapi(self, shared: Run) -> None:
        """`/openapi.json` describes the routes that there are."""
        document = shared.http("GET", "/openapi.json").json()
        assert document["openapi"].startswith("3.")
        routes = {
            "/v1/ready": "post",
            "/v1/health": "post",
            "/v1/stop": "post",
            "/v1/status": "get",
            "/v1/deployment": "get",
            "/v1/players": "put",
            "/v1/events": "get",
            "/healthz": "get",
            "/readyz": "get",
        }
        for route, method in routes.items():
            assert method in document["paths"][route], route

    def test_notifications_get_no_answer(self, shared: Run) -> None:
        """A JSON-RPC message without an id is carried out and not answered: the next answer is to the next question."""
        with shared.rpc() as rpc:
            rpc.send(b'{"jsonrpc": "2.0", "method": "health"}')
            rpc.send(b'{"jsonrpc": "2.0", "method": "no.such.method"}')
            rpc.send(b'{"jsonrpc": "2.0", "id": "text", "method": "status"}')
            answer = rpc.receive()
            assert answer
            assert answer["id"] == "text"

    def test_many_requests_on_one_connection(self, shared: Run) -> None:
        """Lines sent together are answered one by one, each with its own id."""
        with shared.rpc() as rpc:
            lines = [json.dumps({"jsonrpc": "2.0", "id": n, "method": "health"}).encode() for n in range(100)]
            rpc.send(b"\n".join(lines))
            answers = [rpc.receive() for _ in lines]
        assert sorted(answer["id"] for answer in answers if answer) == list(range(100))
        assert all(answer and "result" in answer for answer in answers)


def players(run: Run) -> tuple[int, int | None]:
    """Count and capacity in the status, wherever they are in it."""
    found = run.http("GET", "/v1/status").json()["players"]
    return found["count"], found["capacity"]


BAD_BODIES = [
    ("POST", "/v1/stop", b"{not json", None),
    ("POST", "/v1/stop", b"[]", None),
    ("POST", "/v1/stop", b'"text"', None),
    ("POST", "/v1/stop", {"grace_seconds": "soon"}, "grace_seconds"),
    ("POST", "/v1/stop", {"grace_seconds": -1}, "grace_seconds"),
    ("POST", "/v1/stop", b'{"grace_seconds": NaN}', "grace_seconds"),
    ("POST", "/v1/stop", b'{"grace_seconds": 1e999}', "grace_seconds"),
    ("POST", "/v1/stop", {"reason": 7}, "reason"),
    ("POST", "/v1/stop", {"log_storage": ["a"]}, "log_storage"),
    ("POST", "/v1/stop", {"raeson": "typing error"}, "raeson"),
    ("PUT", "/v1/players", {"count": "many"}, "count"),
    ("PUT", "/v1/players", {"count": -1}, "count"),
    ("PUT", "/v1/players", {"count": 1.5}, "count"),
    ("PUT", "/v1/players", {"count": True}, "count"),
    ("PUT", "/v1/players", {"capacity": {}, "count": 1}, "capacity"),
    ("PUT", "/v1/players", b"", None),
    ("PUT", "/v1/players", b"\xff\xfe", None),
    ("PUT", "/v1/players", b"[" * 100_000, None),
]


class TestBadInput:
    """What is wrong gets an answer that names it, and changes nothing."""

    @pytest.mark.parametrize(("method", "path", "body", "field"), BAD_BODIES)
    def test_http(self, shared: Run, method: str, path: str, body: object, field: str | None) -> None:
        """A problem document with 4xx, which names the field where it is one."""
        before = (phase(shared), players(shared))
        answer = shared.http(method, path, body)
        assert 400 <= answer.status < 500, answer
        problem = is_problem(answer)
        if field:
            assert field in json.dumps(problem)
        assert (phase(shared), players(shared)) == before

    def test_a_body_that_is_too_large(self, shared: Run) -> None:
        """Two megabytes of reason are refused with 413, whether announced or not, and the next request is served."""
        answer = shared.http("POST", "/v1/stop", {"reason": "x" * 2_000_000})
        assert answer.status == 413
        is_problem(answer)
        assert phase(shared) == "starting"

    @pytest.mark.parametrize("path", ["/v0", "/v1", "/v1/nothing", "/v1/players/a/b/c", "/v2/status", "/v1/self/stop"])
    def test_an_unknown_route(self, shared: Run, path: str) -> None:
        """404 as a problem document."""
        answer = shared.http("GET", path)
        assert answer.status == 404
        is_problem(answer)

    @pytest.mark.parametrize(
        ("method", "path"),
        [("GET", "/v1/stop"), ("DELETE", "/v1/status"), ("PATCH", "/v1/players"), ("BREW", "/v1/ready")],
    )
    def test_an_unknown_method(self, shared: Run, method: str, path: str) -> None:
        """405 as a problem document, with the methods that there are."""
        answer = shared.http(method, path)
        assert answer.status == 405
        is_problem(answer)
        assert answer.headers["allow"]

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:9370", "169.254.169.254", "localhost.evil.example", ""]
    )
    def test_a_host_that_is_not_loopback(self, shared: Run, host: str) -> None:
        """A page in somebody's browser, or a rebound name, gets nothing: the Host header has to be loopback."""
        answer = shared.http("POST", "/v1/stop", {}, headers={"Host": host})
        assert 400 <= answer.status < 500
        assert phase(shared) == "starting"
        if host:
            is_problem(answer)

    @pytest.mark.parametrize(
        "host", ["localhost", "localhost:1234", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:9370"]
    )
    def test_a_host_that_is_loopback(self, shared: Run, host: str) -> None:
        """Every spelling of loopback is taken."""
        assert shared.http("GET", "/v1/status", headers={"Host": host}).status == 200

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"{not json", -32700),
            (b"\xff\xfe", -32700),
            (b"[]", -32600),
            (b"7", -32600),
            (b'{"id": 1, "method": "status"}', -32600),
            (b'{"jsonrpc": "1.0", "id": 1, "method": "status"}', -32600),
            (b'{"jsonrpc": "2.0", "id": 1}', -32600),
            (b'{"jsonrpc": "2.0", "id": 1, "method": 5}', -32600),
            (b'{"jsonrpc": "2.0", "id": {}, "method": "status"}', -32600),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "explode"}', -32601),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "stop", "params": {"grace_seconds": "soon"}}', -32602),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "players.set", "params": {"count": -1}}', -32602),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "players.set", "params": [1, 2, 3, 4, 5]}', -32602),
            (b'{"jsonrpc": "2.0", "id": 1, "method": "players.join"}', -32602),
        ],
    )
    def test_socket(self, shared: Run, line: bytes, code: int) -> None:
        """A JSON-RPC error with the code that the standard has for it; the connection stays usable."""
        before = (phase(shared), players(shared))
        with shared.rpc() as rpc:
            rpc.send(line)
            answer = rpc.receive()
            assert answer
            assert answer["jsonrpc"] == "2.0"
            assert answer["error"]["code"] == code, answer
            assert answer["error"]["message"]
            for field in ("grace_seconds", "count"):
                if f'"{field}"'.encode() in line:
                    assert field in json.dumps(answer["error"])
            assert "result" in rpc.call("status")
        assert (phase(shared), players(shared)) == before

    def test_a_line_without_an_end(self, shared: Run) -> None:
        """Ten megabytes without a newline are not collected: an error, or hung up, and everybody else is served."""
        with shared.rpc() as rpc:
            try:
                rpc.send(b"x" * 10_000_000)
                answer = rpc.receive()
            except OSError:
                answer = None
            assert answer is None or "error" in answer
        assert phase(shared) == "starting"

    def test_bytes_that_are_not_http(self, shared: Run) -> None:
        """Garbage on the HTTP port is answered with 400 or hung up on; no traceback, no harm."""
        port = int(shared.game_environment["AGENT_URL"].rpartition(":")[2].strip("/"))
        for garbage in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"HELLO\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\n\r\n",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(65536)
                assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
        assert phase(shared) == "starting"
        assert "Traceback" not in shared.stderr.text

    def test_nothing_of_this_was_a_crash(self, shared: Run) -> None:
        """After all of the above the agent answers and has logged no traceback."""
        assert shared.http("GET", "/healthz").status == 200
        assert "Traceback" not in shared.stderr.text


class TestEvents:
    """What happens is told as it happens, the current state first."""

    def test_server_sent_events(self, launch: Launcher) -> None:
        """A listener first gets the present state, then each change, until the game is stopped and the stream ends."""
        run = launch(game("polite"), mode="subreaper")
        run.wait_for("ready")
        assert run.is_ready_to_answer()
        port = int(run.game_environment["AGENT_URL"].rpartition(":")[2].strip("/"))
        connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        try:
            connection.request("GET", "/v1/events")
            response = connection.getresponse()
            assert response.status == 200
            assert response.getheader("content-type", "").startswith("text/event-stream")
            assert "starting" in next_event(response)
            run.http("POST", "/v1/ready")
            assert "ready" in event_with(response, '"ready"')
            run.http("POST", "/v1/stop", {"reason": "match over"})
            assert "match over" in event_with(response, "match over")
            assert event_with(response, "flushing")
            while response.readline():
                pass
        finally:
            connection.close()
        assert run.finish().code == 0

    def test_subscribe(self, launch: Launcher) -> None:
        """The socket tells the same as notifications, after the answer to `subscribe`."""
        run = launch(game("polite"), mode="subreaper")
        run.wait_for("ready")
        with run.rpc() as rpc, run.rpc() as other:
            assert "result" in rpc.call("subscribe")
            other.call("ready")
            seen = ""
            while '"ready"' not in seen:
                message = rpc.receive()
                assert message is not None
                assert "id" not in message
                assert message["method"]
                seen += json.dumps(message["params"])
            other.call("stop", reason="match over")
            while message := rpc.receive():
                seen += json.dumps(message["params"])
        assert "match over" in seen
        assert "stopping" in seen
        assert run.finish().code == 0

    @pytest.mark.slow
    def test_a_listener_that_does_not_read_harms_nobody(self, launch: Launcher) -> None:
        """A hundred subscribers that never read do not slow others down, grow the agent, or delay its end."""
        run = launch(game("polite"), mode="subreaper")
        run.wait_for("ready")
        assert run.is_ready_to_answer()
        deaf = [run.rpc() for _ in range(100)]
        try:
            for rpc in deaf:
                rpc.send(b'{"jsonrpc": "2.0", "id": 1, "method": "subscribe"}')
            with run.rpc() as rpc:
                for count in range(300):
                    assert "result" in rpc.call("players.set", count=count, capacity=1000)
            assert players(run) == (299, 1000)
            done = run.stop()
            assert done.code == 0
            assert done.seconds <= 5.0
        finally:
            for rpc in deaf:
                rpc.__exit__(None, None, None)


def next_event(stream: HTTPResponse) -> str:
    """The lines of the next server-sent event that is not a comment."""
    lines: list[str] = []
    while line := stream.readline().decode():
        if line.strip():
            lines.append(line)
        elif any(not one.startswith((":", "retry:")) for one in lines):
            return "".join(lines)
        else:
            lines = []
    raise AssertionError(f"the stream ended after {lines}")


def event_with(stream: HTTPResponse, part: str) -> str:
    """The next event that has a part in it."""
    while part not in (event := next_event(stream)):
        pass
    return event


class TestCommandLine:
    """The commands speak to the running agent through the socket that the game's environment names."""

    @pytest.mark.slow
    def test_a_shell_script_can_do_it_all(self, launch: Launcher, platform: FakePlatform) -> None:
        """ready, health, players, status, deployment, healthcheck and stop, as a start script would call them."""
        run = launch(game("polite"), env={**PLATFORM, **platform.environment()}, mode="subreaper")
        run.wait_for("ready")
        # It waits 3 s at most, and on a busy machine the agent's process takes longer than that to start.
        eventually(lambda: run.cli("healthcheck").returncode == 0, "the agent answers")
        for arguments in (("ready",), ("health",), ("players", "--count", "3", "--capacity", "8")):
            done = run.cli(*arguments)
            assert done.returncode == 0, (arguments, done.stderr)
        assert players(run) == (3, 8)
        status = run.cli("status")
        assert status.returncode == 0
        assert "ready" in status.stdout
        deployment = run.cli("deployment")
        assert deployment.returncode == 0
        assert "Chicago" in deployment.stdout
        stop = run.cli("stop", "--reason", "match over")
        assert stop.returncode == 0, stop.stderr
        platform.wait_for_calls(1)
        assert run.stop().code == 0

    def test_without_an_agent(self, tmp_path: Path) -> None:
        """No agent, no socket: one sentence that says so, and a code that a script can act on."""
        for command in ("ready", "health", "stop", "status", "deployment", "healthcheck"):
            environment = base_environment(tmp_path) | {"AGENT_SOCKET": str(tmp_path / "nowhere.sock")}
            done = subprocess.run(
                [COMMAND, command], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
            )
            assert done.returncode not in {0, 78}, command
            assert "cannot" in done.stderr
            assert "Traceback" not in done.stderr

    def test_events_follow_a_run_to_its_end(self, launch: Launcher) -> None:
        """`events` prints the present state and each change, and ends with the run."""
        run = launch(game("polite"), mode="subreaper")
        run.wait_for("ready")
        assert run.is_ready_to_answer()
        with subprocess.Popen(
            [COMMAND, "events"], env=run.game_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as events:
            assert events.stdout
            assert b"starting" in events.stdout.readline()
            run.http("POST", "/v1/ready")
            run.http("POST", "/v1/stop", {"reason": "match over"})
            rest = events.stdout.read().decode()
            assert "match over" in rest
            assert "stopping" in rest
            events.wait(DEADLINE)
        assert run.finish().code == 0


def test_two_hundred_clients_at_once(shared: Run) -> None:
    """Two hundred connections at the same time, half HTTP and half socket, are all served."""
    rpcs = [shared.rpc() for _ in range(100)]
    port = int(shared.game_environment["AGENT_URL"].rpartition(":")[2].strip("/"))
    https = [HTTPConnection("127.0.0.1", port, timeout=DEADLINE) for _ in range(100)]
    try:
        for http in https:
            http.request("GET", "/healthz")
        assert all("result" in rpc.call("status") for rpc in rpcs)
        assert {http.getresponse().status for http in https} == {200}
    finally:
        for rpc in rpcs:
            rpc.__exit__(None, None, None)
        for http in https:
            http.close()
    eventually(lambda: shared.http("GET", "/healthz").status == 200, "still there")
