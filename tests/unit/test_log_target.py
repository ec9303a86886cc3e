"""`AGENT_LOG_URL`: what is taken, where objects go, what is kept from the game and out of every log."""

from __future__ import annotations

import pytest

from agent.logs.store import open_obstore
from agent.logs.target import Target, check_url, is_store_variable, store_config, store_secrets

IDENTITY = {"application": "my game", "version": "1.2/3", "deployment_id": "23c01225b99d", "attempt": "2"}
TIME = "20251124T081200Z"


@pytest.mark.parametrize(
    ("url", "kind", "base", "key"),
    [
        ("file:///var/log/x", "file", "file:///var/log/x", "my-game/1.2-3"),
        ("s3://bucket", "s3", "s3://bucket", "my-game/1.2-3"),
        ("s3://bucket/a/b/", "s3", "s3://bucket/a/b", "my-game/1.2-3"),
        ("gs://bucket/{application}", "gcs", "gs://bucket", "my-game"),
        ("az://account/c/{date}/v{version}", "azure", "az://account/c", "2025-11-24/v1.2-3"),
        ("https://host/put/{time}-{attempt}", "http", "https://host/put", "20251124T081200Z-2"),
        ("https://host/put/{key}?sig=1", "http", "https://host/put/{key}?sig=1", "my-game/1.2-3"),
    ],
)
def test_a_url_says_where_a_runs_directory_is(url: str, kind: str, base: str, key: str) -> None:
    """The template, and below it a directory that sorts by time and carries deployment and attempt."""
    target = Target(url)
    assert (target.kind, target.base, target.single) == (kind, base, False)
    assert target.directory(IDENTITY, TIME) == f"{key}/{TIME}-23c01225b99d-2"


def test_a_presigned_url_names_one_object() -> None:
    """There is no place for a key in it."""
    assert Target("https://bucket.s3.amazonaws.com/logs.tar.zst?X-Amz-Signature=abc").single


def test_what_is_not_known_is_written_so() -> None:
    """A key always has the same number of parts."""
    assert Target("s3://b").directory({}, TIME) == f"_/_/{TIME}-_-_"


def test_nothing_in_an_identity_leaves_the_directory() -> None:
    """A name from outside cannot point elsewhere."""
    assert Target("s3://b").directory({"application": "../../etc", "version": ".."}, TIME).startswith("etc/_/")


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "ftp://host/x", "s3://", "file://relative", "s3://b/{nope}", "s3://b/{", "s3://{application}/x"],
)
def test_a_wrong_url_is_an_error_that_says_what_is_taken(url: str) -> None:
    """It is found when the settings are read."""
    with pytest.raises(ValueError, match=r"^takes "):
        check_url(url)


def test_the_url_is_shown_without_its_secrets() -> None:
    """User, password and signature let their holder write."""
    assert Target("https://me:pw@host/x?X-Amz-Signature=abc").shown == "https://host/x?..."
    assert Target("s3://bucket/prefix").shown == "s3://bucket/prefix"


def test_credentials_of_the_store_are_kept_from_the_game() -> None:
    """Those of the store in use, and all of AGENT_STORE_*; another store's are the game's own business."""
    assert is_store_variable("AWS_SECRET_ACCESS_KEY", "s3://b")
    assert is_store_variable("GOOGLE_SERVICE_ACCOUNT_KEY", "gs://b")
    assert is_store_variable("AZURE_STORAGE_ACCOUNT_KEY", "az://a/c")
    assert is_store_variable("AGENT_STORE_ACCESS_KEY_ID", None)
    assert not is_store_variable("AWS_SECRET_ACCESS_KEY", "file:///x")
    assert not is_store_variable("AWS_SECRET_ACCESS_KEY", None)
    assert not is_store_variable("PATH", "s3://b")


def test_with_credentials_of_its_own_the_agent_leaves_the_games_alone() -> None:
    """A game that uses AWS itself keeps its AWS_* when the agent has AGENT_STORE_*."""
    names = ["AWS_SECRET_ACCESS_KEY", "AGENT_STORE_SECRET_ACCESS_KEY"]
    assert not is_store_variable("AWS_SECRET_ACCESS_KEY", "s3://b", names)
    assert is_store_variable("AGENT_STORE_SECRET_ACCESS_KEY", "s3://b", names)


@pytest.mark.parametrize("name", ["REGION", "SKIP_SIGNATURE", "SSE_KMS_KEY_ID", "TIMEOUT"])
def test_what_is_no_credential_leaves_the_agents_own_hidden(name: str) -> None:
    """The store's usual variables are the agent's credentials then: a region beside them changes nothing."""
    names = ["AWS_SECRET_ACCESS_KEY", f"AGENT_STORE_{name}"]
    assert is_store_variable("AWS_SECRET_ACCESS_KEY", "s3://b", names)


def test_the_stores_secrets_are_found_for_redaction() -> None:
    """Keys and tokens; not the region, which is in every second line of a log."""
    environ = {
        "AWS_ACCESS_KEY_ID": "AKIAX",
        "AWS_SECRET_ACCESS_KEY": "sk",
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AGENT_STORE_TOKEN": "tk",
        "HOME": "/root",
    }
    assert set(store_secrets(environ, "s3://b")) == {"AKIAX", "sk", "tk"}
    found = store_secrets({}, "https://me:pass@host/x?X-Amz-Signature=0123456789abcdef&a=b")
    assert {"me:pass", "pass", "0123456789abcdef", "X-Amz-Signature=0123456789abcdef&a=b"} == set(found)


def test_agent_store_variables_become_configuration() -> None:
    """By the name that the store knows."""
    assert store_config({"AGENT_STORE_ACCESS_KEY_ID": "k", "AGENT_STORE_REGION": "", "X": "y"}) == {
        "access_key_id": "k"
    }


@pytest.mark.parametrize("name", ["ALLOW_HTTP", "TIMEOUT", "CONNECT_TIMEOUT", "USER_AGENT", "HTTP1_ONLY"])
def test_options_of_the_http_client_are_options_of_the_store(name: str) -> None:
    """Obstore panics, with what is no Exception, where it finds one of them among the options of the store itself."""
    value = {"TIMEOUT": "5s", "CONNECT_TIMEOUT": "5s", "USER_AGENT": "test"}.get(name, "true")
    environ = {f"AGENT_STORE_{name}": value, "AGENT_STORE_REGION": "x"}
    assert open_obstore(Target("s3://bucket/prefix"), environ) is not None
