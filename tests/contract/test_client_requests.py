"""The client against the OpenAPI document: it has every operation, sends what is described, and knows every field."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from aiohttp import web
from pydantic import SecretStr

from agent.edgegap import models
from agent.edgegap.client import EdgegapClient
from agent.edgegap.filters import OPERATORS, Field, Operator, Query
from agent.edgegap.limits import Limit
from agent.edgegap.wire import Wire
from tests.contract.openapi import Contract, load, resolved
from tests.edgegap_fakes import serving

CONTRACT = Contract()
PATHS: dict[str, dict[str, Any]] = load()["paths"]
OPERATIONS = {operation_id: (method, path) for method, path, operation_id in CONTRACT.operations()}
INJECTED = SecretStr("0123456789abcdef0123456789abcdef")
ID = "61b1be8f54d9"
NEVER = datetime(2026, 1, 1, tzinfo=UTC)

Call = Callable[[EdgegapClient, str], Awaitable[object]]


def _deployment(**more: Any) -> dict[str, Any]:
    user = models.User.from_coordinates(1.5, 2.5)
    hook = models.Webhook(url="https://example.com/hook")
    variable = models.Variable(key="A", value="1", is_hidden=True)
    return {
        "application": "game",
        "version": "1",
        "users": [user, models.User.from_ip("203.0.113.7")],
        "require_cached_locations": True,
        "environment_variables": [variable],
        "tags": ["a"],
        "webhook_on_ready": hook,
        "webhook_on_error": hook,
        "webhook_on_terminated": hook,
        **more,
    }


VERSION = models.Version(
    name="1",
    req_cpu=512,
    req_memory=512,
    docker_repository="docker.io",
    docker_image="team/game",
    docker_tag="1",
    private_username="robot",
    private_token=SecretStr("registry"),
    verify_image=True,
    time_to_deploy=30,
    max_duration=60,
    restart_policy="never",
    termination_grace_period_seconds=30,
    ports=[models.VersionPort(port=7777, protocol="UDP", to_check=False, tls_upgrade=False, name="gameport")],
    envs=[models.Variable(key="A", value="1")],
    endpoint_storage="logs",
    command="/game",
    arguments="-x",
)
STORAGE = models.StorageCreate(
    name="logs",
    access_key_id="k",
    endpoint="https://s3.example.com",
    bucket="b",
    output_format="NDJSON",
    secret_access_key=SecretStr("s"),
)
VARIABLE = models.Variable(key="A", value="1", is_hidden=True, is_secret=True)
PLACES = models.LocationFilter(field="city", values=["Paris"], filter_type="any")
BULK = models.BulkFilter(field="deployment_tags", values=["a"], filter_type="all")

CALLS: dict[str, Call] = {
    "deploy": lambda client, _: client.deploy(models.DeploymentCreate(**_deployment())),
    "deployToFleet": lambda client, _: client.deploy_to_fleet(
        models.FleetDeploymentCreate(**_deployment(private_host_ids=["h1"]))
    ),
    "listFleetHosts": lambda client, _: client.list_fleet_hosts("fleet", page_size=5).first(),
    "getDeployment": lambda client, _: client.get_deployment(ID),
    "listDeployments": lambda client, _: client.list_deployments(Query(), page_size=5).first(),
    "stopDeployment": lambda client, _: client.stop_deployment(ID, "logs"),
    "bulkStop": lambda client, _: client.bulk_stop([BULK]),
    "selfStop": lambda client, base: client.self_stop(f"{base}/v1/self/stop/{ID}/660", INJECTED, "true"),
    "getLogs": lambda client, _: client.get_logs(ID),
    "getMetrics": lambda client, _: client.get_metrics(ID, NEVER, NEVER, "30s", raw=True),
    "createTag": lambda client, _: client.create_tag(ID, "a"),
    "listTags": lambda client, _: client.list_tags(ID, page_size=5).first(),
    "getTag": lambda client, _: client.get_tag(ID, "a"),
    "updateTag": lambda client, _: client.update_tag(ID, "a", "b"),
    "deleteTag": lambda client, _: client.delete_tag(ID, "a"),
    "getContext": lambda client, base: client.get_context(f"{base}/v1/context/{ID}/7", INJECTED),
    "createContextTag": lambda client, base: client.create_context_tag(f"{base}/v1/context/{ID}/7", INJECTED, "a"),
    "deleteContextTag": lambda client, base: client.delete_context_tag(f"{base}/v1/context/{ID}/7", INJECTED, "a"),
    "createApplication": lambda client, _: client.create_application(models.Application(name="game")),
    "listApplications": lambda client, _: client.list_applications(page_size=5).first(),
    "createVersion": lambda client, _: client.create_version("game", VERSION),
    "listVersions": lambda client, _: client.list_versions("game", page_size=5).first(),
    "createStorage": lambda client, _: client.create_storage(STORAGE),
    "listStorages": lambda client, _: client.list_storages(page_size=5).first(),
    "getApplication": lambda client, _: client.get_application("game"),
    "updateApplication": lambda client, _: client.update_application(
        "game", models.ApplicationUpdate(name="other", is_active=False, image="")
    ),
    "deleteApplication": lambda client, _: client.delete_application("game"),
    "getVersion": lambda client, _: client.get_version("game", "1"),
    "updateVersion": lambda client, _: client.update_version(
        "game", "1", models.VersionUpdate(docker_tag="2", private_token=SecretStr("s"), envs=[VARIABLE])
    ),
    "deleteVersion": lambda client, _: client.delete_version("game", "1"),
    "getStorage": lambda client, _: client.get_storage("logs"),
    "updateStorage": lambda client, _: client.update_storage(
        "logs", models.StorageUpdate(bucket="c", secret_access_key=SecretStr("s"))
    ),
    "deleteStorage": lambda client, _: client.delete_storage("logs"),
    "createPullProfile": lambda client, _: client.create_pull_profile(
        "logs", models.PullProfile(name="p", source="maps", source_type="Folder", destination="/maps")
    ),
    "listPullProfiles": lambda client, _: client.list_pull_profiles("logs", page_size=5).first(),
    "getPullProfile": lambda client, _: client.get_pull_profile("logs", "p"),
    "updatePullProfile": lambda client, _: client.update_pull_profile(
        "logs", "p", models.PullProfileUpdate(source="maps/2")
    ),
    "deletePullProfile": lambda client, _: client.delete_pull_profile("logs", "p"),
    "linkPullProfile": lambda client, _: client.link_pull_profile("logs", "p", "game", "1"),
    "unlinkPullProfile": lambda client, _: client.unlink_pull_profile("logs", "p", "game", "1"),
    "getPublicIp": lambda client, _: client.get_public_ip(),
    "listLocations": lambda client, _: client.list_locations("game", "1", page_size=5).first(),
    "listBeacons": lambda client, _: client.list_beacons(page_size=5).first(),
    "createRelaySession": lambda client, _: client.create_relay_session(
        models.RelaySessionCreate(
            users=[models.RelayUser(ip="203.0.113.7")], filters=[PLACES], webhook_url="https://hook.example.com"
        )
    ),
    "listRelaySessions": lambda client, _: client.list_relay_sessions().first(),
    "getRelaySession": lambda client, _: client.get_relay_session("4c1d22e90b7a-S"),
    "deleteRelaySession": lambda client, _: client.delete_relay_session("4c1d22e90b7a-S"),
    "authorizeRelayUser": lambda client, _: client.authorize_relay_user("4c1d22e90b7a-S", "203.0.113.7"),
    "revokeRelayUser": lambda client, _: client.revoke_relay_user("4c1d22e90b7a-S", 4_000_000_000),
    "initQuickStart": lambda client, _: client.init_quick_start("unity"),
    "getRegistryCredentials": lambda client, _: client.get_registry_credentials("unreal"),
    "listImages": lambda client, _: client.list_images(page_size=5).first(),
    "listImageTags": lambda client, _: client.list_image_tags("game", page_size=5).first(),
    "deleteImageTag": lambda client, _: client.delete_image_tag("game", "1"),
    "deleteImageTags": lambda client, _: client.delete_image_tags("game", ["1", "2"]),
    "deployV1": lambda client, _: client.deploy_v1(
        models.DeployV1(
            app_name="game",
            version_name="1",
            geo_ip_list=[models.GeoIp(ip="203.0.113.7", latitude=1.5, longitude=2.5)],
            filters=[PLACES],
            env_vars=[VARIABLE],
            tags=["a"],
            webhook_url="https://hook.example.com",
            container_log_storage=models.LogStorage(enabled=True, endpoint_storage="logs"),
            command="/game",
            location=models.Point(latitude=1.5, longitude=2.5),
            city="Paris",
            ap_sort_strategy="weighted",
        )
    ),
    "deployBeta": lambda client, _: client.deploy_beta(
        models.BetaDeploymentCreate(
            application_name="game",
            version="1",
            users=[models.BetaUser(ip_address="203.0.113.7")],
            environment_variables=[models.Variable(key="A", value="1")],
            tags=["nakama"],
            webhook=models.Webhook(url="https://hook.example.com"),
        )
    ),
    "updateDeployment": lambda client, _: client.update_deployment(ID, joinable=True),
    "reportDeployment": lambda client, _: client.report_deployment(ID, "cheating", {"player": 7}),
}

ANYTHING = {
    "request_id": ID,
    "name": "a",
    "version": {"name": "1"},
    "session_id": "4c1d22e90b7a-S",
    "token": "made up",
    "tag": "1",
    **{name: [] for name in ("data", "tags", "applications", "versions", "endpoints")},
    **{name: [] for name in ("pull_profiles", "locations", "sessions")},
}
"""An answer that every operation's model can be read from."""


