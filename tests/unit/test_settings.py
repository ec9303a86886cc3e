"""The settings: every mistake named at once, and boot's view of them the same as the model's."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, SecretStr, TypeAdapter

from agent.config import model, parsers
from agent.config.model import Settings, load
from agent.config.names import game_environment, option, quoted_variables, unknown_variables, variable
from agent.config.table import TABLE
from agent.errors import Problem, SettingsError
from agent.init.inputs import Inputs, read
from agent.logs.redact import Redactor


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TABLE:
        monkeypatch.delenv(variable(name), raising=False)


def problems(options: dict[str, str] | None = None) -> dict[str, str]:
    """What is wrong, by the name that the user wrote."""
    with pytest.raises(SettingsError) as wrong:
        load(options)
    return {problem.name: str(problem) for problem in wrong.value.problems}


def test_boot_and_the_model_know_the_same_settings() -> None:
    """Boot keeps every setting from the game; one that it does not know would be passed on."""
    assert set(Settings.fields) == set(TABLE)


def test_every_setting_is_described() -> None:
    """`config` and the README are made from the descriptions."""
    assert all(row.text for row in TABLE.values())


# Each setting takes one of these at least.
_TEXTS = (
    *(
        "",
        "5",
        "0.5",
        "64MiB",
        "on",
        "off",
        "exit",
        "output:ready",
        "none",
        "start",
        "sqp",
        "verbatim",
        "warning",
        "json",
    ),
    *("/etc/hosts", "/a:/b", "a=b", "a:1:2", "list:a,b:3", "a:a,b:3", "SIGINT,stdin:quit", "last", "10.0.0.1:27015"),
    *(
        "https://example.org/logs",
        "agones",
        "/x+/,NAME",
        "debug",
        "127.0.0.1:9000",
        "true",
        "udp:8125",
        "rooms=1:2",
        "127.0.0.1",
        "api",
    ),
)


@pytest.mark.parametrize("name", TABLE)
def test_a_setting_has_a_value_of_its_type(name: str) -> None:
    """By default, and whatever its parser accepts: nothing checks it again."""
    row = TABLE[name]
    annotation = eval(Settings.__annotations__[name], vars(model))  # noqa: S307 - written by us
    kind: TypeAdapter[object] = TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    kind.validate_python(row.default)
    taken = [text for text in _TEXTS if _refusal(row.parse, text) is None]
    assert taken, "add a text that it takes"
    for text in taken:
        value = row.parse(text)
        kind.validate_python(SecretStr(value) if row.secret else value)


def test_all_mistakes_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the variable's name, what it got and what it takes."""
    monkeypatch.setenv("AGENT_GRACE_SECONDS", "five")
    monkeypatch.setenv("AGENT_METRICS_PORT", "70000")
    monkeypatch.setenv("AGENT_ON_CRASH", "reboot")
    monkeypatch.setenv("AGENT_LOG_URL", "ftp://example.org")
    found = problems()
    assert found["AGENT_GRACE_SECONDS"] == (
        "AGENT_GRACE_SECONDS: got 'five' and takes seconds or a duration such as 500ms, 30s, 5m or 1h, at most a week"
    )
    assert "'70000'" in found["AGENT_METRICS_PORT"]
    assert "takes self-stop, exit or restart" in found["AGENT_ON_CRASH"]
    assert set(found) == {"AGENT_GRACE_SECONDS", "AGENT_METRICS_PORT", "AGENT_ON_CRASH", "AGENT_LOG_URL"}


