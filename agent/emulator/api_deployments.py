"""The deployment API for backends: deploy, status, list, stop (DELETE), logs, metrics, hosts."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.emulator.catalogue import now
from agent.emulator.deployment import Deployment, StopRequest
from agent.emulator.errors import ApiError
from agent.emulator.filters import Query, bulk_selected, moment, parse_query, selected
from agent.emulator.models import (
    BetaDeploymentCreate,
    BulkStop,
    DeploymentCreate,
    DeploymentUpdate,
    DeploymentVariable,
    DeployV1,
    FleetDeploymentCreate,
    LocationFilter,
    Report,
    User,
    UserData,
    Webhook,
)
from agent.emulator.places import FILTERED, PLACES, selected_places
from agent.emulator.platform import Platform
from agent.emulator.reading import note_ignored, one, paged, read_body
from agent.emulator.samples import MOST_POINTS, metrics_json, parse_steps
from agent.emulator.storage import read_logs
from agent.emulator.web import PAGED, PLATFORM, Operation, answer


def _deployment(request: web.Request) -> Deployment:
    return request.app[PLATFORM].deployment(request.match_info["deployment_id"])


def stop_answer(deployment: Deployment, platform: Platform) -> dict[str, Any]:
    """The contract's `StopResult`."""
    return {
        "message": f"{deployment.id} - Delete request will be processed soon",
        "deployment_summary": deployment.status_json(platform.settings.minute_seconds),
    }


async def deploy(request: web.Request) -> web.Response:
    """`POST /v2/deployments`."""
    return _accepted(request, await read_body(request, DeploymentCreate))


async def deploy_to_fleet(request: web.Request) -> web.Response:
    """`POST /v2/private-fleets/deployments`."""
    return _accepted(request, await read_body(request, FleetDeploymentCreate))


async def deploy_beta(request: web.Request) -> web.Response:
    """`POST /beta/deployments`: other names for the same, and a webhook that hears of ready and of an error."""
    body = await read_body(request, BetaDeploymentCreate)
    wanted = DeploymentCreate(
        application=body.application_name,
        version=body.version,
        users=[User(user_type="ip_address", user_data=UserData(ip_address=user.ip_address)) for user in body.users],
        environment_variables=body.environment_variables,
        tags=body.tags,
    )
    wanted.webhook_on_ready = wanted.webhook_on_error = body.webhook
    return _accepted(request, wanted)


def _accepted(request: web.Request, body: DeploymentCreate) -> web.Response:
    changes: dict[str, Any] = {}
    if body.resources is not None:
        asked = {"req_cpu": body.resources.cpu_units, "req_memory": body.resources.memory_mib}
        changes = {name: value for name, value in asked.items() if value is not None}
    return answer({"request_id": request.app[PLATFORM].deploy(body, changes=changes).id}, 202)


async def deploy_v1(request: web.Request) -> web.Response:
    """`POST /v1/deploy`: an application that is not there is 404 here."""
    platform = request.app[PLATFORM]
    body = await read_body(request, DeployV1)
    filters = _filters(body)
    note_ignored(
        request, [f"the filter by {each.field} (without effect here)" for each in filters if each.field not in FILTERED]
    )
    kept = body.container_log_storage
    changes = body.model_dump(include={"command", "arguments"}, exclude_unset=True, exclude_none=True)
    wanted = DeploymentCreate(
        application=body.app_name,
        version=body.version_name or _latest_version(platform, body.app_name),
        users=_players(body),
        environment_variables=[
            DeploymentVariable(key=each.key, value=each.value, is_hidden=each.hidden) for each in body.env_vars
        ],
        tags=body.tags,
    )
    wanted.webhook_on_ready = Webhook(url=body.webhook_url) if body.webhook_url else None
    deployment = platform.deploy(
        wanted,
        unknown_status=404,
        places=selected_places(PLACES, filters),
        log_storage=None if kept is None else (kept.endpoint_storage or "true") if kept.enabled else "false",
        changes=changes,
    )
    place = deployment.location
    assert place is not None
    return answer(
        {
            "request_id": deployment.id,
            "request_dns": deployment.fqdn,
            "request_app": body.app_name,
            "request_version": wanted.version,
            "request_user_count": len(wanted.users),
            "filters": [each.model_dump() for each in body.filters],
            "tags": list(deployment.tags),
            "city": place.city,
            "country": place.country,
            "continent": place.continent,
            "administrative_division": place.administrative_division,
            **({"container_log_storage": kept.model_dump(exclude_none=True)} if kept else {}),
        }
    )