def test_the_client_has_a_method_for_every_operation() -> None:
    """Named as the document names it, in Python's manner; a new operation in the document fails here."""
    assert set(CALLS) == set(OPERATIONS)
    for operation_id in OPERATIONS:
        assert callable(getattr(EdgegapClient, re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", operation_id)))


@pytest.mark.parametrize("operation_id", CALLS)
async def test_each_method_sends_what_the_document_describes(operation_id: str) -> None:
    """Method, path, query parameters, authorization and body, with every field that the client can set."""
    heard: list[tuple[web.Request, Any]] = []

    async def keep(request: web.Request) -> web.StreamResponse:
        heard.append((request, await request.json() if request.can_read_body else None))
        return web.json_response(ANYTHING)

    async with serving(keep) as base, EdgegapClient("organisation", base) as client:
        await CALLS[operation_id](client, base)
    ((request, body),) = heard
    method, template = OPERATIONS[operation_id]
    assert request.method == method
    assert re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), request.path)
    operation = PATHS[template][method.lower()]
    parameters = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
    assert set(request.query) <= parameters
    inside = CONTRACT.is_inside(operation_id)
    assert request.headers["authorization"] == (INJECTED.get_secret_value() if inside else "token organisation")
    if "requestBody" not in operation:
        assert body is None
        return
    assert request.content_type == "application/json"
    described = resolved(operation["requestBody"]["content"]["application/json"]["schema"])
    jsonschema.validate(body, described, cls=jsonschema.Draft202012Validator)
    assert set(body) <= _properties(described), "the client sends fields that the document does not have"


