"""The commands of `arbitrium-agent platform`."""

import argparse
import asyncio
import base64
import io
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import SecretStr

from agent.edgegap import given, models, settings, tables
from agent.edgegap.client import EdgegapClient
from agent.edgegap.errors import EdgegapError, GoneError, InvalidArgumentError, MissingTokenError
from agent.edgegap.filters import Filter, Order, Query
from agent.edgegap.progress import shown_progress
from agent.edgegap.show import Output
from agent.errors import EXIT_BAD_SETTINGS, AgentError
from agent.terminal_text import safe

EXIT_REFUSED = 1
EXIT_USAGE = 2


def run(args: argparse.Namespace) -> int:
    """Run one command.

    Args:
        args: as `cli.add_arguments` has them; `does` names the function here.

    Returns:
        The exit code (see `cli`).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show must not end the command
            stream.reconfigure(errors="backslashreplace")
    out = Output(as_json=args.json)
    try:
        platform = settings.client()
    except (InvalidArgumentError, MissingTokenError) as error:
        return out.fail(error, EXIT_BAD_SETTINGS)
    try:
        asyncio.run(_with(platform, COMMANDS[args.does], args, out))
    except MissingTokenError as error:
        return out.fail(error, EXIT_BAD_SETTINGS)
    except (InvalidArgumentError, given.UsageError) as error:
        return out.fail(error, EXIT_USAGE)
    except EdgegapError as error:
        return out.fail(error, EXIT_REFUSED)
    except AgentError as error:  # a picture that cannot be drawn or written
        return out.fail(error, EXIT_USAGE)
    return 0


Command = Callable[[EdgegapClient, argparse.Namespace, Output], Awaitable[None]]


async def _with(platform: EdgegapClient, command: Command, args: argparse.Namespace, out: Output) -> None:
    async with platform:
        await command(platform, args, out)


# Deployments


async def deploy(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Create a deployment, and wait for it where that was asked."""
    users = [models.User.from_ip(address) for address in args.ip]
    users += [models.User.from_coordinates(*given.coordinates(text)) for text in args.at]
    if not users:
        raise given.UsageError("cannot deploy without a player to be near to: give --ip or --at")
    common: dict[str, Any] = {
        "application": args.application,
        "version": args.version,
        "users": users,
        "require_cached_locations": args.require_cached or None,
        "environment_variables": given.variables(args) or None,
        "tags": args.tag or None,
    } | {
        f"webhook_on_{event}": models.Webhook(url=url)
        for event in ("ready", "error", "terminated")
        if (url := getattr(args, f"on_{event}"))
    }
    if args.host_id:
        accepted = await platform.deploy_to_fleet(models.FleetDeploymentCreate(**common, private_host_ids=args.host_id))
    else:
        accepted = await platform.deploy(models.DeploymentCreate(**common))
    if not args.wait:
        out.model(accepted, lambda: tables.line(f"deployment {accepted.request_id} was accepted"))
        return
    with shown_progress(f"deployment {accepted.request_id}") as on_status:
        status = await platform.wait_until_ready(accepted.request_id, args.deadline, on_status)
    out.model(status, lambda: tables.deployment(status))


