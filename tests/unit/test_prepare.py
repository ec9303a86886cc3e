"""What the game's environment is made of."""

import pytest

from agent.init import inputs as inputs_module
from agent.init.inputs import Inputs
from agent.init.prepare import hidden_names

HEADERS, TRACES = "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
ENVIRONMENT = {
    HEADERS: "authorization=Bearer%20s3cret",
    TRACES: "x-key=0123",
    "OTEL_SERVICE_NAME": "game",
    "AWS_SECRET_ACCESS_KEY": "k",
    "AGENT_LOG_URL": "s3://bucket",
    "LICENCE": "l",
}
ENDPOINT = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}


@pytest.mark.parametrize(
    ("more", "installed", "hidden"),
    [
        ({}, True, {"AWS_SECRET_ACCESS_KEY"}),  # nobody told the agent where to export: the headers are the game's
        (ENDPOINT, False, {"AWS_SECRET_ACCESS_KEY"}),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, True, {"AWS_SECRET_ACCESS_KEY"}),
        (ENDPOINT, True, {"AWS_SECRET_ACCESS_KEY", HEADERS, TRACES}),
        ({**ENDPOINT, "AGENT_ENV_SHOW": f"{HEADERS},AWS_*"}, True, {TRACES}),
        ({**ENDPOINT, "AGENT_ENV_SHOW": "OTEL_*", "AGENT_ENV_HIDE": "LICENCE,AWS_*,OTEL_EXPORTER_OTLP_TRACES_*"}, True,
         {"AWS_SECRET_ACCESS_KEY", "LICENCE", TRACES}),
    ],
)  # fmt: skip
def test_what_the_agent_needs_is_kept_from_the_game(
    more: dict[str, str],
    installed: bool,
    hidden: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The store's credentials, and OpenTelemetry's where the agent exports; two settings give more and less."""
    monkeypatch.setattr(inputs_module, "installed", lambda _name: installed)
    inputs = Inputs(["game"], {}, ENVIRONMENT | more)
    assert set(hidden_names(inputs)) == hidden
    assert not inputs.problems
    said = capfd.readouterr().err
    assert (f"AGENT_ENV_SHOW={HEADERS},{TRACES}" in said) is (hidden >= {HEADERS, TRACES}), said
