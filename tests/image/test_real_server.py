"""A real dedicated server from Debian's packages, with the three lines, through its whole life."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.fakes import FakePlatform
from tests.image.conftest import THREE_LINES, Make
from tests.image.engine import AGENT, Engine, eventually
from tests.image.test_every_base import kept, story

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

DOCKERFILE = f"""\
FROM debian:13-slim
RUN apt-get update \\
 && apt-get install -y -q --no-install-recommends teeworlds-server \\
 && rm -rf /var/lib/apt/lists/*
{THREE_LINES}CMD ["/usr/games/teeworlds-server", "sv_register 0", "sv_port 8303", "sv_name arbitrium"]
ENV HOME=/tmp
USER games
"""

# A connectionless packet of Teeworlds 0.7: a request for a token; a server that plays answers it.
ASK = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(1)
    client.sendto(bytes([0x04, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 5, 1, 2, 3, 4]) + bytes(512), ('127.0.0.1', 8303))
    try:
        print(len(client.recv(2048)))
    except TimeoutError:
        print(0)
"""


@pytest.fixture(scope="module")
def image(builder: Engine, make_image: Make) -> str:
    """Teeworlds as Debian has it."""
    if not builder.has("debian:13-slim"):
        pytest.skip("the base image debian:13-slim is not here and cannot be pulled")
    return make_image("teeworlds", DOCKERFILE)


def test_teeworlds_lives_and_is_stopped_by_the_platform(engine: Engine, image: str, tmp_path: Path) -> None:
    """It starts as its own user, answers players, hears the stop, and its log is kept."""
    container = engine.run(image, options=["--stop-timeout=10", "--env=AGENT_GRACE_SECONDS=10", *kept(tmp_path)])
    eventually(lambda: container.python(ASK).strip() != "0" or None, "the server answers on its port")
    status = container.execute(AGENT, "status").stdout
    assert "teeworlds" in status or "ready" in status or "starting" in status
    container.execute(AGENT, "ready")
    container.execute(AGENT, "players", "set", "--count", "0", "--capacity", "8")
    container.execute(AGENT, "healthcheck", "--ready")
    container.stop(10)
    code = container.wait()
    told = story(tmp_path)
    assert told["reason"] == "platform_stop"
    assert told["code"] == code == 0
    logs = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json")
    assert logs


def test_teeworlds_ends_its_own_deployment(engine: Engine, image: str) -> None:
    """An operator's stop from inside: the server ends, then the deployment is stopped at the platform, once."""
    with FakePlatform() as platform:
        injected = [f"--env={name}={value}" for name, value in platform.environment().items()]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        container = engine.run(
            image,
            "/usr/games/teeworlds-server",
            "sv_register 0",
            f"sv_port {port}",
            options=["--network=host", "--env=AGENT_CONTROL_PORT=0", "--env=AGENT_METRICS_PORT=0", *injected],
        )
        container.said("version")
        container.execute(AGENT, "stop", "--reason", "match over")
        platform.wait_for_calls(1)
        container.stop(5)
        container.wait()
        assert len(platform.calls) == 1
