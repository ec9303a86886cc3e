"""What Prometheus finds on the metrics listener while a game runs."""

import re
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests import certificates
from tests.fakes import FakePlatform, Reply
from tests.process.harness import DEADLINE, Launcher, Run, eventually, game

WANTED = {
    "build info": r"_build_info$",
    "deployment info": r"_deployment_info$",
    "lifecycle state": r"_(state|phase)$",
    "stop requests by source": r"_stop_requests_total$",
    "self-stop attempts by result": r"_self_stop_\w+_total$",
    "CPU": r"_game_cpu_seconds_total$",
    "resident memory": r"_game_resident_memory_bytes$|_game_rss_bytes$",
    "threads": r"_game_threads$",
    "open files": r"_game_open_f\w+$",
    "context switches": r"_game_context_switches_total$",
    "I/O": r"_game_\w*(io|read)\w*bytes\w*_total$",
    "restarts": r"_game_restarts_total$",
    "start time": r"_game_start_time_seconds$",
    "players": r"_players$",
    "capacity": r"_capacity$",
    "log bytes": r"_log_\w*bytes_total$",
    "requests": r"_requests_total$",
    "latency": r"_seconds_bucket$",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One running agent with a game, players, output and a few requests behind it."""
    with FakePlatform() as platform, Launcher(tmp_path_factory.mktemp("metrics")) as launcher:
        run = launcher(game("prints_signals"), mode="subreaper", env=platform.environment())
        run.wait_for("ready")
        run.http("POST", "/v1/health")
        run.http("PUT", "/v1/players", {"count": 3, "capacity": 10})
        run.http("GET", "/nowhere")
        with run.rpc() as rpc:
            rpc.call("status")
        yield run


def scrape(run: Run) -> str:
    """What a scrape delivers, as text."""
    answer = run.http("GET", "/metrics", url=run.game_environment["AGENT_METRICS_URL"])
    assert answer.status == 200
    assert answer.type in {"text/plain", "application/openmetrics-text"}
    return answer.body.decode()


def families(run: Run) -> dict[str, Metric]:
    """What a scrape delivers, by the name of the family."""
    return {family.name: family for family in text_string_to_metric_families(scrape(run))}


def value(run: Run, pattern: str, **labels: str) -> float:
    """The sum of the samples whose name matches and which have those labels."""
    samples = [
        sample
        for family in families(run).values()
        for sample in family.samples
        if re.search(pattern, sample.name) and labels.items() <= sample.labels.items()
    ]
    assert samples, f"no sample matches {pattern} {labels}"
    return sum(sample.value for sample in samples)


@pytest.mark.parametrize("what", WANTED)
def test_everything_of_the_list_is_there(shared: Run, what: str) -> None:
    """Each line of the specification's list has a metric."""
    names = {sample.name for family in families(shared).values() for sample in family.samples}
    assert [name for name in names if re.search(WANTED[what], name)], sorted(names)


def test_names_and_units_are_prometheus_conventions(shared: Run) -> None:
    """Help on each, counters end in `_total`, base units only, no unit in the wrong place."""
    text = scrape(shared)
    for family in families(shared).values():
        assert family.documentation, family.name
        assert family.type != "unknown", family.name
        assert not re.search(r"_(ms|millis\w*|micros\w*|kb|mb|kilobytes|megabytes|minutes|percent)(_|$)", family.name)
        if family.type == "counter":
            assert f"# TYPE {family.name}_total counter" in text or f"# TYPE {family.name} counter" in text
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples), family.name
        else:
            assert not family.name.endswith("_total"), family.name


def test_promtool_has_nothing_to_say(shared: Run) -> None:
    """`promtool check metrics` finds neither an error nor anything to lint."""
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=scrape(shared),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_metrics_listener_has_metrics_only(shared: Run) -> None:
    """The port that may be mapped to the outside does not lead to control: no status, no stop, nothing."""
    url = shared.game_environment["AGENT_METRICS_URL"]
    for method, path in (
        ("POST", "/v1/stop"),
        ("GET", "/v1/status"),
        ("GET", "/v1/deployment"),
        ("GET", "/openapi.json"),
    ):
        assert shared.http(method, path, url=url).status in {404, 405}, path
    assert shared.http("GET", "/v1/status").json()["phase"] == "starting"


def test_a_scrape_by_another_name(shared: Run) -> None:
    """Prometheus scrapes by address or name: the Host rule of the control listener does not hold here."""
    url = shared.game_environment["AGENT_METRICS_URL"]
    assert shared.http("GET", "/metrics", url=url, headers={"Host": "game-1.example:32014"}).status == 200


def test_players_and_requests_are_counted(shared: Run) -> None:
    """What the game reported and what was asked of the API is in the figures."""
    assert value(shared, r"_players$") == 3
    assert value(shared, r"_capacity$") == 10
    before = value(shared, r"_requests_total$")
    for _ in range(5):
        shared.http("POST", "/v1/health")
    assert value(shared, r"_requests_total$") >= before + 5


