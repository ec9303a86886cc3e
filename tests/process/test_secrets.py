"""The delete token: in no output, no answer, no file; and with `AGENT_INTERCEPT=on` not even in the game."""

import base64
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fakes import TOKEN, FakePlatform, Reply
from tests.process.harness import (
    COMMAND,
    DEADLINE,
    Launcher,
    Run,
    base_environment,
    environment_of,
    everything_written,
    game,
)
from tests.variants import one_fast

CONTEXT_TOKEN = "b0a7b0a7b0a7b0a7b0a7b0a7b0a7b0a7"
ROUTES = [
    "/v1/status",
    "/v1/deployment",
    "/v1/events",
    "/v1/tags",
    "/v1/players",
    "/healthz",
    "/readyz",
    "/openapi.json",
]


def forms(secret: str) -> list[bytes]:
    """A secret as it may be written: as it is, in base64, percent-encoded, in hex digits of the other case."""
    plain = secret.encode()
    encoded = {plain, base64.b64encode(plain).rstrip(b"="), quote(secret).encode(), plain.upper(), plain.hex().encode()}
    return sorted(encoded)


def assert_absent(text: bytes, where: str) -> None:
    """Fail when a secret is to be found in some bytes."""
    for secret in (TOKEN, CONTEXT_TOKEN):
        for form in forms(secret):
            assert form not in text, f"a secret is in {where}"


def answers_of(run: Run) -> bytes:
    """Everything that the API says, bad requests included."""
    said = b""
    for path in [*ROUTES, f"/v1/self/stop/{FakePlatform.deployment_id}/1", "/nowhere"]:
        if path != "/v1/events":
            answer = run.http("GET", path)
            said += repr(answer.headers).encode() + answer.body
    for body in (b"{", b'{"reason": 1}', b"[]"):
        said += run.http("POST", "/v1/stop", body).body
    with run.rpc() as rpc:
        for method in ("status", "deployment", "nonsense", "tags.list"):
            said += repr(rpc.call(method)).encode()
    return said + run.http("GET", "/metrics", url=run.game_environment["AGENT_METRICS_URL"]).body


@pytest.mark.parametrize("intercept", one_fast("on", "off"))
def test_the_token_is_nowhere(launch: Launcher, intercept: str) -> None:
    """Through a whole life with errors from the platform, nothing that the agent says or writes holds a secret."""
    store = launch.files / "store"
    store.mkdir()
    with FakePlatform([Reply(503, body=f'{{"message": "{TOKEN}"}}'), Reply(401, body=TOKEN)]) as platform:
        run = launch(
            game("polite"),
            env={
                **platform.environment(),
                "ARBITRIUM_CONTEXT_URL": f"{platform.url}/v1/context/23c01225b99d/463660",
                "ARBITRIUM_CONTEXT_TOKEN": CONTEXT_TOKEN,
                "AGENT_INTERCEPT": intercept,
                "AGENT_LOG_LEVEL": "debug",
                "AGENT_LOG_URL": store.as_uri(),
                "AGENT_HOLD_SECONDS": "1",
            },
        )
        run.wait_for("ready")
        said = answers_of(run)
        run.http("POST", "/v1/stop")
        platform.wait_for_calls(2)
        run.stderr.wait_for("asking again in")
        done = run.stop()
        assert len(platform.calls) == 2
        assert {call.authorization for call in platform.calls} == {TOKEN}
    for secret_url in (platform.stop_key.encode(), f"{platform.deployment_id}/{platform.stop_key}".encode()):
        assert secret_url not in done.stderr.encode() + everything_written(launch.files)
    assert_absent(said, "an answer of the API")
    assert_absent(done.stdout, "stdout")
    assert_absent(done.stderr.encode(), "stderr")
    assert list(store.rglob("exit.json"))
    assert_absent(everything_written(launch.files), "a file that the agent wrote")


def test_a_game_that_prints_its_environment(launch: Launcher, platform: FakePlatform) -> None:
    """The vendor's images print the token into the logs: passed on unchanged, but never spooled or shipped."""
    store = launch.files / "store"
    store.mkdir()
    env = {**platform.environment(), "AGENT_LOG_URL": store.as_uri()}
    run = launch(game("prints_environment.sh"), env=env)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    assert run.stdout
    assert TOKEN in run.stdout.text, "without interception the game has the real token, and may print it"
    run.stop()
    written = everything_written(launch.files)
    assert b"ARBITRIUM_DELETE_TOKEN" in written, "the log was kept, or this test shows nothing"
    assert_absent(written, "a spooled or shipped file")


def test_with_interception_the_game_never_has_the_token(launch: Launcher, platform: FakePlatform) -> None:
    """The game's token is another one, its URL leads to the agent with the same path, and the real one is not there."""
    run = launch(game("prints_environment.sh"), env={**platform.environment(), "AGENT_INTERCEPT": "on"})
    run.wait_for("ready")
    seen = environment_of(run.game_pid)
    assert seen["ARBITRIUM_DELETE_URL"] == seen["AGENT_URL"].rstrip("/") + platform.delete_url.removeprefix(
        platform.url
    )
    assert seen["ARBITRIUM_DELETE_TOKEN"]
    assert seen["ARBITRIUM_REQUEST_ID"] == platform.deployment_id
    done = run.stop()
    assert_absent(done.stdout, "what the game could print")