def test_an_option_wins_over_its_variable_and_is_named_as_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake is reported where the user made it."""
    monkeypatch.setenv("AGENT_GRACE_SECONDS", "7")
    assert load().grace_seconds == 7
    assert load({"grace_seconds": "9"}).grace_seconds == 9
    assert "--grace-seconds: got 'soon'" in problems({"grace_seconds": "soon"})["--grace-seconds"]


def test_an_unknown_option_is_an_error_with_a_suggestion() -> None:
    """A misspelt option would otherwise be ignored in silence."""
    assert "did you mean --grace-seconds?" in problems({"grace_second": "9"})["--grace-second"]


@pytest.mark.parametrize("rest", [[], ["--", "game"], ["game"]])
def test_an_unknown_option_without_a_value_is_unknown_first(rest: list[str]) -> None:
    """`run --nope` is not told to give a value to what is no option; one that exists is."""
    inputs = read(["--nope", *rest])
    inputs.check()
    assert [str(problem) for problem in inputs.problems] == ["--nope: is not an option"]
    if rest != ["game"]:
        assert [str(problem) for problem in read(["--grace-seconds", *rest]).problems] == [
            "--grace-seconds: takes a value"
        ]


def test_an_unknown_variable_is_found_with_a_suggestion() -> None:
    """A misspelt variable is not ignored in silence either; what the agent exports is known."""
    found = unknown_variables({"AGENT_GRACE": "9", "AGENT_URL": "http://127.0.0.1:9370", "PATH": "/bin"})
    assert [problem.name for problem in found] == ["AGENT_GRACE"]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_that_nobody_removed_are_named(monkeypatch: pytest.MonkeyPatch, quote: str) -> None:
    """As `docker run --env-file` keeps them: a wrong value says so, and so does a text that cannot be wrong."""
    for name, text in (("AGENT_GRACE_SECONDS", "5"), ("AGENT_STOP", "stdin:stop"), ("AGENT_APP_NAME", "my-game")):
        monkeypatch.setenv(name, f"{quote}{text}{quote}")
    found = problems()
    assert set(found) == {"AGENT_GRACE_SECONDS", "AGENT_STOP"}
    for text in found.values():
        assert "--env-file keeps them): write it without them" in text
    assert "AGENT_APP_NAME" in {problem.name for problem in quoted_variables(os.environ)}
    assert not quoted_variables({"AGENT_APP_NAME": '"', "AGENT_TAGS": "it's 5'", "PS1": "'$'"})


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """`AGENT_LOG_URL=` in a compose file means none; an empty option as well, to the init and to the agent alike."""
    monkeypatch.setenv("AGENT_GRACE_SECONDS", "")
    assert load().grace_seconds == 5
    assert load({"grace_seconds": ""}).grace_seconds == 5
    inputs = read(["--grace-seconds=", "--", "game"])
    assert inputs.setting("grace_seconds") == 5
    assert not inputs.problems


def test_settings_are_frozen() -> None:
    """Nobody changes them behind anybody's back."""
    with pytest.raises(AttributeError):
        load().grace_seconds = 1.0  # type: ignore[misc]  # this is what must fail


def test_what_must_be_in_no_log() -> None:
    """Of a URL its end and its key, whatever stands before; of OpenTelemetry's headers those that look secret."""
    environ = {
        "ARBITRIUM_DELETE_URL": "https://api.example/v1/self/stop/23c01225b99d/463660",
        "ARBITRIUM_DELETE_TOKEN": "t0ken-of-the-deployment",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=eu1,authorization=Bearer%20s3cret,x-long=0123456789abcdef",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://me:pa55word@collector/v1",
        "OTEL_SERVICE_NAME": "a-game-server-of-ours",
    }
    redactor = Redactor(Inputs(["x"], {"metrics_push_url": "http://u:pushpass@gw/x"}, environ).secrets)
    for text in (
        "wss://other.example/prefix/23c01225b99d/463660",
        "key 463660",
        "http://127.0.0.1:9370/v1/self/stop/23c01225b99d/463660",
        "23c01225b99d%2F463660",
    ):
        assert "463660" not in redactor.text(text)
    for secret in ("t0ken-of-the-deployment", "Bearer s3cret", "s3cret", "0123456789abcdef", "pa55word", "pushpass"):
        assert secret not in redactor.text(f"it is {secret}.")
    assert redactor.text("eu1 a-game-server-of-ours 23c01225b99d") == "eu1 a-game-server-of-ours 23c01225b99d"


