"""Self-stop: the deployment is really stopped, whatever the platform answers on the way, and then held."""

import email.utils
import re
import time

import pytest

from tests.fakes import TOKEN, FakePlatform, Reply
from tests.process.harness import Launcher, Mode, Run, eventually, game
from tests.variants import one_fast

PATH = f"/v1/self/stop/{FakePlatform.deployment_id}/{FakePlatform.stop_key}"


def phase_of(run: Run) -> str:
    """The lifecycle phase that the agent reports."""
    return str(run.http("GET", "/v1/status").json()["phase"])


def start(launch: Launcher, platform: FakePlatform, **env: str) -> Run:
    """A polite game on that platform, running, with an API that answers."""
    run = launch(game("polite"), env={**platform.environment(), **env})
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    return run


def test_the_game_asks_and_the_platform_is_told(launch: Launcher, platform: FakePlatform, mode: Mode) -> None:
    """`POST /v1/stop`: the game is stopped, the platform called once with the bare token, then held until SIGTERM."""
    run = launch(game("polite"), mode=mode, env=platform.environment())
    run.wait_for("ready")
    assert run.http("POST", "/v1/stop", {"reason": "match over"}).status == 202
    (call,) = platform.wait_for_calls(1)
    assert (call.method, call.path, call.authorization) == ("DELETE", PATH, TOKEN)
    assert call.query == {"container_log_storage": ["true"]}
    assert b"bye" in (run.stdout.data if run.stdout else b""), "the game is gone before the deployment is stopped"
    eventually(lambda: phase_of(run) == "releasing", "the agent holds")
    assert run.process.poll() is None
    done = run.stop()
    assert done.code == 0
    assert len(platform.calls) == 1


@pytest.mark.parametrize(
    ("setting", "body", "expected"),
    [
        ("my-storage", {}, "my-storage"),
        *one_fast(
            ("true", {"log_storage": "other-storage"}, "other-storage"),
            ("true", {"log_storage": "false"}, "false"),
            ("false", {}, "false"),
        ),
    ],
)
def test_where_the_platform_puts_its_logs(
    launch: Launcher, platform: FakePlatform, setting: str, body: dict[str, str], expected: str
) -> None:
    """`AGENT_LOG_STORAGE`, or the request's own `log_storage`, becomes `container_log_storage` of the call."""
    run = start(launch, platform, AGENT_LOG_STORAGE=setting)
    assert run.http("POST", "/v1/stop", body).status == 202
    (call,) = platform.wait_for_calls(1)
    assert call.query == {"container_log_storage": [expected]}


def test_a_game_that_ends_stops_its_deployment(launch: Launcher, platform: FakePlatform) -> None:
    """A game that simply exits would be started and billed again: the deployment is stopped, its code passed on."""
    run = launch(game("exits", "42"), env=platform.environment())
    platform.wait_for_calls(1)
    assert run.process.poll() is None, "held, so that no restart policy starts it again"
    assert run.stop().code == 42


def test_a_game_that_crashes_stops_its_deployment(launch: Launcher, platform: FakePlatform) -> None:
    """So does a crash, unless the settings say otherwise."""
    run = launch(game("dies_of_signal", "SIGSEGV"), env=platform.environment())
    platform.wait_for_calls(1)
    assert run.stop().code == 139


@pytest.mark.parametrize(
    ("command", "options", "env"),
    [
        ([], [], {}),
        (game("polite"), ["--no-such-option=1"], {}),
        (game("polite"), [], {"AGENT_PLAYERS_FROM": "tcp"}),
    ],
    ids=["no command", "an unknown option", "a wrong setting"],
)
def test_a_start_that_cannot_succeed_stops_the_deployment(
    launch: Launcher, platform: FakePlatform, command: list[str], options: list[str], env: dict[str, str]
) -> None:
    """Exiting would let the restart policy start, and bill, the same failure for ever; a setting leaves it to that."""
    run = launch(command, options=options, env={**platform.environment(), **env})
    platform.wait_for_calls(1)
    assert run.process.poll() is None, "held"
    assert run.stop().code == 78
    exits = {**platform.environment(), **env, "AGENT_ON_CRASH": "exit"}
    assert launch(command, options=options, env=exits).finish().code == 78
    assert len(platform.calls) == 1