def _filters(body: DeployV1) -> list[LocationFilter]:
    """Its filters, and what it names one by one."""
    named = {name: getattr(body, name) for name in ("city", "country", "continent", "administrative_division")}
    return [
        *body.filters,
        *(LocationFilter(field=name, values=[value], filter_type="any") for name, value in named.items() if value),
    ]


def _players(body: DeployV1) -> list[User]:
    """Where its players are; `location` wins, and without any a place is chosen as if one were at the first city."""

    def at(latitude: float, longitude: float) -> User:
        return User(user_type="geo_coordinates", user_data=UserData(latitude=latitude, longitude=longitude))

    count = max(1, len(body.ip_list), len(body.geo_ip_list))
    if body.location is not None:
        return [at(body.location.latitude, body.location.longitude)] * count
    if body.ip_list:
        return [User(user_type="ip_address", user_data=UserData(ip_address=each)) for each in body.ip_list]
    if body.geo_ip_list:
        return [at(each.latitude, each.longitude) for each in body.geo_ip_list]
    return [at(PLACES[0].latitude, PLACES[0].longitude)]


def _latest_version(platform: Platform, application: str) -> str:
    """The version that was created last.

    Raises:
        ApiError: 404, the application is not there, or has none.
    """
    versions = platform.catalogue.application(application).versions
    if not versions:
        raise ApiError(404, f"cannot deploy: application {application} has no version; create one")
    return max(versions.values(), key=lambda version: version.created).body.name


async def update_deployment(request: web.Request) -> web.Response:
    """`PATCH /v1/deployments/{request_id}`."""
    deployment = request.app[PLATFORM].deployment(request.match_info["request_id"])
    body = await read_body(request, DeploymentUpdate)
    if "is_joinable_by_session" in body.model_fields_set:
        deployment.is_joinable = body.is_joinable_by_session
    return answer({"is_joinable_by_session": bool(deployment.is_joinable)})


async def report_deployment(request: web.Request) -> web.Response:
    """`POST /v1/deployments/{deployment_id}:report`: on the log and the page; 400 without the deployment."""
    platform, deployment_id = request.app[PLATFORM], request.match_info["deployment_id"]
    body = await read_body(request, Report)
    if deployment_id not in platform.deployments:
        raise ApiError(400, f"cannot report deployment {deployment_id}: it is not there; list those there are")
    platform.warn(f"deployment {deployment_id} was reported: {body.reason}")
    return web.Response(status=200)


async def list_fleet_hosts(request: web.Request) -> web.Response:
    """`GET /v2/private-fleets/{fleet_name}/hosts`."""
    name = request.match_info["fleet_name"]
    hosts = request.app[PLATFORM].hosts.of_fleet(name)
    if hosts is None:
        raise ApiError(400, f"cannot find private fleet {name}; name it in the fleets file")
    return answer(paged(request, [host.as_json() for host in hosts], "data"))


async def get_deployment(request: web.Request) -> web.Response:
    """`GET /v1/status/{deployment_id}`."""
    return answer(_deployment(request).status_json(request.app[PLATFORM].settings.minute_seconds))


async def list_deployments(request: web.Request) -> web.Response:
    """`GET /v1/deployments`."""
    text = one(request, "query")
    try:
        query = Query() if text is None else parse_query(text)
    except ValueError as error:
        raise ApiError(400, f"cannot use the query: {error}") from None
    active = [each for each in request.app[PLATFORM].deployments.values() if each.active]
    body = paged(request, [each.list_json() for each in selected(query, active)], "data")
    return answer({**body, "message": []})


