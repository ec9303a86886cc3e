"""Builds the Grafana dashboards from the lists below, with Grafana's foundation SDK.

`python -m deploy.dashboards` writes `deploy/grafana/*.json`; with `--check` it changes nothing and exits 1 where one is
old.
Import the JSON into Grafana 10 or newer, or let it provision the directory, as the compose file does.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableRefresh

FOLDER = Path(__file__).parent / "grafana"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
HEIGHT = 8


@dataclass(frozen=True)
class Query:
    """One line of a panel: PromQL, and what it is called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Shown:
    """One panel.

    Attributes:
        title: what it shows.
        unit: Grafana's name of the unit.
        queries: its lines.
        kind: a graph over time, the same stacked, or the last number.
        what: for whoever points at its title.
        width: of 24.
    """

    title: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "stack", "number"] = "lines"
    what: str = ""
    width: int = 8


_F = 'application=~"$application",app_version=~"$version",city=~"$city"'
_D = 'deployment="$deployment"'
_READY = f'arbitrium_phase{{arbitrium_phase="ready",{_F}}}'


def _rate(counter: str, legend: str, *, by: str = "", of: str = "") -> Query:
    """How fast a counter of one deployment grows: each of its series, or their sums by a label."""
    rate = f"rate({counter}{{{of}{_D}}}[$__rate_interval])"
    return Query(f"sum by ({by}) ({rate})" if by else rate, legend)


FLEET: dict[str, tuple[Shown, ...]] = {
    "Now": (
        Shown("Deployments", "short", (Query(f"count(up{{{_F}}})"),), "number", "On the platform's list.", 4),
        Shown("Ready", "short", (Query(f"sum({_READY})"),), "number", "Ready for players.", 4),
        Shown("Players", "short", (Query(f"sum(arbitrium_players{{{_F}}})"),), "number", "", 4),
        Shown(
            "Empty and ready",
            "short",
            (Query(f"count((arbitrium_players{{{_F}}} == 0) and on (instance, job) ({_READY} == 1)) or vector(0)"),),
            "number",
            "Billed, and nobody plays.",
            4,
        ),
        Shown(
            "Silent agents", "short", (Query(f"sum(1 - up{{{_F}}})"),), "number", "Deployed, but no scrape succeeds.", 4
        ),
        Shown(
            "OOM kills in an hour",
            "short",
            (Query(f"sum(increase(arbitrium_container_oom_kills_total{{{_F}}}[1h])) or vector(0)"),),
            "number",
            "",
            4,
        ),
    ),
    "Over time": (
        Shown(
            "Deployments by version",
            "short",
            (Query(f"count by (app_version) (up{{{_F}}})", "{{app_version}}"),),
            "stack",
        ),
        Shown("Players by city", "short", (Query(f"sum by (city) (arbitrium_players{{{_F}}})", "{{city}}"),), "stack"),
        Shown(
            "Phases",
            "short",
            (Query(f"sum by (arbitrium_phase) (arbitrium_phase{{{_F}}}) > 0", "{{arbitrium_phase}}"),),
            "stack",
        ),
        Shown(
            "Stops by reason",
            "short",
            (
                Query(
                    f"sum by (reason) (increase(arbitrium_stop_requests_total{{{_F}}}[$__rate_interval]))", "{{reason}}"
                ),
            ),
            "stack",
        ),
        Shown(
            "Restarts after crashes",
            "short",
            (
                Query(
                    f"sum by (app_version) (increase(arbitrium_game_restarts_total{{{_F}}}[$__rate_interval]))",
                    "{{app_version}}",
                ),
            ),
        ),
        Shown(
            "Self-stops",
            "short",
            (
                Query(
                    f"sum by (result) (increase(arbitrium_self_stop_attempts_total{{{_F}}}[$__rate_interval]))",
                    "{{result}}",
                ),
            ),
        ),
    ),
    "The worst ten": (
        Shown(
            "CPU of the container",
            "percentunit",
            (
                Query(
                    f"topk(10, rate(arbitrium_container_cpu_seconds_total{{{_F}}}[$__rate_interval]))", "{{deployment}}"
                ),
            ),
        ),
        Shown(
            "Throttled periods",
            "percentunit",
            (
                Query(
                    f"topk(10, rate(arbitrium_container_cpu_throttled_periods_total{{{_F}}}[$__rate_interval]) "
                    f"/ rate(arbitrium_container_cpu_periods_total{{{_F}}}[$__rate_interval]))",
                    "{{deployment}}",
                ),
            ),
            what="Above a quarter, players feel it.",
        ),
        Shown(
            "Memory of the game",
            "bytes",
            (Query(f"topk(10, arbitrium_game_resident_memory_bytes{{{_F}}})", "{{deployment}}"),),
        ),
        Shown(
            "Lost datagrams",
            "cps",
            (
                Query(
                    "topk(10, sum by (deployment) "
                    f"(rate(arbitrium_game_socket_drops_total{{{_F}}}[$__rate_interval])))",
                    "{{deployment}}",
                ),
            ),
            what="Thrown away by the kernel at the game's sockets: lag.",
        ),
        Shown(
            "Log given up",
            "Bps",
            (Query(f"topk(10, rate(arbitrium_log_dropped_bytes_total{{{_F}}}[$__rate_interval]))", "{{deployment}}"),),
        ),
        Shown(
            "Age of the last heartbeat",
            "s",
            (Query(f"topk(10, arbitrium_heartbeat_age_seconds{{{_F}}})", "{{deployment}}"),),
        ),
    ),
}