def test_a_secret_is_no_option() -> None:
    """Options stand in /proc/1/cmdline; the message names what to use instead, and not the value."""
    inputs = Inputs(["x"], {"api_token": "s3cret"}, {})
    inputs.check()
    (problem,) = map(str, inputs.problems)
    assert problem == (
        "--api-token: is a secret, and options can be read by everybody in the container: use AGENT_API_TOKEN or "
        "AGENT_API_TOKEN_FILE"
    )


def test_a_wrong_value_is_shown_without_credentials() -> None:
    """What is wrong with a URL can be seen without its password and signature."""
    shown = str(Problem("AGENT_LOG_URL", "ftp://me:pw@host/x?X-Amz-Signature=abc&a=b", "takes a URL"))
    assert shown == "AGENT_LOG_URL: got 'ftp://********@host/x?X-Amz-Signature=********&a=********' and takes a URL"


def test_the_game_gets_no_settings_and_no_credentials() -> None:
    """What is the agent's stays with it; everything else passes."""
    given = {"AGENT_GRACE_SECONDS": "3", "AGENT_SOCKET": "/old", "AGENT_NAME": "mine", "AWS_X": "s", "PATH": "/bin"}
    passed = game_environment(given, {"AGENT_URL": "u"}, ["AWS_X"])
    assert passed == {"AGENT_NAME": "mine", "PATH": "/bin", "AGENT_URL": "u"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("2.5", 2.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), (" 7 ", 7), ("0", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    """Seconds, with or without a unit."""
    assert parsers.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "-1", "1e3", "inf", "nan", "1_0", "5 s x", "s", "1d", "8h1m", "9999h", "٣", "1..2"]
)
def test_no_durations(text: str) -> None:
    """What Python's float() would take and nobody means is refused."""
    with pytest.raises(ValueError, match="takes seconds"):
        parsers.duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1024", 1024), ("1k", 1024), ("64MiB", 64 << 20), ("1GB", 10**9), ("2 KiB", 2048)]
)
def test_sizes(text: str, size: int) -> None:
    """Bytes, with or without a unit."""
    assert parsers.size(text) == size


def test_which_process_is_the_game() -> None:
    """A pid file by its absolute path, a port, or the last server process."""
    for text in ("pidfile:/run/x.pid", "port", "port:7777", "last"):
        assert parsers.main_process(f" {text} ") == text
    for wrong in ("", "pidfile", "pidfile:x.pid", "port:", "port:0", "port:70000", "last:", "first"):
        with pytest.raises(ValueError, match="takes pidfile:PATH"):
            parsers.main_process(wrong)


@pytest.mark.parametrize("text", ["", "-1", "1.5MiB", "MiB", "1TB", "1 x"])
def test_no_sizes(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="takes bytes"):
        parsers.size(text)


def test_names_and_regular_expressions() -> None:
    """Commas separate, except between slashes."""
    assert parsers.names("A, B,/x{1,2}/ ,C") == ("A", "B", "/x{1,2}/", "C")
    with pytest.raises(ValueError, match="is none"):
        parsers.names("/(/")


@given(st.text())
def test_checks_refuse_with_a_value_error_only(text: str) -> None:
    """Whatever is written in a variable, a check takes it or says what it takes."""
    for check in (
        parsers.boolean,
        parsers.port,
        parsers.count,
        parsers.duration,
        parsers.size,
        parsers.text,
        parsers.path,
        parsers.socket_path,
        parsers.host,
        parsers.names,
        parsers.patterns,
    ):
        said = _refusal(check, text)
        assert said is None or said.startswith("takes ")


def _refusal(check: Callable[[str], object], text: str) -> str | None:
    try:
        check(text)
    except ValueError as wrong:
        return str(wrong)
    return None


def test_spelling() -> None:
    """One name, two ways to write it."""
    assert (variable("grace_seconds"), option("grace_seconds")) == ("AGENT_GRACE_SECONDS", "--grace-seconds")