async def status(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Show a deployment."""
    found = await platform.get_deployment(args.id)
    out.model(found, lambda: tables.deployment(found))


async def list_deployments(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """List active deployments."""
    query = Query([Filter.parse(text) for text in args.filter], [Order.parse(text) for text in args.order])
    found = await platform.list_deployments(query).first(args.max)
    out.models(found, lambda: tables.deployments(found))


async def stop(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Stop a deployment, and wait for its end where that was asked."""
    try:
        result = await platform.stop_deployment(args.id, args.log_storage)
    except GoneError:  # what was asked for is so
        result = models.StopResult(message=f"deployment {args.id} is terminated already")
    if args.wait:
        with shown_progress(f"deployment {args.id}") as on_status:
            last = await platform.wait_until_terminated(args.id, args.deadline, on_status)
        result = models.StopResult(message=f"deployment {args.id} is terminated", deployment_summary=last)
    out.model(result, lambda: tables.line(result.message or f"deployment {args.id} will be stopped"))


async def bulk_stop(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Stop all deployments that match."""
    filters = [
        models.BulkFilter(field=field, values=values, filter_type=args.match)
        for field, values in (("request_id", args.id), ("deployment_tags", args.tag))
        if values
    ]
    if not filters:
        raise given.UsageError("cannot stop several deployments without saying which: give --id or --tag")
    result = await platform.bulk_stop(filters)
    out.model(result, lambda: tables.stopped(result))


async def logs(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Print the logs, harmless to a terminal (`--json`: as they are); how the container ended goes to stderr."""
    found = await platform.get_logs(args.id)
    if out.as_json:
        out.model(found, lambda: None)
        return
    text = (found.crash_logs if args.crash else found.logs) or ""
    for line in text.removesuffix("\n").split("\n") if text else ():
        sys.stdout.write(safe(line.removesuffix("\r"), keep_colours=args.colours) + "\n")
    sys.stdout.flush()
    for note in tables.log_notes(found, empty=not text):
        print(safe(note), file=sys.stderr)


async def metrics(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Draw the resource use in the terminal, into a picture, or print it."""
    from agent.edgegap import charts  # noqa: PLC0415 - only this command draws

    if args.png:
        charts.check_can_draw()
    start, end = given.moment("--start", args.start), given.moment("--end", args.end)
    found = await platform.get_metrics(args.id, start, end, args.steps, args.raw)
    if args.png:
        charts.write_png(found, args.id, args.png)
    out.model(found, lambda: charts.panels(found, args.id))
    if args.png and not out.as_json:
        print(f"wrote {args.png}", file=sys.stderr)


async def hosts(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """List the hosts of a private fleet."""
    found = await platform.list_fleet_hosts(args.fleet).first()
    out.models(found, lambda: tables.hosts(found))


# Tags


async def tags_list(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """List the tags of a deployment."""
    found = await platform.list_tags(args.id).first()
    out.models(found, lambda: tables.tags(found))


async def tags_get(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Show a tag."""
    found = await platform.get_tag(args.id, args.name)
    out.model(found, lambda: tables.tags([found]))


async def tags_add(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Add a tag."""
    made = await platform.create_tag(args.id, args.name)
    out.model(made, lambda: tables.line(f"deployment {args.id} has tag {made.name}"))


async def tags_rename(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Rename a tag."""
    made = await platform.update_tag(args.id, args.name, args.new_name)
    out.model(made, lambda: tables.line(f"tag {args.name} of deployment {args.id} is now {made.name}"))


async def tags_remove(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Remove a tag."""
    await platform.delete_tag(args.id, args.name)
    out.data({"removed": args.name}, lambda: tables.line(f"deployment {args.id} no longer has tag {args.name}"))


# Applications, versions, storages


async def apps_list(platform: EdgegapClient, _: argparse.Namespace, out: Output) -> None:
    """List the applications."""
    found = await platform.list_applications().first()
    out.models(found, lambda: tables.applications(found))


async def apps_create(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Create an application."""
    image = base64.b64encode(given.read_file(args.image)).decode() if args.image else ""
    made = await platform.create_application(
        models.Application(name=args.name, is_active=not args.inactive, image=image)
    )
    out.model(made, lambda: tables.line(f"application {made.name} was created"))


async def apps_show(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Show an application."""
    found = await platform.get_application(args.name)
    out.model(found, lambda: tables.applications([found]))


async def apps_delete(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Delete an application, with its versions."""
    await platform.delete_application(args.name)
    out.data({"deleted": args.name}, lambda: tables.line(f"application {args.name} was deleted"))


async def versions_show(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Show a version."""
    found = await platform.get_version(args.application, args.name)
    out.model(found, lambda: tables.version(found))


async def versions_update(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Change a version."""
    update = models.VersionUpdate(
        docker_tag=args.tag,
        is_active=None if args.active is None else args.active == "yes",
        req_cpu=args.cpu,
        req_memory=args.memory,
        restart_policy=args.restart_policy,
        termination_grace_period_seconds=args.grace,
        max_duration=args.max_duration,
        endpoint_storage=args.storage,
    )
    if not update.to_wire():
        raise given.UsageError("cannot change the version without saying what: give --tag, or another option")
    made = (await platform.update_version(args.application, args.name, update)).version
    done = f"version {args.name} of application {args.application} was changed"
    out.data(made.model_dump(mode="json") if made else {}, lambda: tables.line(done))


async def versions_delete(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Delete a version."""
    said = await platform.delete_version(args.application, args.name)
    out.model(said, lambda: tables.line(f"version {args.name} of application {args.application} was deleted"))


async def versions_list(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """List the versions of an application."""
    found = await platform.list_versions(args.application).first()
    out.models(found, lambda: tables.versions(found))


async def versions_create(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Create a version from a file, from options, or from both."""
    made = (await platform.create_version(args.application, given.version(args))).version
    out.model(made, lambda: tables.line(f"version {made.name} of application {args.application} was created"))


async def storages_list(platform: EdgegapClient, _: argparse.Namespace, out: Output) -> None:
    """List the endpoint storages."""
    found = await platform.list_storages().first()
    out.models(found, lambda: tables.storages(found))


async def storages_create(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Register an endpoint storage; its secret never comes from the command line, which other users can see."""
    secret = given.storage_secret(args)
    if not secret:
        raise given.UsageError(
            "cannot create a storage without its secret access key: set EDGEGAP_STORAGE_SECRET, or give --secret-file"
        )
    made = await platform.create_storage(
        models.StorageCreate(
            name=args.name,
            endpoint=args.endpoint,
            bucket=args.bucket,
            access_key_id=args.access_key_id,
            output_format=args.format,
            secret_access_key=SecretStr(secret),
        )
    )
    out.model(made, lambda: tables.line(f"storage {made.name} was created"))


async def storages_show(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Show an endpoint storage."""
    found = await platform.get_storage(args.name)
    out.model(found, lambda: tables.storages([found]))


async def storages_update(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Change an endpoint storage; a new secret comes from where `storages create` takes it."""
    secret = given.storage_secret(args)
    update = models.StorageUpdate(
        endpoint=args.endpoint,
        bucket=args.bucket,
        access_key_id=args.access_key_id,
        output_format=args.format,
        secret_access_key=SecretStr(secret) if secret else None,
    )
    if not update.to_wire():
        raise given.UsageError("cannot change the storage without saying what: give --bucket, or another option")
    made = await platform.update_storage(args.name, update)
    out.model(made, lambda: tables.line(f"storage {args.name} was changed"))


async def storages_delete(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Delete an endpoint storage."""
    await platform.delete_storage(args.name)
    out.data({"deleted": args.name}, lambda: tables.line(f"storage {args.name} was deleted"))


# Places, relays, registry


async def locations(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """List locations, or beacons."""
    if args.beacons:
        beacons = await platform.list_beacons().first()
        out.models(beacons, lambda: tables.beacons(beacons))
        return
    if (args.app is None) != (args.app_version is None):
        raise given.UsageError("cannot choose by one of --app and --app-version; give both, or neither")
    found = await platform.list_locations(args.app, args.app_version).first()
    out.models(found, lambda: tables.locations(found))


async def relays_list(platform: EdgegapClient, _: argparse.Namespace, out: Output) -> None:
    """List relay sessions."""
    found = await platform.list_relay_sessions().first()
    out.models(found, lambda: tables.relays(found))


async def relays_show(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Show a relay session."""
    found = await platform.get_relay_session(args.id)
    out.model(found, lambda: tables.relays([found]))


async def relays_create(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Begin a relay session."""
    users = [models.RelayUser(ip=address) for address in args.ip]
    made = await platform.create_relay_session(models.RelaySessionCreate(users=users, webhook_url=args.on_ready))
    out.model(made, lambda: tables.relays([made]))


async def relays_delete(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """End a relay session."""
    await platform.delete_relay_session(args.id)
    out.data({"deleted": args.id}, lambda: tables.line(f"relay session {args.id} was ended"))


async def relays_authorize(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Let a further player into a relay session; prints the player's token."""
    made = await platform.authorize_relay_user(args.id, args.ip)
    token = made.session_user.authorization_token if made.session_user else None
    out.model(made, lambda: tables.line(f"{args.ip} may join {args.id} with authorization token {token}"))


async def relays_revoke(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Remove a player from a relay session."""
    await platform.revoke_relay_user(args.id, args.token)
    out.data({"revoked": args.token}, lambda: tables.line(f"the player was removed from {args.id}"))


async def registry_images(platform: EdgegapClient, _: argparse.Namespace, out: Output) -> None:
    """List the images of the registry."""
    found = await platform.list_images().first()
    out.models(found, lambda: tables.images(found))


async def registry_tags(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """List the tags of an image."""
    found = await platform.list_image_tags(args.image).first()
    out.models(found, lambda: tables.image_tags(found))


async def registry_delete(platform: EdgegapClient, args: argparse.Namespace, out: Output) -> None:
    """Delete a tag of an image."""
    said = await platform.delete_image_tag(args.image, args.tag)
    out.model(said, lambda: tables.line(f"tag {args.tag} of image {args.image} was deleted"))


COMMANDS: dict[str, Command] = {
    command.__name__: command
    for command in (
        deploy,
        status,
        list_deployments,
        stop,
        bulk_stop,
        logs,
        metrics,
        hosts,
        tags_list,
        tags_get,
        tags_add,
        tags_rename,
        tags_remove,
        apps_list,
        apps_create,
        versions_list,
        versions_create,
        apps_show,
        apps_delete,
        versions_show,
        versions_update,
        versions_delete,
        locations,
        relays_list,
        relays_show,
        relays_create,
        relays_delete,
        relays_authorize,
        relays_revoke,
        registry_images,
        registry_tags,
        registry_delete,
        storages_list,
        storages_create,
        storages_show,
        storages_update,
        storages_delete,
    )
}
