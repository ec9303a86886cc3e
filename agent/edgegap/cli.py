"""`arbitrium-agent platform`: the platform's API from a shell.

This module contains only the argument parser; `commands` executes the commands, and is imported, with aiohttp, pydantic
and rich, only when one runs.

Exit codes: 0 done; 1 the platform refused, or did not answer; 2 the command line is wrong; 78 EDGEGAP_API_TOKEN is
missing or EDGEGAP_BASE_URL is wrong.
"""

import argparse
from typing import TypeAlias

from agent.command_arguments import seconds, whole

DEADLINE_SECONDS = 120.0

_STORAGE = '"true": to the storage of its version; "false": nowhere; else the name of a storage'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands of `platform`."""
    parser.description = (
        "Call the platform's API with the organisation's token (EDGEGAP_API_TOKEN), at EDGEGAP_BASE_URL "
        "(default: https://api.edgegap.com)."
    )
    parser.epilog = (
        "exit codes: 0 done; 1 the platform said no; 2 wrong usage; 78 EDGEGAP_API_TOKEN is missing or "
        "EDGEGAP_BASE_URL is wrong"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_deployments(commands)
    _add_tags(commands)
    _add_catalogue(commands)
    _add_storages(commands)
    _add_places(commands)


def run(args: argparse.Namespace) -> int:
    """Run the command that was asked for; returns the exit code."""
    from agent.edgegap import commands  # noqa: PLC0415 - late: see the module's docstring

    return commands.run(args)


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _leaf(commands: Commands, name: str, what: str, does: str) -> argparse.ArgumentParser:
    """Add a command that does something; `does` is the name of its function in `commands`."""
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.set_defaults(does=does)
    return parser


def _group(commands: Commands, name: str, what: str, does: str | None = None) -> Commands:
    """Add a group of commands; `does` is what the name alone does, None where it needs one of its commands."""
    parser = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    if does is not None:
        parser.add_argument("--json", action="store_true", help="print JSON for programs")
        parser.set_defaults(does=does)
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=does is None)


def _add_wait(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--wait", action="store_true", help=f"return when it is {what}")
    parser.add_argument(
        "--deadline",
        type=seconds,
        default=DEADLINE_SECONDS,
        metavar="SECONDS",
        help="wait at most so long (default: %(default)g)",
    )


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="a variable for the game; without a value, the one it has here (repeatable)",
    )
    parser.add_argument(
        "--hidden-env", action="append", default=[], metavar="KEY[=VALUE]", help="as --env, not shown in the dashboard"
    )


def _add_deployments(commands: Commands) -> None:
    deploy = _leaf(commands, "deploy", "create a deployment near players", "deploy")
    deploy.add_argument("application")
    deploy.add_argument("version")
    deploy.add_argument(
        "--ip", action="append", default=[], metavar="ADDRESS", help="a player, by address (repeatable)"
    )
    deploy.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="LAT,LON",
        help="a player, by degrees; --at=-33.9,151.2 (repeatable)",
    )
    _add_env(deploy)
    deploy.add_argument("--tag", action="append", default=[], help="a tag (repeatable)")
    deploy.add_argument(
        "--host-id", action="append", default=[], metavar="ID", help="a host of a private fleet, tried in order"
    )
    deploy.add_argument("--require-cached", action="store_true", help="only where the image is cached")
    for event in ("ready", "error", "terminated"):
        deploy.add_argument(f"--on-{event}", metavar="URL", help=f"call it when {event}")
    _add_wait(deploy, "ready")

    status = _leaf(commands, "status", "show a deployment", "status")
    status.add_argument("id")

    listing = _leaf(commands, "list", "list active deployments", "list_deployments")
    listing.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="status, application, version, tags, request_id, created_at, fleet_name, host_name; "
        "signs: = != >= <= ~ (~ takes %% for anything); commas for several values (repeatable)",
    )
    listing.add_argument(
        "--order",
        action="append",
        default=[],
        metavar="FIELD[:desc]",
        help="created_at or available_session_sockets (repeatable)",
    )
    listing.add_argument("--max", type=whole(1), metavar="N", help="at most so many (default: all)")

    stop = _leaf(commands, "stop", "stop a deployment", "stop")
    stop.add_argument("id")
    stop.add_argument("--log-storage", metavar="WHERE", help=f"where its logs go; {_STORAGE}")
    _add_wait(stop, "terminated")

    bulk = _leaf(commands, "bulk-stop", "stop all deployments that match", "bulk_stop")
    bulk.add_argument("--id", action="append", default=[], help="a deployment (repeatable)")
    bulk.add_argument("--tag", action="append", default=[], help="a tag (repeatable)")
    bulk.add_argument(
        "--match", choices=["any", "all", "not"], default="any", help="of the values given (default: %(default)s)"
    )

    logs = _leaf(commands, "logs", "print the logs of a stopped deployment", "logs")
    logs.add_argument("id")
    logs.add_argument("--crash", action="store_true", help="the crash logs instead")
    logs.add_argument("--colours", action="store_true", help="keep the colours of the game's output")

    metrics = _leaf(commands, "metrics", "draw the resource use of a deployment", "metrics")
    metrics.add_argument("id")
    metrics.add_argument("--start", metavar="TIME", help="ISO 8601, UTC without a zone (default: its start)")
    metrics.add_argument("--end", metavar="TIME", help="likewise (default: its end, or now)")
    metrics.add_argument("--steps", metavar="30s", help="size of a step; values are the mean over it")
    metrics.add_argument("--raw", action="store_true", default=None, help="samples as they were taken")
    metrics.add_argument("--png", metavar="FILE", help="write a picture (needs the extra: arbitrium-agent[charts])")

    hosts = _leaf(commands, "hosts", "list the hosts of a private fleet", "hosts")
    hosts.add_argument("fleet")


def _add_tags(commands: Commands) -> None:
    tags = _group(commands, "tags", "the tags of a deployment")
    _leaf(tags, "list", "list them", "tags_list").add_argument("id")
    for name, what in (("get", "show one"), ("add", "add one"), ("remove", "remove one")):
        parser = _leaf(tags, name, what, f"tags_{name}")
        parser.add_argument("id")
        parser.add_argument("name")
    rename = _leaf(tags, "rename", "rename one", "tags_rename")
    rename.add_argument("id")
    rename.add_argument("name")
    rename.add_argument("new_name")


def _add_catalogue(commands: Commands) -> None:
    apps = _group(commands, "apps", "applications; lists them without a command", "apps_list")
    _leaf(apps, "list", "list them", "apps_list")
    app = _leaf(apps, "create", "create one", "apps_create")
    app.add_argument("name")
    app.add_argument("--image", metavar="FILE", help="a picture for the dashboard")
    app.add_argument("--inactive", action="store_true", help="deployments of it are not possible yet")

    _leaf(apps, "show", "show one", "apps_show").add_argument("name")
    _leaf(apps, "delete", "delete one, with its versions", "apps_delete").add_argument("name")

    versions = _group(commands, "versions", "versions of an application")
    _leaf(versions, "list", "list them", "versions_list").add_argument("application")
    for name, what in (("show", "show one"), ("delete", "delete one"), ("update", "change one")):
        parser = _leaf(versions, name, what, f"versions_{name}")
        parser.add_argument("application")
        parser.add_argument("name")
    update = versions.choices["update"]
    update.add_argument("--tag", help="of its image: what continuous deployment changes")
    update.add_argument("--active", choices=["yes", "no"], help="whether it can be deployed")
    update.add_argument("--cpu", type=whole(1), metavar="UNITS", help="1024 is one vCPU")
    update.add_argument("--memory", type=whole(1), metavar="MB", help="at most twice the CPU units")
    update.add_argument("--restart-policy", choices=["always", "never", "on_failure"])
    update.add_argument(
        "--grace", type=whole(5, 3600), metavar="SECONDS", help="between SIGTERM and SIGKILL; 5 to 3600"
    )
    update.add_argument("--max-duration", type=whole(-1), metavar="MINUTES", help="-1 for no limit")
    update.add_argument("--storage", metavar="NAME", help="receives the logs at the stop")
    version = _leaf(versions, "create", "create one", "versions_create")
    version.add_argument("application")
    version.add_argument("name", nargs="?", help="may be left out with --file")
    version.add_argument("--file", metavar="FILE.json", help="the version as the API has it; options win over it")
    version.add_argument("--image", metavar="[REGISTRY/]IMAGE:TAG", help="registry default: docker.io")
    version.add_argument("--cpu", type=whole(1), metavar="UNITS", help="1024 is one vCPU")
    version.add_argument("--memory", type=whole(1), metavar="MB", help="at most twice the CPU units")
    version.add_argument(
        "--port", action="append", default=[], metavar="NAME:PORT/PROTOCOL", help="gameport:7777/UDP (repeatable)"
    )
    _add_env(version)
    version.add_argument("--restart-policy", choices=["always", "never", "on_failure"])
    version.add_argument(
        "--grace", type=whole(5, 3600), metavar="SECONDS", help="between SIGTERM and SIGKILL; 5 to 3600"
    )
    version.add_argument("--max-duration", type=whole(-1), metavar="MINUTES", help="-1 for no limit")
    version.add_argument("--time-to-deploy", type=whole(1), metavar="SECONDS")
    version.add_argument("--storage", metavar="NAME", help="receives the logs at the stop")
    version.add_argument("--command", help="instead of the image's")
    version.add_argument("--arguments", help="instead of the image's")
    version.add_argument(
        "--private-username", metavar="NAME", help="of the registry; its token: EDGEGAP_REGISTRY_TOKEN"
    )
    version.add_argument("--verify-image", action="store_true", default=None, help="refuse an image that is not there")


def _add_storages(commands: Commands) -> None:
    storages = _group(
        commands, "storages", "S3-compatible storages for logs; lists them without a command", "storages_list"
    )
    _leaf(storages, "list", "list them", "storages_list")
    _leaf(storages, "show", "show one", "storages_show").add_argument("name")
    what = "delete one; versions that name it keep no logs any more"
    _leaf(storages, "delete", what, "storages_delete").add_argument("name")
    for name, what, needed in (("create", "register one", True), ("update", "change one", False)):
        storage = _leaf(storages, name, what, f"storages_{name}")
        storage.add_argument("name")
        storage.add_argument("--endpoint", required=needed, metavar="URL")
        storage.add_argument("--bucket", required=needed)
        storage.add_argument("--access-key-id", required=needed, metavar="ID")
        storage.add_argument("--format", choices=["TEXT", "NDJSON"], help="of the logs (a new one: TEXT)")
        storage.add_argument(
            "--secret-file",
            metavar="FILE",
            help="holds the secret access key; - for stdin (default: EDGEGAP_STORAGE_SECRET)",
        )


def _add_places(commands: Commands) -> None:
    locations = _leaf(commands, "locations", "list the sites that can take a deployment", "locations")
    locations.add_argument("--app", metavar="NAME", help="with --app-version: only those with room for it")
    locations.add_argument("--app-version", metavar="NAME")
    locations.add_argument("--beacons", action="store_true", help="ping beacons instead")

    relays = _group(commands, "relays", "relay sessions; lists them without a command", "relays_list")
    _leaf(relays, "list", "list them", "relays_list")
    create = _leaf(relays, "create", "begin one", "relays_create")
    create.add_argument("--ip", action="append", required=True, metavar="ADDRESS", help="a player (repeatable)")
    create.add_argument("--on-ready", metavar="URL", help="call it when ready")
    for name, what in (("show", "show one"), ("delete", "end one")):
        _leaf(relays, name, what, f"relays_{name}").add_argument("id")
    authorize = _leaf(relays, "authorize", "let a further player in", "relays_authorize")
    authorize.add_argument("id")
    authorize.add_argument("ip", metavar="ADDRESS")
    revoke = _leaf(relays, "revoke", "remove a player", "relays_revoke")
    revoke.add_argument("id")
    revoke.add_argument("token", type=int, help="the player's authorization token")

    registry = _group(commands, "registry", "the organisation's container registry")
    _leaf(registry, "images", "list images", "registry_images")
    _leaf(registry, "tags", "list the tags of an image", "registry_tags").add_argument("image")
    delete = _leaf(registry, "delete", "delete a tag of an image", "registry_delete")
    delete.add_argument("image")
    delete.add_argument("tag")
