"""What lies in deploy/: rules that fire, a line in the runbook for each, dashboards that are what their code makes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import dashboards
from docs import metric_rows

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)
OTHERS = {
    "up",
    "scrape_duration_seconds",
    "prometheus_sd_http_failures_total",
    "arbitrium_discover_last_success_timestamp_seconds",
}


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Every PromQL expression that is shipped."""
    boards = [
        query.expr
        for board in dashboards.BOARDS.values()
        for rows in board.values()
        for p in rows
        for query in p.queries
    ]
    return [str(rule["expr"]) for rule in rules()] + boards


@cache
def exposed() -> frozenset[str]:
    """The names of all series of an agent."""
    names = {row[0].strip("`") for row in metric_rows.rows()}
    return frozenset(names | {f"{name}_bucket" for name in names})


@pytest.mark.parametrize("expression", expressions())
def test_rules_and_dashboards_ask_for_metrics_that_there_are(expression: str) -> None:
    """A metric that is renamed makes an alert silent for ever, and nobody sees it."""
    names = set(re.findall(r"\barbitrium_\w+(?=[{\[ )]|$)|\bup\b|\bprometheus_\w+|\bscrape_\w+", expression))
    names -= set(re.findall(r"\((\w+)\) ", expression))  # of `by (...)`
    assert names - {"arbitrium_phase"} <= exposed() | OTHERS


def test_every_alert_has_a_line_in_the_runbook_and_a_case_for_firing_and_for_silence() -> None:
    """Whoever is woken by it finds what to do."""
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    cases = {test["name"] for test in yaml.safe_load((RULES.parent / "rules_test.yml").read_text())["tests"]}
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 0
    for name in names:
        assert f"| {name} |" in runbook
        assert {f"{name} fires", f"{name} stays quiet"} <= cases
    assert re.findall(r"^\| (Arbitrium\w+) \|", runbook, re.MULTILINE) == names


@needs_promtool
@pytest.mark.parametrize("arguments", [["check", "rules", "rules.yml"], ["test", "rules", "rules_test.yml"]])
def test_promtool_takes_the_rules_and_sees_each_alert_fire(arguments: list[str]) -> None:
    """With Prometheus's own tool."""
    done = subprocess.run(["promtool", *arguments], cwd=RULES.parent, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_are_what_their_code_makes() -> None:
    """`python -m deploy.dashboards` writes them."""
    for name, text in dashboards.build().items():
        assert (dashboards.FOLDER / name).read_text() == text, f"{name} is old: run python -m deploy.dashboards"


def test_the_compose_file_mounts_what_there_is() -> None:
    """A file that is not there becomes an empty directory in the container, and Prometheus does not start."""
    folder = ROOT / "deploy"
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    mounts = [volume.split(":") for service in services.values() for volume in service.get("volumes", [])]
    paths = [folder / source for source, *_ in mounts if source.startswith(".")]
    assert len(paths) > 5
    assert [path for path in paths if not path.exists()] == []
    for service in services.values():
        depends = service.get("depends_on", [])
        assert set(depends) <= set(services)


@needs_promtool
def test_prometheus_takes_the_configuration_of_the_compose_file(tmp_path: Path) -> None:
    """With the rules beside it, as the container has them."""
    folder = ROOT / "deploy"
    for path in (folder / "compose" / "prometheus.yml", RULES):
        (tmp_path / path.name).write_text(path.read_text())
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")], text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_emulator_takes_the_versions_of_the_compose_file() -> None:
    """Each declares the port that discovery looks for."""
    versions = tomllib.loads((ROOT / "deploy" / "compose" / "versions.toml").read_text())["applications"][0]["versions"]
    assert len(versions) == 2
    for version in versions:
        assert "metrics" in {port["name"] for port in version["ports"]}
    done = subprocess.run(
        [sys.executable, "-m", "agent", "emulate", "--check", str(ROOT / "deploy" / "compose" / "versions.toml")],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
