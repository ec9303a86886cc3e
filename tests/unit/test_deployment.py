"""What the platform injects: used where it can be, reported by name where it cannot."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.api.models import DeploymentResult
from agent.config.checks import players
from agent.config.game_ports import game_ports
from agent.config.injected import parse
from tests.fakes import INJECTED

FULL = {
    **INJECTED,
    "ARBITRIUM_DELETE_URL": "https://api.edgegap.com/v1/self/stop/23c01225b99d/463660",
    "ARBITRIUM_DELETE_TOKEN": "0123456789abcdef0123456789abcdef",
    "ARBITRIUM_CONTEXT_URL": "https://api.edgegap.com/v1/context/23c01225b99d/463660",
    "ARBITRIUM_CONTEXT_TOKEN": "fedcba9876543210fedcba9876543210",
    "ARBITRIUM_HOST_BEACON_ENABLED": "true",
    "ARBITRIUM_HOST_BEACON_PUBLIC_IP": "172.236.117.197",
    "ARBITRIUM_HOST_BEACON_PORT_UDP_EXTERNAL": "30000",
    "ARBITRIUM_HOST_BEACON_PORT_TCP_EXTERNAL": "30001",
    "MM_MATCH_ID": "match-1",
    "MM_MATCH_PROFILE": '{"mode": "duel"}',
    "MM_TICKET_IDS": '["a", "b"]',
    "MM_TICKET_a": '{"elo": 1200}',
}


def named(environ: dict[str, str]) -> list[str]:
    """The variables that were reported."""
    return [problem.name for problem in parse(environ).problems]


def test_everything_is_read() -> None:
    """All that the platform injects, in its own form."""
    injected = parse(FULL)
    it = injected.deployment
    assert injected.problems == ()
    assert it.on_platform
    assert it.fqdn == "23c01225b99d.pr.edgegap.net"
    assert it.public_ip == "172.236.117.196"
    assert it.tags == ("tag1", "tag2")
    assert it.location is not None
    assert (it.location.city, it.location.latitude) == ("Chicago", 41.9981)
    port = it.ports["gameport"]
    assert (port.internal, port.external, port.protocol) == (7777, 32013, "UDP")
    assert (it.vcpu_units, it.memory_mb, it.host_base_clock_frequency) == (1536, 3072, 2000)
    assert it.host_in_private_fleet is False
    assert it.beacon is not None
    assert it.beacon.port_tcp_external == 30001
    assert it.match.profile == {"mode": "duel"}
    assert it.match.expected_players == 2
    assert it.match.tickets == {"a": {"elo": 1200}}
    assert injected.secrets.can_self_stop


def test_no_secret_is_in_the_deployment() -> None:
    """A deployment can be shown to anybody; the stop key in the URL is a secret as well."""
    injected = parse(FULL)
    shown = json.dumps(injected.deployment.document()) + repr(injected)
    for secret in (FULL["ARBITRIUM_DELETE_TOKEN"], FULL["ARBITRIUM_CONTEXT_TOKEN"], "463660"):
        assert secret not in shown


def test_nothing_at_all_is_no_problem() -> None:
    """Outside the platform all of it is missing, and that is said elsewhere, once."""
    injected = parse({"PATH": "/bin"})
    assert injected.problems == ()
    assert not injected.deployment.on_platform
    assert not injected.secrets.can_self_stop


def test_what_is_missing_on_the_platform_is_said_with_its_consequence() -> None:
    """Without a delete URL nothing stops the bill."""
    assert "ARBITRIUM_DELETE_URL" in named({"ARBITRIUM_REQUEST_ID": "23c01225b99d"})


def test_a_bad_port_does_not_take_the_good_ones_with_it() -> None:
    """The rest of a malformed mapping is used, and variables complete it."""
    environ = {
        "ARBITRIUM_PORTS_MAPPING": json.dumps({"ports": {"a": {"internal": 1, "external": "x"}, "b": {"internal": 2}}}),
        "ARBITRIUM_PORT_A_INTERNAL": "1",
        "ARBITRIUM_PORT_B_EXTERNAL": "32000",
    }
    injected = parse(environ)
    assert [problem.name for problem in injected.problems] == ["ARBITRIUM_PORTS_MAPPING"]
    assert injected.deployment.ports["a"].internal == 1
    assert injected.deployment.ports["b"].external == 32000


def test_older_versions_key_ports_by_number() -> None:
    """The internal port is then the name."""
    ports = parse(
        {"ARBITRIUM_PORTS_MAPPING": '{"ports": {"7777": {"external": 31000, "protocol": "UDP"}}}'}
    ).deployment.ports
    assert ports["7777"].internal == 7777
    assert ports["7777"].external == 31000


def test_a_location_without_coordinates() -> None:
    """They may be missing."""
    injected = parse({"ARBITRIUM_DEPLOYMENT_LOCATION": '{"city": "Oslo"}'})
    assert injected.problems == ()
    assert injected.deployment.location is not None
    assert injected.deployment.location.latitude is None


def test_a_malformed_secret_is_reported_without_its_value() -> None:
    """Even a broken token may be most of a good one."""
    injected = parse({"ARBITRIUM_DELETE_TOKEN": "tok\u00e9n-with-accent"})
    assert injected.secrets.delete_token is None
    (problem,) = injected.problems
    assert problem.got is None
    assert "accent" not in str(problem)


_values = st.one_of(
    st.text(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ).map(json.dumps),
    st.sampled_from(
        [
            '{"ports": {"a": {"internal": 1e999, "proxy": 1e999}}}',
            '{"\\ud800": "\\ud800"}',
            "[" * 300 + "]" * 300,
            "[" * 5000,
            '{"ports": []}',
            "\udc80",
            "1" * 5000,
            "{}",
        ]
    ),
)


DOCUMENTED = DeploymentResult.model_json_schema()
VALIDATOR = jsonschema.Draft202012Validator(DOCUMENTED)


def _undescribed(value: Any, schema: dict[str, Any]) -> list[str]:
    """The members of a value that its schema does not have."""
    if not isinstance(value, dict):
        return []
    kinds = [schema, *schema.get("anyOf", ())]
    known = next((kind["properties"] for kind in kinds if "properties" in kind), None)
    if known is None:
        return [name for each in value.values() for name in _undescribed(each, schema.get("additionalProperties", {}))]
    inner = [name for member in known for name in _undescribed(value.get(member), known[member])]
    return [*(name for name in value if name not in known), *inner]


@example(FULL)
@given(
    st.dictionaries(st.sampled_from([*FULL, "ARBITRIUM_PORT_X_INTERNAL", "MM_TICKET_x", "MM_TICKET_\udc80"]), _values)
)
def test_nothing_that_is_injected_makes_it_fail(environ: dict[str, str]) -> None:
    """Absent, empty or malformed in any way: each is reported at most once, and the result can be shown as JSON."""
    injected = parse(environ)
    names = [problem.name for problem in injected.problems]
    assert len(names) == len(set(names))
    shown = injected.deployment.document()
    assert json.loads(DeploymentResult(shown).model_dump_json()) == shown
    VALIDATOR.validate(shown)
    assert not _undescribed(shown, DOCUMENTED)


_numbers = st.integers(-1, 70000) | st.integers(0, 9).map(str) | st.none() | st.text(max_size=3)
_a_port = st.dictionaries(st.sampled_from(["name", "internal", "external", "protocol"]), _numbers) | _numbers
_a_mapping = st.dictionaries(st.sampled_from(["game", "Game", "web-socket", "7777", "x"]), _a_port, max_size=3).flatmap(
    lambda ports: st.sampled_from([{"ports": ports}, ports, [ports]])
)


@given(
    _values | _a_mapping.map(json.dumps),
    st.dictionaries(
        st.sampled_from(
            [f"{name}_{what}" for name in ("GAME", "WEB_SOCKET", "Y") for what in ("INTERNAL", "EXTERNAL", "PROTOCOL")]
        ),
        st.sampled_from(["7778", " 7779", "TCP", "", "70000", "a\nb"]),
    ),
)
@example('{"game": {"internal": NaN}, "x": {"internal": 1}}', {})
def test_the_init_finds_the_same_ports_without_the_model(mapping: str, variables: dict[str, str]) -> None:
    """It has no pydantic; what it refuses at the start and what the agent would serve must not differ."""
    environ = {"ARBITRIUM_PORTS_MAPPING": mapping} | {
        f"ARBITRIUM_PORT_{name}": value for name, value in variables.items()
    }
    wanted = parse(environ).deployment.ports
    assert {name: (port.internal, port.external, port.protocol) for name, port in game_ports(environ).items()} == {
        name: (port.internal, port.external, port.protocol) for name, port in wanted.items()
    }


def test_a_port_with_a_dash_is_the_one_of_its_variables() -> None:
    """A variable's name has none: it is one port, not two."""
    environ = {
        "ARBITRIUM_PORTS_MAPPING": json.dumps({"ports": {"web-socket": {"internal": 8080}}}),
        "ARBITRIUM_PORT_WEB_SOCKET_INTERNAL": "8080",
        "ARBITRIUM_PORT_WEB_SOCKET_PROTOCOL": "WSS",
    }
    ports = parse(environ).deployment.ports
    assert [(name, port.internal, port.protocol) for name, port in ports.items()] == [("web-socket", 8080, "WSS")]


