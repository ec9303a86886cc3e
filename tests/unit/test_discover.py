"""Deployments as Prometheus targets: addresses and labels, whatever the platform says of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.discover.cli import write
from agent.discover.targets import Wanted, group, groups
from agent.edgegap.models import DeploymentListItem, DeploymentStatus
from agent.errors import AgentError

PORTS: dict[str, dict[str, object]] = {
    "gameport": {"name": "gameport", "internal": 7777, "external": 32013, "protocol": "UDP"},
    "metrics": {"name": "metrics", "internal": 9464, "external": 32014, "protocol": "TCP"},
}
LISTED: dict[str, Any] = {
    "request_id": "23c01225b99d",
    "fqdn": "23c01225b99d.pr.edgegap.net",
    "public_ip": "172.236.117.196",
    "ready": True,
    "ports": PORTS,
    "tags": ["ranked", "mode=duel"],
}
STATUS: dict[str, Any] = {
    "request_id": "23c01225b99d",
    "app_name": "arena",
    "app_version": "v12",
    "location": {"city": "Montreal", "country": "Canada", "continent": "North America", "latitude": 45.5},
}


def item(**changes: Any) -> DeploymentListItem:
    """A deployment as it is listed."""
    return DeploymentListItem.model_validate(LISTED | changes)


def target(wanted: Wanted | None = None, **changes: Any) -> tuple[str, dict[str, str]]:
    """Address and labels of a deployment with these changes."""
    found: Any = group(item(**changes), DeploymentStatus.model_validate(STATUS), wanted or Wanted())
    assert found is not None
    (address,) = found["targets"]
    return address, found["labels"]


def test_a_deployment_is_its_external_metrics_port_with_labels_of_what_it_runs_and_where() -> None:
    """The plain labels stay on every series; the others are for relabelling."""
    address, labels = target()
    assert address == "172.236.117.196:32014"
    assert {name: value for name, value in labels.items() if not name.startswith("__")} == {
        "deployment": "23c01225b99d",
        "application": "arena",
        "app_version": "v12",
        "city": "Montreal",
        "country": "Canada",
        "continent": "North America",
    }
    assert labels["__meta_edgegap_tags"] == ",mode=duel,ranked,"
    assert (labels["__meta_edgegap_tag_mode"], labels["__meta_edgegap_tag_ranked"]) == ("duel", "true")
    assert (labels["__scheme__"], labels["__metrics_path__"]) == ("http", "/metrics")


@pytest.mark.parametrize("port", [{"protocol": "HTTPS"}, {"protocol": "WSS"}, {"tls_upgrade": True}])
def test_a_port_that_the_platform_encrypts_is_scraped_by_name_over_tls(port: dict[str, object]) -> None:
    """A certificate is for a name, not for an address."""
    address, labels = target(ports={"metrics": PORTS["metrics"] | port})
    assert (address, labels["__scheme__"]) == ("23c01225b99d.pr.edgegap.net:32014", "https")


@pytest.mark.parametrize(
    ("wanted", "changes", "address"),
    [
        (Wanted(), {"ports": {"9464": {"internal": 9464, "external": 5}}}, "172.236.117.196:5"),
        (Wanted(("gameport",)), {}, "172.236.117.196:32013"),
        (Wanted(address="fqdn"), {}, "23c01225b99d.pr.edgegap.net:32014"),
        (Wanted(), {"public_ip": ""}, "23c01225b99d.pr.edgegap.net:32014"),
        (Wanted(), {"public_ip": "2001:db8::1"}, "[2001:db8::1]:32014"),
    ],
)
def test_the_port_and_the_address_can_be_chosen(wanted: Wanted, changes: dict[str, Any], address: str) -> None:
    """By name, by number inside, as name or address."""
    assert target(wanted, **changes)[0] == address


@pytest.mark.parametrize(
    "changes",
    [
        {"ports": {}},
        {"ports": {"gameport": PORTS["gameport"]}},
        {"ports": {"metrics": {"name": "metrics", "internal": 9464}}},
        {"public_ip": "", "fqdn": ""},
    ],
)
def test_what_cannot_be_scraped_is_no_target(changes: dict[str, Any]) -> None:
    """No metrics port, none outside yet, no address yet."""
    assert group(item(**changes), None, Wanted()) is None


@given(st.lists(st.text(min_size=1, max_size=40), max_size=5), st.booleans())
def test_labels_are_what_prometheus_takes_whatever_the_tags_are(tags: list[str], known: bool) -> None:
    """A tag is free text; one bad label name would make Prometheus refuse the whole list."""
    (found,) = groups(
        [item(tags=tags)], {"23c01225b99d": DeploymentStatus.model_validate(STATUS) if known else None}, Wanted()
    )
    labels: Any = found["labels"]
    assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in labels)
    assert all(isinstance(value, str) and value for value in labels.values())


def test_the_file_is_written_as_a_whole_and_for_others_to_read(tmp_path: Path) -> None:
    """Prometheus runs as another user, and may look at any moment; nothing else is left in the directory."""
    path = tmp_path / "targets.json"
    write(str(path), [{"targets": ["a:1"], "labels": {}}])
    write(str(path), [])
    assert json.loads(path.read_text()) == []
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(AgentError, match=r"cannot write .*nowhere.*; name a file"):
        write(str(tmp_path / "nowhere" / "targets.json"), [])
    path.unlink()
    path.mkdir()
    (path / "full").touch()
    with pytest.raises(AgentError, match="cannot write"):
        write(str(path), [])
    assert list(tmp_path.iterdir()) == [path]
