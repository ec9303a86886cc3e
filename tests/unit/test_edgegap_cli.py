"""`arbitrium-agent platform`: how the command line is read, what is drawn, and which exit code says what."""

import argparse
import io
import json
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given as given_by
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from agent.edgegap import charts, cli, given, models, tables
from agent.edgegap.commands import COMMANDS
from agent.edgegap.progress import shown_progress
from agent.edgegap.show import Output
from agent.errors import AgentError

ID = "61b1be8f54d9"


def parse(*words: str) -> argparse.Namespace:
    """Read a command line as the command does."""
    parser = argparse.ArgumentParser(prog="platform")
    cli.add_arguments(parser)
    return parser.parse_args(words)


def run(*words: str) -> int:
    """Run a command."""
    return cli.run(parse(*words))


def text_of(rendered: RenderableType, width: int = 160) -> str:
    """Render as for a pipe."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(rendered)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# The command line


EVERY_COMMAND = [
    ["deploy", "game", "1", "--ip", "203.0.113.7"],
    ["status", ID],
    ["list", "--filter", "status=ready"],
    ["stop", ID],
    ["bulk-stop", "--id", ID],
    ["logs", ID],
    ["metrics", ID],
    ["hosts", "fleet"],
    ["tags", "list", ID],
    ["tags", "get", ID, "a"],
    ["tags", "add", ID, "a"],
    ["tags", "rename", ID, "a", "b"],
    ["tags", "remove", ID, "a"],
    ["apps"],
    ["apps", "list"],
    ["apps", "create", "game"],
    ["versions", "list", "game"],
    ["versions", "create", "game", "1"],
    *[["apps", word, "game"] for word in ("show", "delete")],
    *[["versions", word, "game", "1"] for word in ("show", "update", "delete")],
    ["locations"],
    ["locations", "--beacons"],
    *[["relays"], ["relays", "list"], ["relays", "show", ID], ["relays", "delete", ID]],
    *[["relays", "create", "--ip", "203.0.113.7"], ["relays", "authorize", ID, "203.0.113.7"]],
    ["relays", "revoke", ID, "4000000000"],
    *[["registry", "images"], ["registry", "tags", "game"], ["registry", "delete", "game", "1"]],
    ["storages"],
    ["storages", "create", "logs", "--endpoint", "https://s3", "--bucket", "b", "--access-key-id", "k"],
    ["storages", "show", "logs"],
    ["storages", "update", "logs", "--bucket", "b"],
    ["storages", "delete", "logs"],
]


@pytest.mark.parametrize("words", EVERY_COMMAND)
@pytest.mark.parametrize("as_json", [False, True])
def test_every_command_has_its_function_and_its_json(words: list[str], as_json: bool) -> None:
    """The grammar names a function that exists; --json is there for each."""
    args = parse(*words, *(["--json"] if as_json else []))
    assert args.does in COMMANDS
    assert args.json is as_json


def test_every_function_can_be_called() -> None:
    """No function is out of reach of the grammar."""
    assert {parse(*words).does for words in EVERY_COMMAND} == set(COMMANDS)


@pytest.mark.parametrize(
    "words", [[], ["tags"], ["versions"], ["list", "--max", "0"], ["stop"], ["bulk-stop", "--match", "x"]]
)
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As every command of a shell does."""
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "base", "code", "names"),
    [
        ("", "", 78, "EDGEGAP_API_TOKEN"),
        ("  ", "", 78, "EDGEGAP_API_TOKEN"),
        ("t", "nowhere", 78, "EDGEGAP_BASE_URL"),
        ("t", "http://127.0.0.1:1", 1, "EDGEGAP_BASE_URL"),
    ],
)
def test_what_is_missing_or_wrong_in_the_environment_is_named(
    token: str, base: str, code: int, names: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """78 is a wrong configuration, 1 is a platform that does not answer."""
    monkeypatch.setenv("EDGEGAP_API_TOKEN", token)
    monkeypatch.setenv("EDGEGAP_BASE_URL", base)
    assert run("apps", "create", "game") == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("cannot ")
    assert names in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["deploy", "game", "1"], "--ip or --at"),
        (["deploy", "game", "1", "--at", "north"], "LAT,LON"),
        (["deploy", "game", "1", "--at=91,0"], "LAT,LON"),
        (["deploy", "game", "1", "--at=nan,0"], "LAT,LON"),
        (["deploy", "game", "1", "--ip", "1.2.3.4", "--env", "NOT_SET_ANYWHERE"], "KEY=VALUE"),
        (["bulk-stop"], "--id or --tag"),
        (["versions", "update", "game", "1"], "--tag"),
        (["locations", "--app", "game"], "--app-version"),
        (["list", "--filter", "colour=red"], "fields: status"),
        (["list", "--order", "colour"], "created_at"),
        (["metrics", ID, "--start", "yesterday"], "ISO 8601"),
        (["versions", "create", "game", "1"], "--image, --cpu, --memory"),
        (["versions", "create", "game", "1", "--image", "game"], "IMAGE:TAG"),
        (["versions", "create", "game", "1", "--port", "7777"], "NAME:PORT/PROTOCOL"),
        (["versions", "create", "game", "--file", "/no/such/file"], "/no/such/file"),
        (["apps", "create", "game", "--image", "/no/such/file"], "/no/such/file"),
        (
            ["storages", "create", "l", "--endpoint", "e", "--bucket", "b", "--access-key-id", "k"],
            "EDGEGAP_STORAGE_SECRET",
        ),
    ],
)
def test_values_that_make_no_sense_exit_2_and_say_what_to_write(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is asked: nobody listens at this address."""
    monkeypatch.setenv("EDGEGAP_API_TOKEN", "t")
    monkeypatch.setenv("EDGEGAP_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("EDGEGAP_STORAGE_SECRET", raising=False)
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith("cannot ")
    assert says in said


@pytest.mark.parametrize(
    ("image", "repository", "name", "tag"),
    [
        ("game:1", "docker.io", "game", "1"),
        ("team/game:1", "docker.io", "team/game", "1"),
        ("registry.edgegap.com/team/game:1.2-x", "registry.edgegap.com", "team/game", "1.2-x"),
        ("localhost:5000/game:1", "localhost:5000", "game", "1"),
        ("localhost/game:1", "localhost", "game", "1"),
    ],
)
def test_an_image_is_split_as_docker_splits_it(image: str, repository: str, name: str, tag: str) -> None:
    """Registry, image and tag are three fields of the API."""
    version = given.version(parse("versions", "create", "g", "1", "--image", image, "--cpu", "256", "--memory", "256"))
    assert (version.docker_repository, version.docker_image, version.docker_tag) == (repository, name, tag)


def test_a_version_comes_from_a_file_and_options_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that this client does not know are passed on; the registry's token comes from the environment."""
    monkeypatch.setenv("EDGEGAP_REGISTRY_TOKEN", "hush")
    monkeypatch.setenv("FROM_HERE", "yes")
    file = tmp_path / "version.json"
    body = {"name": "1", "docker_image": "g", "docker_tag": "1", "req_cpu": 1, "req_memory": 512, "session_config": {}}
    file.write_text(json.dumps(body))
    more = ["--cpu", "256", "--port", "gameport:7777/UDP", "--env", "FROM_HERE", "--hidden-env", "K=V=W"]
    args = parse("versions", "create", "game", "--file", str(file), "--private-username", "robot", *more)
    wire = given.version(args).to_wire()
    assert (wire["name"], wire["req_cpu"], wire["session_config"]) == ("1", 256, {})
    assert wire["private_token"] == "hush"
    assert wire["ports"] == [{"port": 7777, "protocol": "UDP", "name": "gameport"}]
    assert wire["envs"] == [
        {"key": "FROM_HERE", "value": "yes", "is_hidden": False},
        {"key": "K", "value": "V=W", "is_hidden": True},
    ]
    for wrong in ("not json", "[]", '{"req_cpu": "many"}'):
        file.write_text(wrong)
        with pytest.raises(given.UsageError, match="cannot"):
            given.version(parse("versions", "create", "game", "--file", str(file)))


def test_a_time_without_a_zone_is_utc() -> None:
    """As the platform's own times are."""
    assert given.moment("--start", "2026-04-01T12:00:00") == datetime(2026, 4, 1, 12, tzinfo=UTC)
    assert given.moment("--start", "2026-04-01T12:00:00+02:00") == datetime(2026, 4, 1, 10, tzinfo=UTC)
    assert given.moment("--start", None) is None


def test_a_storage_secret_is_read_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--secret-file -`, so that it is in no file and on no command line."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("hush\n"))
    args = parse(
        "storages", "create", "l", "--endpoint", "e", "--bucket", "b", "--access-key-id", "k", "--secret-file", "-"
    )
    assert given.storage_secret(args) == "hush"


# Tables


def test_what_the_platform_says_cannot_change_the_layout() -> None:
    """Markup in a tag is shown as it is."""
    item = models.DeploymentListItem(request_id=ID, tags=["[red]x[/red]", "[/]"], ready=True)
    assert "[red]x[/red], [/]" in text_of(tables.deployments([item]))


def test_the_least_answers_make_tables_too() -> None:
    """The live API leaves out what it likes."""
    for rendered in (
        tables.deployment(models.DeploymentStatus(request_id=ID)),
        tables.deployments([models.DeploymentListItem(request_id=ID)]),
        tables.hosts([models.Host(host_id=ID)]),
        tables.tags([models.Tag(name=ID)]),
        tables.applications([models.Application(name=ID)]),
        tables.versions([models.Version(name=ID)]),
        tables.version(models.Version(name=ID)),
        tables.storages([models.Storage(name=ID)]),
        tables.stopped(models.BulkStopResult(processable=[models.DeploymentAccepted(request_id=ID)])),
    ):
        assert ID in text_of(rendered)
    for none in (tables.deployments([]), tables.hosts([]), tables.tags([]), tables.applications([])):
        assert text_of(none).startswith("no ")


def test_a_version_is_shown_with_the_names_of_its_variables_only() -> None:
    """A value may be a secret; an image that is not named leaves no stray colon."""
    version = models.Version(name=ID, req_cpu=100, envs=[models.Variable(key="LICENCE", value="hush")])
    shown = text_of(tables.version(version))
    assert "LICENCE" in shown
    assert "hush" not in shown
    assert "image" not in shown
    assert "0.0977 vCPU" in shown


def test_a_deployment_is_shown_with_its_state_and_ports() -> None:
    """What one looks for: is it ready, where, and through which port."""
    status = models.DeploymentStatus(
        request_id=ID,
        current_status="Status.READY",
        public_ip="203.0.113.7",
        max_duration=-1,
        ports={"gameport": models.Port(name="gameport", internal=7777, external=31000, protocol="UDP")},
    )
    shown = text_of(tables.deployment(status))
    for fact in ("ready", "203.0.113.7", "none", "gameport", "7777", "31000", "UDP"):
        assert fact in shown


def test_nothing_from_the_platform_can_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Tags, ports and messages with escape sequences, line ends and overrides are shown, not obeyed."""
    bad = "red\x1b]0;title\x07\n\u202efake\x9b2J"
    item = models.DeploymentListItem(request_id=ID, tags=[bad], ports={bad: models.Port(name=bad, protocol=bad)})
    status = models.DeploymentStatus(request_id=bad, error_detail=bad, tags=[bad], ports=item.ports)
    for table in (tables.deployments([item]), tables.deployment(status), tables.line(bad)):
        shown = text_of(table)
        assert not {"\x07", "\x9b", "\u202e", "\r"} & set(shown)
        assert "]0;title" in shown
        assert "\x1b]" not in shown
    Output(as_json=True).model(item, lambda: None)
    said = capsys.readouterr().out
    assert not {"\x1b", "\x9b", "\u202e"} & set(said)
    assert json.loads(said)["tags"] == [bad]
    assert Output(as_json=False).fail(AgentError(f"cannot: {bad}"), 1) == 1
    assert capsys.readouterr().err == "cannot: red\\x1b]0;title\\x07\\n\\u202efake\\x9b2J\n"


def test_how_a_container_ended_is_said_beside_its_logs() -> None:
    """An empty log says why it may be empty."""
    crash = models.CrashData(exit_code=137, message="OOM killed", restart_count=2)
    notes = tables.log_notes(models.Logs(crash_data=crash, logs_link="https://s3/x"), empty=True)
    assert "storage" in notes[0]
    assert notes[1] == "it ended: exit code 137, OOM killed, 2 restarts"
    assert notes[2] == "stored at https://s3/x"
    assert tables.log_notes(models.Logs(logs="x"), empty=False) == []


# Charts


def test_a_ramp_is_drawn_as_a_ramp() -> None:
    """Two dots a character across, four up; braille, and # where there is none."""
    assert charts.area([1, 2, 3, 4, 5, 6, 7, 8], width=4, height=2) == ["⠀⠀⣠⣾", "⣠⣾⣿⣿"]
    assert charts.area([0, 8], width=2, height=2, plain=True) == [" #", "##"]


@given_by(
    st.lists(st.none() | st.floats(-1e300, 1e300) | st.sampled_from([math.nan, math.inf]), max_size=300),
    st.integers(1, 60),
    st.integers(1, 8),
)
def test_any_series_fills_exactly_its_place(values: list[float | None], width: int, height: int) -> None:
    """Few or many samples, gaps, NaN and infinity: the size never changes."""
    rows = charts.area(values, width, height)
    assert len(rows) == height
    assert all(len(row) == width and all("\u2800" <= cell <= "\u28ff" for cell in row) for row in rows)


def test_a_gap_is_left_empty_and_zero_is_not() -> None:
    """No sample is not the same as a sample of nothing."""
    (row,) = charts.area([None, None, 0.0, 0.0], width=2, height=1)
    assert row[0] == "\u2800"
    assert row[1] != "\u2800"


def _metrics() -> models.Metrics:
    times = [f"14:17:{second:02}" for second in range(8)]
    series = models.Series(labels=times, datasets=[1, None, 3, 4, 5, 6, 1500, 8], timestamps=times)
    total = models.Totals(receive_total=series)
    return models.Metrics(cpu=series, mem=series, total=total)


def test_panels_show_the_series_that_have_samples() -> None:
    """With the last, mean and largest value, the time axis, and the totals."""
    shown = text_of(charts.panels(_metrics(), ID))
    for word in ("cpu", "memory", "now 8", "max 1.5k", "14:17:00", "14:17:07", "received 8"):
        assert word in shown
    assert "network" not in shown
    assert text_of(charts.panels(models.Metrics(), ID)).startswith(f"no samples of deployment {ID}")


@pytest.mark.parametrize("metrics", [_metrics(), models.Metrics()])
def test_a_picture_is_written(metrics: models.Metrics, tmp_path: Path) -> None:
    """A real PNG, also of nothing."""
    file = tmp_path / "metrics.png"
    charts.write_png(metrics, ID, str(file))
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_picture_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(charts.CannotDrawError, match="missing"):
        charts.write_png(_metrics(), ID, str(tmp_path / "missing" / "metrics.png"))


def test_a_missing_matplotlib_is_said_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that installs it, for this very Python."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setenv("EDGEGAP_API_TOKEN", "t")
    monkeypatch.setenv("EDGEGAP_BASE_URL", "http://127.0.0.1:1")
    assert run("metrics", ID, "--png", "x.png") == 2
    assert f"run {sys.executable} -m pip install 'arbitrium-agent[charts]'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pip", None)  # as in the image
    assert run("metrics", ID, "--png", "x.png") == 2
    assert "run .venv/bin/pip install 'arbitrium-agent[charts]' in a checkout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.5, "0.5"), (999, "999"), (1536, "1.54k"), (-2e6, "-2M"), (3e9, "3G"), (4e12, "4T")],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    """Three digits and a prefix fit under a chart."""
    assert charts.short(value) == shown


# Progress


def test_progress_outside_a_terminal_is_one_line_a_state(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr; a state that stays is said once."""
    now = 0.0

    def monotonic() -> float:
        return now

    with shown_progress("deployment x", monotonic) as tell:
        for at, state in ((1.0, "SEEKING"), (2.0, "SEEKING"), (3.5, "Status.READY")):
            now = at
            tell(models.DeploymentStatus(request_id=ID, current_status=state))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "deployment x: seeking after 1.0 s\ndeployment x: ready after 3.5 s\n"


def test_progress_in_a_terminal_ends_with_the_way_that_was_gone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that moves, and one that stays."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with shown_progress("deployment x", lambda: 0.0) as tell:
        tell(models.DeploymentStatus(request_id=ID, current_status="SEEKING"))
        tell(models.DeploymentStatus(request_id=ID, current_status="READY"))
    assert "seeking → ready" in capsys.readouterr().err