@pytest.mark.parametrize(
    ("command", "setting"), [(("exits", "0"), "AGENT_ON_EXIT"), (("exits", "3"), "AGENT_ON_CRASH")]
)
def test_the_container_may_just_exit(
    launch: Launcher, platform: FakePlatform, command: tuple[str, str], setting: str
) -> None:
    """With `exit` as the policy the container ends, and what happens next is the platform's restart policy."""
    assert launch(game(*command), env={**platform.environment(), setting: "exit"}).finish().code == int(command[1])
    assert not platform.calls


@pytest.mark.parametrize("status", one_fast(202, 200, 410))
def test_confirmed_answers(launch: Launcher, status: int) -> None:
    """200, 202 and 410 all mean that it is, or will be, stopped: one call is enough."""
    with FakePlatform([Reply(status)]) as platform:
        run = start(launch, platform)
        run.http("POST", "/v1/stop")
        platform.wait_for_calls(1)
        eventually(lambda: phase_of(run) == "releasing", "the agent holds")
        assert run.stop().code == 0
        assert len(platform.calls) == 1


def test_retried_until_it_is_confirmed(launch: Launcher) -> None:
    """503, 500, a closed connection and 502 are tried again until 202; then nothing more is sent."""
    script = [Reply(503), Reply(500), Reply(manner="reset"), Reply(502, body="<html>Bad gateway</html>"), Reply(202)]
    with FakePlatform(script) as platform:
        run = start(launch, platform)
        run.http("POST", "/v1/stop")
        calls = platform.wait_for_calls(5, 55)
        assert {call.authorization for call in calls} == {TOKEN}
        assert {call.path for call in calls} == {PATH}
        done = run.stop()
        assert done.code == 0
        assert len(platform.calls) == 5
        assert TOKEN not in done.stderr


@pytest.mark.slow
def test_retry_after_is_honoured(launch: Launcher) -> None:
    """429 with `Retry-After: 3`: the next call comes after those three seconds, not before."""
    with FakePlatform([Reply(429, {"Retry-After": "3"})]) as platform:
        run = start(launch, platform)
        run.http("POST", "/v1/stop")
        first, second = platform.wait_for_calls(2)
        assert second.at - first.at >= 3.0
        assert run.stop().code == 0


@pytest.mark.slow
def test_a_platform_that_refuses_connections_at_first(launch: Launcher) -> None:
    """Connection refused is tried again; when the platform is back, the deployment is stopped."""
    with FakePlatform(listening=False) as platform:
        run = start(launch, platform)
        run.http("POST", "/v1/stop")
        eventually(lambda: phase_of(run) == "releasing", "the game is gone and the platform is called")
        platform.listen()
        platform.wait_for_calls(1)
        assert run.stop().code == 0


@pytest.mark.parametrize("status", one_fast(403, 400, 401, 404))
def test_a_refusal_is_held(launch: Launcher, status: int) -> None:
    """A refusal is said without the token, and held: an exit would be started again, and billed again."""
    with FakePlatform([Reply(status)] * 5) as platform:
        run = start(launch, platform, AGENT_HOLD_SECONDS="1")
        run.http("POST", "/v1/stop")
        run.stderr.wait_for("asking again in")
        assert run.process.poll() is None
        done = run.stop()
        assert done.code == 0
        assert len(platform.calls) == 1
        said = [line for line in done.stderr.splitlines() if "cannot" in line and str(status) in line]
        assert said, done.stderr
        assert TOKEN not in done.stderr


def test_the_hold_is_bounded(launch: Launcher, platform: FakePlatform) -> None:
    """If the platform never sends its SIGTERM, the agent leaves after `AGENT_HOLD_SECONDS`, not before."""
    run = start(launch, platform, AGENT_HOLD_SECONDS="2")
    run.http("POST", "/v1/stop")
    (call,) = platform.wait_for_calls(1)
    assert run.finish().code == 0
    assert time.monotonic() - call.at >= 2.0


