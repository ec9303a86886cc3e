"""Answers as tables for people. Everything from the platform goes through `line`, which makes it harmless."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.edgegap import models
from agent.edgegap.models import State
from agent.terminal_text import safe

_COLOURS = {
    State.READY: "green",
    State.ERROR: "red",
    State.TERMINATING: "yellow",
    State.TERMINATED: "dim",
}


def line(text: str, style: str = "") -> Text:
    """One line of text from outside, harmless to print."""
    return Text(safe(text), style=style)


def deployment(status: models.DeploymentStatus) -> RenderableType:
    """Show one deployment: its facts, then its ports."""
    location = status.location
    rows: list[tuple[str, str | Text | None]] = [
        ("deployment", line(status.request_id, style="bold")),
        ("state", Text(str(status.state).lower(), style=_COLOURS.get(status.state, "cyan"))),
        ("error", status.error_detail),
        ("application", f"{status.app_name} {status.app_version}".strip()),
        ("address", _joined([status.fqdn, status.public_ip], ", ")),
        ("location", _joined([location.city, location.country, location.continent], ", ") if location else None),
        ("ready since", _moment(status.start_time)),
        ("running for", None if not status.elapsed_time else f"{status.elapsed_time} s"),
        ("longest", _minutes(status.max_duration)),
        ("ends", _moment(status.removal_time)),
        ("tags", ", ".join(status.tags)),
    ]
    facts = _facts(rows)
    if not status.ports:
        return facts
    ports = _table("port", "internal", "external", "protocol", "link")
    for name, port in status.ports.items():
        _row(ports, port.name or name, port.internal, port.external, port.protocol, port.link)
    return Group(facts, ports)


def deployments(found: Sequence[models.DeploymentListItem]) -> RenderableType:
    """List deployments."""
    table = _table("deployment", "ready", "address", "ports", "since", "tags")
    for item in found:
        ready = Text("yes", style="green") if item.ready else Text("no", style="yellow")
        _row(
            table,
            item.request_id,
            ready,
            item.public_ip or item.fqdn,
            _ports(item.ports),
            _moment(item.start_time),
            ", ".join(item.tags),
        )
    return _or_none(table, "no deployments")


def stopped(result: models.BulkStopResult) -> RenderableType:
    """List the deployments that a bulk stop will end."""
    table = _table("will be stopped")
    for accepted in result.processable:
        _row(table, accepted.request_id)
    return _or_none(table, "no deployment matches")


def log_notes(logs: models.Logs, *, empty: bool) -> list[str]:
    """Say what there is to know beside the log's text."""
    notes = []
    if empty:
        notes.append("no logs: it is still running, nothing was printed, or its version has no storage")
    crash = logs.crash_data
    if crash is not None and (crash.exit_code is not None or crash.message):
        code = f"exit code {crash.exit_code}" if crash.exit_code is not None else ""
        restarts = f"{crash.restart_count} restarts" if crash.restart_count else ""
        notes.append("it ended: " + _joined([code, crash.message, restarts], ", "))
    if logs.logs_link:
        notes.append(f"stored at {logs.logs_link}")
    return notes


def hosts(found: Sequence[models.Host]) -> RenderableType:
    """List the hosts of a fleet, with what they have left."""
    table = _table("host", "status", "address", "place", "cpu used", "cpu free", "memory used", "memory free")
    for host in found:
        _row(
            table,
            host.host_id,
            host.status.lower(),
            host.ip_address,
            _joined([host.city, host.country], ", "),
            _vcpu(host.allocated_cpu_units),
            _vcpu(host.allocatable_cpu_units),
            _megabytes(host.allocated_memory_mb),
            _megabytes(host.allocatable_memory_mb),
        )
    return _or_none(table, "no hosts")


def tags(found: Sequence[models.Tag]) -> RenderableType:
    """List tags."""
    table = _table("tag", "created", "changed")
    for tag in found:
        _row(table, tag.name, _moment(tag.create_time), _moment(tag.last_updated))
    return _or_none(table, "no tags")


def applications(found: Sequence[models.Application]) -> RenderableType:
    """List applications."""
    table = _table("application", "active", "created", "changed")
    for app in found:
        _row(table, app.name, _yes(app.is_active), _moment(app.create_time), _moment(app.last_updated))
    return _or_none(table, "no applications")


def versions(found: Sequence[models.Version]) -> RenderableType:
    """List versions."""
    table = _table("version", "active", "image", "cpu", "memory", "ports", "restart", "grace", "longest", "log storage")
    for version in found:
        _row(
            table,
            version.name,
            _yes(version.is_active),
            _image(version),
            _vcpu(version.req_cpu),
            _megabytes(version.req_memory),
            _version_ports(version),
            version.restart_policy,
            _seconds(version.termination_grace_period_seconds),
            _minutes(version.max_duration),
            version.endpoint_storage,
        )
    return _or_none(table, "no versions")