DEPLOYMENT: dict[str, tuple[Shown, ...]] = {
    "Life": (
        Shown("Phase", "short", (Query(f"arbitrium_phase{{{_D}}} == 1", "{{arbitrium_phase}}"),), "number", "", 6),
        Shown("Running for", "s", (Query(f"time() - arbitrium_game_start_time_seconds{{{_D}}}"),), "number", "", 6),
        Shown("Players", "short", (Query(f"arbitrium_players{{{_D}}}"),), "number", "", 6),
        Shown("Restarts", "short", (Query(f"arbitrium_game_restarts_total{{{_D}}}"),), "number", "", 6),
        Shown(
            "Players",
            "short",
            (Query(f"arbitrium_players{{{_D}}}", "now"), Query(f"arbitrium_players_capacity{{{_D}}}", "capacity")),
        ),
        Shown("Heartbeat", "s", (Query(f"arbitrium_heartbeat_age_seconds{{{_D}}}", "age"),)),
        Shown(
            "Phases over time",
            "short",
            (Query(f"arbitrium_phase{{{_D}}} == 1", "{{arbitrium_phase}}"),),
            "stack",
        ),
    ),
    "Resources": (
        Shown(
            "CPU",
            "short",
            (
                _rate("arbitrium_game_cpu_seconds_total", "game, {{mode}}", by="mode"),
                _rate("arbitrium_container_cpu_seconds_total", "container"),
            ),
            what="In CPUs.",
        ),
        Shown(
            "Memory",
            "bytes",
            (
                Query(f"arbitrium_game_resident_memory_bytes{{{_D}}}", "game"),
                Query(f"arbitrium_container_memory_working_set_bytes{{{_D}}}", "container, working set"),
            ),
        ),
        Shown(
            "Waiting for CPU, memory, disk (PSI)",
            "percentunit",
            (_rate("arbitrium_container_pressure_seconds_total", "{{resource}}", of='share="some",'),),
        ),
        Shown("Threads", "short", (Query(f"arbitrium_game_threads{{{_D}}}", "game"),)),
        Shown("Open files", "short", (Query(f"arbitrium_game_open_fds{{{_D}}}", "game"),)),
        Shown(
            "Context switches",
            "cps",
            (_rate("arbitrium_game_context_switches_total", "{{kind}}"),),
        ),
    ),
    "Network": (
        Shown(
            "Traffic",
            "Bps",
            (_rate("arbitrium_container_network_bytes_total", "{{direction}}", by="direction"),),
        ),
        Shown(
            "Datagrams",
            "cps",
            (_rate("arbitrium_container_udp_datagrams_total", "{{direction}}"),),
        ),
        Shown(
            "Queue of the game's sockets",
            "bytes",
            (Query(f"arbitrium_game_socket_queue_bytes{{{_D}}}", "{{port}}/{{protocol}} {{direction}}"),),
            what="One that does not empty is a game that does not read.",
        ),
        Shown(
            "Lost datagrams",
            "cps",
            (
                _rate("arbitrium_game_socket_drops_total", "port {{port}}"),
                _rate("arbitrium_container_udp_errors_total", "{{why}}"),
            ),
        ),
    ),
    "Log and agent": (
        Shown(
            "Log",
            "Bps",
            (
                _rate("arbitrium_log_received_bytes_total", "{{stream}}"),
                _rate("arbitrium_log_dropped_bytes_total", "given up"),
            ),
        ),
        Shown(
            "Requests to the agent",
            "reqps",
            (_rate("arbitrium_agent_requests_total", "{{operation}}", by="operation"),),
        ),
        Shown(
            "Answer time of the agent, 99 %",
            "s",
            (
                Query(
                    "histogram_quantile(0.99, sum by (le) (rate("
                    f"arbitrium_agent_request_duration_seconds_bucket{{{_D}}}[$__rate_interval])))",
                    "p99",
                ),
            ),
        ),
        Shown(
            "Memory of the agent",
            "bytes",
            (Query(f"arbitrium_agent_process_resident_memory_bytes{{{_D}}}", "{{process}}"),),
        ),
        Shown(
            "Scrape", "s", (Query(f"scrape_duration_seconds{{{_D}}}", "duration"),), what="As Prometheus measures it."
        ),
    ),
}