async def stop_deployment(request: web.Request) -> web.Response:
    """`DELETE /v1/stop/{deployment_id}`."""
    platform, deployment = request.app[PLATFORM], _deployment(request)
    status = platform.stop(deployment, StopRequest("backend", one(request, "container_log_storage")))
    return answer(stop_answer(deployment, platform), status)


async def bulk_stop(request: web.Request) -> web.Response:
    """`POST /v1/deployments/bulk-stop`."""
    platform = request.app[PLATFORM]
    body = await read_body(request, BulkStop)
    chosen = bulk_selected(body.filters, [each for each in platform.deployments.values() if each.active])
    for deployment in chosen:
        platform.stop(deployment, StopRequest("bulk"))
    return answer({"processable": [{"request_id": each.id} for each in chosen]}, 202)


async def get_logs(request: web.Request) -> web.Response:
    """`GET /v1/deployment/{deployment_id}/container-logs`."""
    deployment = _deployment(request)
    kept = await read_logs(deployment.kept_logs) if deployment.kept_logs and not deployment.active else (None, None)
    return answer(deployment.logs_json(kept))


async def get_metrics(request: web.Request) -> web.Response:
    """`GET /v1/metrics/deployment/{deployment_id}`."""
    deployment = _deployment(request)
    start = _time(request, "start_time") or deployment.created.timestamp()
    end = _time(request, "end_time") or (deployment.ended_at or now()).timestamp()
    raw, steps = one(request, "raw"), one(request, "steps")
    if raw not in {None, "true", "false"}:
        raise ApiError(400, "cannot read the query parameter raw; it is true or false")
    try:
        step = parse_steps(steps) if steps is not None else max(1.0, (end - start) / MOST_POINTS)
    except ValueError as error:
        raise ApiError(422, f"cannot average: {error}") from None
    if end <= start:
        raise ApiError(422, "cannot show this span: end_time must be later than start_time")
    return answer(metrics_json(deployment.samples, start, end, None if raw == "true" else step))


def _time(request: web.Request, name: str) -> float | None:
    """A query parameter that is a date and time, as Unix time."""
    text = one(request, name)
    if text is None:
        return None
    try:
        # A "+" that the caller did not encode arrives as a space.
        return moment(text.replace(" ", "+")).timestamp()
    except (ValueError, OverflowError) as error:
        raise ApiError(400, f"cannot read the query parameter {name}: {error}") from None


OPERATIONS = (
    Operation("POST", "/v2/deployments", "deploy", deploy),
    Operation("POST", "/v2/private-fleets/deployments", "deployToFleet", deploy_to_fleet),
    Operation("GET", "/v2/private-fleets/{fleet_name}/hosts", "listFleetHosts", list_fleet_hosts, query=PAGED),
    Operation("POST", "/v1/deploy", "deployV1", deploy_v1),
    Operation("POST", "/beta/deployments", "deployBeta", deploy_beta),
    Operation("GET", "/v1/status/{deployment_id}", "getDeployment", get_deployment),
    Operation("GET", "/v1/deployments", "listDeployments", list_deployments, query=(*PAGED, "query")),
    Operation("PATCH", "/v1/deployments/{request_id}", "updateDeployment", update_deployment),
    Operation("POST", "/v1/deployments/{deployment_id}:report", "reportDeployment", report_deployment),
    Operation(
        "DELETE", "/v1/stop/{deployment_id}", "stopDeployment", stop_deployment, query=("container_log_storage",)
    ),
    Operation("POST", "/v1/deployments/bulk-stop", "bulkStop", bulk_stop),
    Operation("GET", "/v1/deployment/{deployment_id}/container-logs", "getLogs", get_logs, query=("format",)),
    Operation(
        "GET",
        "/v1/metrics/deployment/{deployment_id}",
        "getMetrics",
        get_metrics,
        query=("start_time", "end_time", "steps", "raw"),
    ),
)