@pytest.mark.parametrize("name", one_fast("calls_vendor_url", "calls_vendor_url.sh"))
def test_the_vendors_own_call_is_intercepted(launch: Launcher, platform: FakePlatform, name: str) -> None:
    """Code that calls the vendor's URL with what it was given gets a 2xx and a proper stop; the platform one call."""
    if name.endswith(".sh") and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    run = launch(game(name), env={**platform.environment(), "AGENT_INTERCEPT": "on"})
    (call,) = platform.wait_for_calls(1)
    assert call.authorization == TOKEN
    assert call.query == {"container_log_storage": ["true"]}
    done = run.stop()
    assert done.code in {0, 143}
    if name == "calls_vendor_url":
        assert re.search(rb"^status 20[02]$", done.stdout, re.MULTILINE)
    assert len(platform.calls) == 1


def test_the_log_storage_of_an_intercepted_call_is_kept(launch: Launcher, platform: FakePlatform) -> None:
    """`?container_log_storage=` in the game's own call is what the platform hears."""
    run = launch(game("polite"), env={**platform.environment(), "AGENT_INTERCEPT": "on"})
    run.wait_for("ready")
    path = run.game_environment["ARBITRIUM_DELETE_URL"].partition("/v1/")[2]
    token = run.game_environment["ARBITRIUM_DELETE_TOKEN"]
    answer = run.http("DELETE", f"/v1/{path}?container_log_storage=replays", headers={"authorization": token})
    assert answer.status in {200, 202}
    (call,) = platform.wait_for_calls(1)
    assert call.query == {"container_log_storage": ["replays"]}


def test_the_games_token_is_worth_nothing(launch: Launcher, platform: FakePlatform) -> None:
    """What the game was given in place of the token is refused by the platform, as any other wrong one."""
    run = launch(game("polite"), env={**platform.environment(), "AGENT_INTERCEPT": "on"})
    run.wait_for("ready")
    given = run.game_environment["ARBITRIUM_DELETE_TOKEN"]
    assert platform.receive("DELETE", "/", given).status == 401
    assert run.http("DELETE", platform.delete_url.removeprefix(platform.url), url=platform.url).status == 401


def test_a_foreign_deployment_is_not_stopped_by_the_drop_in_route(launch: Launcher, platform: FakePlatform) -> None:
    """A call for another deployment, or with another token, is refused as the platform would, and stops nothing."""
    run = launch(game("polite"), env={**platform.environment(), "AGENT_INTERCEPT": "on"})
    run.wait_for("ready")
    token = run.game_environment["ARBITRIUM_DELETE_TOKEN"]
    other = run.http("DELETE", "/v1/self/stop/ffffffffffff/463660", headers={"authorization": token})
    assert other.status in {400, 401, 403, 404}
    own = f"/v1/self/stop/{platform.deployment_id}/{platform.stop_key}"
    wrong = run.http("DELETE", own, headers={"authorization": "0" * 32})
    assert wrong.status in {401, 403}
    assert run.http("GET", "/v1/status").json()["phase"] in {"starting", "ready"}
    assert run.stop().code == 0
    assert not platform.calls


def test_config_masks_secrets(tmp_path: Path) -> None:
    """`config` shows what is set without showing what it is."""
    platform_environment = {
        "ARBITRIUM_DELETE_URL": "https://api.example/v1/self/stop/23c01225b99d/463660",
        "ARBITRIUM_DELETE_TOKEN": TOKEN,
        "ARBITRIUM_CONTEXT_TOKEN": CONTEXT_TOKEN,
        "AGENT_LOG_URL": f"https://bucket.example/key?X-Amz-Signature={TOKEN}",
    }
    for options in ([], ["--json"], ["--check"]):
        done = subprocess.run(
            [COMMAND, "config", *options],
            env={**base_environment(tmp_path), **platform_environment},
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert_absent(done.stdout + done.stderr, "config")


def test_a_wrong_setting_with_a_secret_next_to_it(launch: Launcher, platform: FakePlatform) -> None:
    """The list of mistakes names what is wrong and nothing else; the token is in no error."""
    env = {**platform.environment(), "AGENT_GRACE_SECONDS": TOKEN[:6], "AGENT_HOLD_SECONDS": "0"}
    done = launch(game("polite"), env=env).finish()
    assert done.code == 78
    assert_absent(done.stderr.encode(), "an error")


def test_the_process_list_shows_no_secret(launch: Launcher, platform: FakePlatform) -> None:
    """No command line of agent or game holds the token: `ps` is for everybody."""
    run = launch(game("polite"), env=platform.environment())
    run.wait_for("ready")
    for pid in (run.pid, run.game_pid):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert line
        assert_absent(line, "a command line")
