"""A real dedicated server from Debian's packages, with the three lines, through its whole life."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import FakePlatform
from tests.free_ports import free_port
from tests.image.conftest import THREE_LINES, Make
from tests.image.engine import AGENT, Engine, eventually
from tests.image.test_every_base import kept, story

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

DOCKERFILE = f"""\
FROM debian:13-slim
RUN apt-get update \\
 && apt-get install -y -q --no-install-recommends ddnet-server \\
 && rm -rf /var/lib/apt/lists/*
{THREE_LINES}CMD ["/usr/games/DDNet-Server", "sv_register 0", "sv_port 8303"]
ENV HOME=/tmp
USER games
"""

# What a client's server browser asks (connectionless, "gie3" and a token); a server that plays answers "inf3".
ASK = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(1)
    client.sendto(bytes([0xFF]) * 10 + b"gie3" + bytes([1]), ("127.0.0.1", 8303))
    try:
        print("answered" if b"inf3" in client.recv(2048) else "something else")
    except TimeoutError:
        print("nothing")
"""


@pytest.fixture(scope="module")
def image(builder: Engine, make_image: Make) -> str:
    """DDNet, a Teeworlds server, as Debian has it."""
    if not builder.has("debian:13-slim"):
        pytest.skip("the base image debian:13-slim is not here and cannot be pulled")
    return make_image("ddnet", DOCKERFILE)


def test_a_real_server_lives_and_is_stopped_by_the_platform(engine: Engine, image: str, tmp_path: Path) -> None:
    """It starts as its own user, answers players, hears the stop, and its log is kept."""
    container = engine.run(image, options=["--stop-timeout=10", "--env=AGENT_GRACE_SECONDS=10", *kept(tmp_path)])
    eventually(lambda: container.python(ASK).strip() == "answered" or None, "the server answers on its port")
    container.execute(AGENT, "ready")
    container.execute(AGENT, "players", "--count", "0", "--capacity", "8")
    container.execute(AGENT, "healthcheck", "--ready")
    container.stop(10)
    code = container.wait()
    told = story(tmp_path)
    assert told["reason"] == "platform_stop"
    assert told["code"] == code == 0
    assert [path for path in tmp_path.rglob("*.zst") if path.stat().st_size], "its log was shipped"
    assert "interrupted" in container.output(), "the server's own last word"


def test_a_real_server_ends_its_own_deployment(engine: Engine, image: str) -> None:
    """An operator's stop from inside: the server ends, then the deployment is stopped at the platform, once."""
    with FakePlatform() as platform:
        injected = [f"--env={name}={value}" for name, value in platform.environment().items()]
        port = free_port()
        container = engine.run(
            image,
            "/usr/games/DDNet-Server",
            "sv_register 0",
            f"sv_port {port}",
            options=["--network=host", "--env=AGENT_CONTROL_PORT=0", "--env=AGENT_METRICS_PORT=0", *injected],
        )
        container.said("server name is")
        container.execute(AGENT, "stop", "--reason", "match over")
        platform.wait_for_calls(1)
        container.stop(20)
        container.wait()
        assert len(platform.calls) == 1