def refused(environ: dict[str, str]) -> bool:
    """Whether the start is, where connections to the mapping's TCP ports are to be counted."""
    return bool(list(players({"players_from": "tcp"}.__getitem__, environ)))


@pytest.mark.parametrize(
    "environ",
    [
        {"ARBITRIUM_PORT_GAME_INTERNAL": "7777", "ARBITRIUM_PORT_GAME_PROTOCOL": "TCP"},
        {"ARBITRIUM_PORTS_MAPPING": '{"game": {"internal": 7777, "protocol": "TCP"}}'},
        {"ARBITRIUM_PORTS_MAPPING": '{"ports": {"a": {"internal": 1, "protocol": "TCP"}, "b": {"internal": 2}}}'},
        {"ARBITRIUM_PORTS_MAPPING": '{"ports": {"a": {"internal": 1, "protocol": "UDP"}, "b": {"internal": 2}}}'},
        {"ARBITRIUM_PORTS_MAPPING": '{"ports": {"a": {"internal": 1, "protocol": "TCP/UDP"}, "b": null}}'},
    ],
)
def test_players_are_counted_by_connections_wherever_a_port_may_be_tcp(environ: dict[str, str]) -> None:
    """The platform names it in a variable, in a mapping of any age, with or without its protocol."""
    assert not refused(environ)
    assert any(port.protocol != "UDP" for port in parse(environ).deployment.ports.values())


@pytest.mark.parametrize(
    "mapping", ["", "{}", "[" * 100_000, '{"a": ' * 100_000, '{"game": {"internal": 1, "protocol": "UDP"}}']
)
def test_without_a_tcp_port_they_cannot_be(mapping: str) -> None:
    """That is said, and nothing else happens: this is read by PID 1."""
    assert refused({"ARBITRIUM_PORTS_MAPPING": mapping})
    assert refused({})