BOARDS = {"fleet": FLEET, "deployment": DEPLOYMENT}


def _panel(shown: Shown) -> Any:
    panel: Any
    if shown.kind == "number":
        panel = stat.Panel().graph_mode(BigValueGraphMode.AREA)
    else:
        legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
        tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        panel = timeseries.Panel().fill_opacity(10).min(0).legend(legend.show_legend(True)).tooltip(tooltip)
        if shown.kind == "stack":
            panel = panel.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    panel = panel.title(shown.title).unit(shown.unit).datasource(SOURCE)
    if shown.what:
        panel = panel.description(shown.what)
    for number, query in enumerate(shown.queries):
        target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + number)).datasource(SOURCE)
        panel = panel.with_target(target.legend_format(query.legend or "__auto"))
    return panel.span(shown.width).height(HEIGHT if shown.kind != "number" else HEIGHT // 2)


def _variable(name: str, label: str, query: str, *, every: bool) -> QueryVariable:
    variable = (
        QueryVariable(name).label(label).datasource(SOURCE).query(query).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )
    return variable.multi(True).include_all(True).all_value(".*") if every else variable


def _board(title: str, uid: str, rows: dict[str, tuple[Shown, ...]], variables: list[QueryVariable]) -> str:
    board = (
        Dashboard(title)
        .uid(uid)
        .tags(["arbitrium-agent"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in variables:
        board = board.with_variable(variable)
    for name, panels in rows.items():
        board = board.with_row(Row(name))
        for shown in panels:
            board = board.with_panel(_panel(shown))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def build() -> dict[str, str]:
    """The dashboards as JSON, by file name."""
    fleet = _board(
        "Game servers: fleet",
        "arbitrium-fleet",
        FLEET,
        [
            _variable("application", "Application", "label_values(up, application)", every=True),
            _variable("version", "Version", 'label_values(up{application=~"$application"}, app_version)', every=True),
            _variable("city", "City", 'label_values(up{application=~"$application"}, city)', every=True),
        ],
    )
    deployment = _board(
        "Game servers: one deployment",
        "arbitrium-deployment",
        DEPLOYMENT,
        [_variable("deployment", "Deployment", "label_values(up, deployment)", every=False)],
    )
    return {"fleet.json": fleet, "deployment.json": deployment}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    old = [
        name for name, text in build().items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text
    ]
    if check:
        return int(bool(old))
    for name, text in build().items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