def _properties(schema: dict[str, Any]) -> set[str]:
    return set(schema.get("properties", {})).union(*(_properties(each) for each in schema.get("allOf", [])))


@pytest.mark.parametrize(
    ("schema", "model"),
    [
        ("DeploymentCreate", models.DeploymentCreate),
        ("DeploymentAccepted", models.DeploymentAccepted),
        ("DeploymentStatus", models.DeploymentStatus),
        ("DeploymentListItem", models.DeploymentListItem),
        ("DeploymentVariable", models.Variable),
        ("User", models.User),
        ("Port", models.Port),
        ("Location", models.Location),
        ("StopResult", models.StopResult),
        ("BulkFilter", models.BulkFilter),
        ("Logs", models.Logs),
        ("Series", models.Series),
        ("Metrics", models.Metrics),
        ("Host", models.Host),
        ("TagRecord", models.Tag),
        ("Context", models.Context),
        ("Application", models.Application),
        ("Version", models.Version),
        ("VersionPort", models.VersionPort),
        ("Storage", models.Storage),
        ("ApplicationRecord", models.Application),
        ("ApplicationUpdate", models.ApplicationUpdate),
        ("InjectedVariable", models.Variable),
        ("VersionUpdate", models.VersionUpdate),
        ("StorageUpdate", models.StorageUpdate),
        ("PullProfile", models.PullProfile),
        ("PullProfileUpdate", models.PullProfileUpdate),
        ("PullProfileLink", models.PullProfileLink),
        ("LocationFilter", models.LocationFilter),
        ("DeployV1", models.DeployV1),
        ("DeployV1Accepted", models.DeployV1Accepted),
        ("CloudLocation", models.CloudLocation),
        ("Beacon", models.PingBeacon),
        ("RelaySession", models.RelaySession),
        ("RelaySessionUser", models.RelaySessionUser),
        ("ImageTag", models.ImageTag),
        ("RegistryCredentials", models.RegistryCredentials),
    ],
)
def test_every_field_of_the_document_is_typed(schema: str, model: type[Wire]) -> None:
    """Also in the objects inside: nothing that is described is left to the unknown fields."""
    _assert_typed(CONTRACT.schema(schema), model)