def version(found: models.Version) -> RenderableType:
    """Show one version; of its variables the names, since a value may be long or a secret."""
    cached = None if found.caching_percent is None else f"at {found.caching_percent:.0%} of the sites"
    return _facts(
        [
            ("version", line(found.name, style="bold")),
            ("active", _yes(found.is_active)),
            ("image", _image(found)),
            ("cached", cached),
            ("command", found.command),
            ("arguments", found.arguments),
            ("cpu", _vcpu(found.req_cpu)),
            ("memory", _megabytes(found.req_memory)),
            ("ports", _version_ports(found)),
            ("variables", ", ".join(env.key for env in found.envs or [])),
            ("restart policy", found.restart_policy),
            ("grace", _seconds(found.termination_grace_period_seconds)),
            ("longest", _minutes(found.max_duration)),
            ("time to deploy", _seconds(found.time_to_deploy)),
            ("log storage", found.endpoint_storage),
            ("created", _moment(found.create_time)),
            ("changed", _moment(found.last_updated)),
        ]
    )


def storages(found: Sequence[models.Storage]) -> RenderableType:
    """List endpoint storages; the platform does not give their secrets."""
    table = _table("storage", "endpoint", "bucket", "access key", "format")
    for storage in found:
        _row(table, storage.name, storage.endpoint, storage.bucket, storage.access_key_id, storage.output_format)
    return _or_none(table, "no storages")


def locations(found: Sequence[models.CloudLocation]) -> RenderableType:
    """List sites."""
    table = _table("city", "country", "continent", "division", "latitude", "longitude")
    for site in found:
        degrees = (site.latitude, site.longitude)
        _row(table, site.city, site.country, site.continent, site.administrative_division, *degrees)
    return _or_none(table, "no locations")


def beacons(found: Sequence[models.PingBeacon]) -> RenderableType:
    """List ping beacons."""
    table = _table("host", "name", "udp", "tcp", "place")
    for beacon in found:
        place = _joined([beacon.location.city, beacon.location.country], ", ") if beacon.location else None
        _row(table, beacon.host, beacon.fqdn, beacon.udp_port, beacon.tcp_port, place)
    return _or_none(table, "no beacons")


def relays(found: Sequence[models.RelaySession]) -> RenderableType:
    """List relay sessions, with where each role connects."""
    table = _table("session", "status", "server", "client", "players", "error")
    for session in found:
        ports = session.relay.ports if session.relay else None
        server, client = (ports.server, ports.client) if ports else (None, None)
        links = (server.link if server else None, client.link if client else None)
        players = ", ".join(user.ip_address for user in session.session_users)
        _row(table, session.session_id, session.status, *links, players, session.error)
    return _or_none(table, "no relay sessions")


def images(found: Sequence[models.RegistryImage]) -> RenderableType:
    """List images."""
    table = _table("image")
    for image in found:
        _row(table, image.image_name)
    return _or_none(table, "no images")


def image_tags(found: Sequence[models.ImageTag]) -> RenderableType:
    """List tags of an image."""
    table = _table("tag", "pushed", "size", "hash")
    for tag in found:
        size = tag.artifact.size_mb if tag.artifact else None
        image_hash = tag.artifact.image_hash if tag.artifact else None
        _row(table, tag.tag, _moment(tag.last_push_at), None if size is None else f"{size:g} MB", image_hash)
    return _or_none(table, "no tags")


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    table.add_row(*(cell if isinstance(cell, Text) else line("" if cell is None else str(cell)) for cell in cells))


def _facts(rows: Iterable[tuple[str, str | Text | None]]) -> Table:
    """Names with their values, one a line; those without a value are left out."""
    facts = Table.grid(padding=(0, 2))
    for name, value in rows:
        if value:
            facts.add_row(Text(name, style="dim"), value if isinstance(value, Text) else line(value))
    return facts


def _or_none(table: Table, text: str) -> RenderableType:
    return table if table.row_count else Text(text, style="dim")


def _ports(ports: Mapping[str, models.Port]) -> str:
    return ", ".join(
        f"{port.name or name} {port.external}→{port.internal}/{port.protocol}" for name, port in ports.items()
    )


def _joined(parts: Iterable[str | None], separator: str) -> str:
    return separator.join(part for part in parts if part)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S %Z")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _image(version: models.Version) -> str:
    """`repository/image:tag`, with what there is of it."""
    return _joined([_joined([version.docker_repository, version.docker_image], "/"), version.docker_tag], ":")


def _version_ports(version: models.Version) -> str:
    ports = version.ports or []
    return ", ".join(f"{_joined([port.name, str(port.port)], ':')}/{port.protocol}" for port in ports)


def _seconds(seconds: int | None) -> str:
    return "" if seconds is None else f"{seconds} s"


def _minutes(minutes: int | None) -> str:
    """A maximum duration; a negative one is none."""
    return "" if minutes is None else "none" if minutes < 0 else f"{minutes} min"


def _vcpu(units: int | None) -> str:
    return "" if units is None else f"{units / 1024:.3g} vCPU"


def _megabytes(megabytes: int | None) -> str:
    return "" if megabytes is None else f"{megabytes} MB"