def test_routes_do_not_multiply(shared: Run) -> None:
    """A thousand made-up paths and player names do not make a thousand series."""
    shared.http("GET", "/made-up/0")
    shared.http("PUT", "/v1/players/player-0")
    before = len(scrape(shared).splitlines())
    for number in range(50):
        shared.http("GET", f"/made-up/{number}")
        shared.http("PUT", f"/v1/players/player-{number}")
    assert len(scrape(shared).splitlines()) <= before + 20
    shared.http("PUT", "/v1/players", {"count": 3, "capacity": 10})


def test_the_games_group_is_measured(launch: Launcher) -> None:
    """CPU seconds grow with the work of the game's children; log bytes with its output."""
    busy = game("chatters")
    run = launch(["sh", "-c", 'trap : USR1; "$@" & while :; do :; done', "sh", *busy], mode="subreaper")
    run.wait_for("ready")
    first = value(run, r"_game_cpu_seconds_total$")
    eventually(lambda: value(run, r"_game_cpu_seconds_total$") > first + 0.2, "CPU seconds grow")
    assert value(run, r"_game_(resident_memory|rss)_bytes$") > 1_000_000
    assert value(run, r"_game_threads$") >= 2, "the shell and the game behind it"
    before = value(run, r"_log_\w*bytes_total$")
    run.signal(signal.SIGUSR1)
    eventually(lambda: value(run, r"_log_\w*bytes_total$") > before, "log bytes grow")


def test_log_bytes_are_those_of_this_moment_whichever_process_of_the_agent_is_asked(
    launch: Launcher, tmp_path: Path
) -> None:
    """PID 1 counts them: they are exact, and go on where the agent's process was killed and started again."""
    more = tmp_path / "more"
    script = f"printf %1000s; printf %500s >&2; until [ -e {more} ]; do sleep 0.05; done; printf %24s; sleep 60"
    settings = {"AGENT_LOG_URL": f"file://{tmp_path}/store", "AGENT_SHIP_INTERVAL": "1s"}
    run = launch(["sh", "-c", script], mode="subreaper", env=settings)
    received = r"_log_received_bytes_total$"
    eventually(lambda: value(run, received) == 1500, "all is counted")
    assert (value(run, received, stream="stdout"), value(run, received, stream="stderr")) == (1000, 500)
    eventually(lambda: value(run, r"_log_shipped_bytes_total$") >= 1500, "all is in the store")
    (agent,) = (each for each in psutil.Process(run.process.pid).children() if each.name() == "arbitrium-agent")
    agent.kill()
    run.stderr.wait_for("is up again")
    more.touch()
    eventually(lambda: value(run, received) == 1524, "what came later is counted")


def test_a_stop_is_counted_by_source_and_result(launch: Launcher) -> None:
    """Twenty requests are one stop by the game; a 503 and a 202 are two attempts; the hold shows both."""
    with FakePlatform([Reply(503), Reply(202)]) as platform:
        run = launch(game("polite"), env=platform.environment(), mode="subreaper")
        run.wait_for("ready")
        for _ in range(20):
            run.http("POST", "/v1/stop", {"reason": "match over"})
        platform.wait_for_calls(2)
        eventually(lambda: value(run, r"_self_stop_\w+_total$") == 2, "two attempts are counted")
        assert value(run, r"_stop_requests_total$", source="game") >= 1
        assert value(run, r"_stop_requests_total$", source="platform") == 0
        assert run.stop().code == 0


def test_tls_and_a_token_where_they_are_set(launch: Launcher, tmp_path: Path) -> None:
    """The game is told the https address; the token comes from a file, and the game gets neither."""
    certificate, key = certificates.write(tmp_path)
    (tmp_path / "token").write_text("not-for-the-game\n")
    settings = {
        "AGENT_METRICS_TLS_CERT": str(certificate),
        "AGENT_METRICS_TLS_KEY": str(key),
        "AGENT_METRICS_TOKEN_FILE": str(tmp_path / "token"),
    }
    run = launch(game("polite"), env=settings, mode="subreaper")
    run.wait_for("ready")
    url = run.game_environment["AGENT_METRICS_URL"]
    assert url.startswith("https://127.0.0.1:")
    assert not any(name.startswith(("AGENT_METRICS_T",)) for name in run.game_environment)
    address = urlsplit(url)
    trusting = ssl.create_default_context(cafile=certificate)
    connection = HTTPSConnection(str(address.hostname), address.port, timeout=DEADLINE, context=trusting)
    connection.request("GET", address.path, headers={"Authorization": "Bearer not-for-the-game"})
    assert b"arbitrium_agent_build_info" in connection.getresponse().read()
    connection.close()
    assert run.stop().code == 0


def test_a_certificate_that_cannot_be_used_is_a_wrong_setting(launch: Launcher, tmp_path: Path) -> None:
    """Rather than a listener that nobody can read."""
    certificate, _ = certificates.write(tmp_path)
    run = launch(game("polite"), env={"AGENT_METRICS_TLS_CERT": str(certificate)}, mode="subreaper")
    ended = run.finish()
    assert ended.code == 78
    assert "AGENT_METRICS_TLS_CERT" in ended.stderr