@pytest.mark.slow
def test_sigterm_ends_the_retries(launch: Launcher) -> None:
    """A platform that answers 503 for ever does not keep the agent from obeying that platform's SIGTERM."""
    with FakePlatform([Reply(503)] * 1000) as platform:
        run = start(launch, platform)
        run.http("POST", "/v1/stop")
        platform.wait_for_calls(2)
        done = run.stop()
        assert done.code == 0
        assert done.seconds <= 5.0


def test_sigterm_ends_a_call_that_hangs(launch: Launcher) -> None:
    """A platform that accepts the connection and says nothing does not keep the agent either."""
    with FakePlatform([Reply(manner="hang")] * 10) as platform:
        run = start(launch, platform)
        run.http("POST", "/v1/stop")
        platform.wait_for_calls(1)
        done = run.stop()
        assert done.code == 0
        assert done.seconds <= 5.0
        assert "Traceback" not in done.stderr


def test_a_deployment_without_a_token_is_not_called(launch: Launcher, platform: FakePlatform) -> None:
    """Half of what self-stop needs is not enough: it is switched off, said by name, and a stop is still a stop."""
    run = launch(game("polite"), env={**platform.environment(), "ARBITRIUM_DELETE_TOKEN": None})
    run.wait_for("ready")
    run.http("POST", "/v1/stop")
    done = run.finish()
    assert done.code == 0
    assert not platform.calls
    assert re.search(r"ARBITRIUM_DELETE_TOKEN", done.stderr)


@pytest.mark.slow
def test_a_query_in_the_injected_url_is_kept(launch: Launcher, platform: FakePlatform) -> None:
    """Whatever the platform put into the URL is sent back as it was, with the log storage added to it."""
    url = f"{platform.delete_url}?region=eu%2Fwest"
    run = launch(game("polite"), env={**platform.environment(), "ARBITRIUM_DELETE_URL": url})
    run.wait_for("ready")
    run.http("POST", "/v1/stop")
    (call,) = platform.wait_for_calls(1)
    assert call.query == {"region": ["eu/west"], "container_log_storage": ["true"]}
    assert run.stop().code == 0


def test_the_token_does_not_follow_a_redirect(launch: Launcher) -> None:
    """A redirect to somewhere else is not a place to send the token to."""
    with FakePlatform() as elsewhere:
        answers = [Reply(status, {"Location": f"{elsewhere.url}{PATH}"}) for status in (302, 307, 308)]
        with FakePlatform(answers) as platform:
            run = start(launch, platform, AGENT_HOLD_SECONDS="1")
            run.http("POST", "/v1/stop")
            platform.wait_for_calls(1)
            assert run.stop().code == 0
        assert not [call for call in elsewhere.calls if call.authorization]


@pytest.mark.slow
def test_retry_after_as_a_date(launch: Launcher) -> None:
    """`Retry-After` may be a date; the next call does not come before it."""
    date = email.utils.formatdate(time.time() + 8, usegmt=True)
    with FakePlatform([Reply(503, {"Retry-After": date})]) as platform:
        run = start(launch, platform)
        run.http("POST", "/v1/stop")
        first, second = platform.wait_for_calls(2)
        assert second.at - first.at >= 1.0, "the date has whole seconds, and some of them passed before the call"
        assert run.stop().code == 0


@pytest.mark.slow
def test_sigterm_ends_a_long_retry_after(launch: Launcher) -> None:
    """Told to come back in an hour, the agent still leaves when the platform sends SIGTERM."""
    with FakePlatform([Reply(429, {"Retry-After": "3600"})]) as platform:
        run = start(launch, platform)
        run.http("POST", "/v1/stop")
        platform.wait_for_calls(1)
        done = run.stop()
        assert done.code == 0
        assert done.seconds <= 5.0