def _assert_typed(schema: dict[str, Any], model: type[Wire]) -> None:
    properties = schema.get("properties", {})
    assert set(properties) <= set(model.model_fields), model.__name__
    for name, inner in properties.items():
        inner_schema = next((each for each in inner.get("anyOf", []) if each.get("type") == "object"), inner)
        inner_schema = inner_schema.get("items", inner_schema)
        inner_model = _model_in(model.model_fields[name].annotation)
        if inner_model is not None and "properties" in inner_schema:
            _assert_typed(inner_schema, inner_model)


def _model_in(annotation: Any) -> type[Wire] | None:
    if isinstance(annotation, type) and issubclass(annotation, Wire):
        return annotation
    return next((found for part in getattr(annotation, "__args__", ()) if (found := _model_in(part))), None)


def test_the_filters_are_those_of_the_document() -> None:
    """Every field that its description names, and every operator."""
    parameter = next(each for each in PATHS["/v1/deployments"]["get"]["parameters"] if each["name"] == "query")
    words = set(re.findall(r"\w+", parameter["description"]))
    assert {str(field) for field in Field} <= words
    assert {str(operator) for operator in Operator} <= words
    assert set(OPERATORS) == set(Field)


def test_the_limits_are_those_of_the_document() -> None:
    """A limit that changes there has to change here."""
    limits = {
        operation["operationId"]: operation["x-rate-limit-per-second"]
        for methods in PATHS.values()
        for operation in methods.values()
        if "x-rate-limit-per-second" in operation
    }
    assert limits == {
        "deploy": Limit.DEPLOY.value,
        "deployToFleet": Limit.DEPLOY.value,
        "deployV1": Limit.DEPLOY.value,
        "deployBeta": Limit.DEPLOY.value,
        "getDeployment": Limit.STATUS.value,
        "listDeployments": Limit.LIST.value,
        "listFleetHosts": Limit.LIST.value,
    }
