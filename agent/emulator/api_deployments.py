"""Deployments as a backend sees them: deploy, status, list, stop, logs, metrics, hosts."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from agent.emulator.deployment import Deployment, StopRequest, now
from agent.emulator.errors import ApiError
from agent.emulator.filters import Query, bulk_selected, moment, parse_query, selected
from agent.emulator.models import BulkStop, DeploymentCreate, FleetDeploymentCreate
from agent.emulator.platform import Platform
from agent.emulator.reading import one, paged, read_body
from agent.emulator.samples import MOST_POINTS, metrics_json, parse_steps
from agent.emulator.storage import read_logs
from agent.emulator.web import PLATFORM, Operation, answer


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
    body = await read_body(request, DeploymentCreate)
    return answer({"request_id": request.app[PLATFORM].deploy(body).id}, 202)


async def deploy_to_fleet(request: web.Request) -> web.Response:
    """`POST /v2/private-fleets/deployments`."""
    body = await read_body(request, FleetDeploymentCreate)
    return answer({"request_id": request.app[PLATFORM].deploy(body).id}, 202)


async def list_fleet_hosts(request: web.Request) -> web.Response:
    """`GET /v2/private-fleets/{fleet_name}/hosts`."""
    name = request.match_info["fleet_name"]
    hosts = request.app[PLATFORM].hosts.of_fleet(name)
    if hosts is None:
        raise ApiError(404, f"cannot find private fleet {name}; name it in the fleets file")
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
    Operation("GET", "/v2/private-fleets/{fleet_name}/hosts", "listFleetHosts", list_fleet_hosts),
    Operation("GET", "/v1/status/{deployment_id}", "getDeployment", get_deployment),
    Operation("GET", "/v1/deployments", "listDeployments", list_deployments),
    Operation("DELETE", "/v1/stop/{deployment_id}", "stopDeployment", stop_deployment),
    Operation("POST", "/v1/deployments/bulk-stop", "bulkStop", bulk_stop),
    Operation("GET", "/v1/deployment/{deployment_id}/container-logs", "getLogs", get_logs),
    Operation("GET", "/v1/metrics/deployment/{deployment_id}", "getMetrics", get_metrics),
)
