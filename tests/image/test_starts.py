"""Every way to start the agent in an image, and what the doctor finds when one is built."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.image.conftest import RUNTIME, THREE_LINES, Make
from tests.image.engine import AGENT, HOME, ROOT, BuildError, Engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

STATIC = next((path for name in ("busybox",) if (path := shutil.which(name))), None)


def test_cmd_in_shell_form(engine: Engine, make_image: Make) -> None:
    """The engine puts `/bin/sh -c` in front; that shell expands variables, and the game hears the stop behind it.

    The container's exit code is the shell's then: of the game, where that shell replaced itself by the last command
    (bash does), and of SIGTERM, where it waited for it (dash).
    """
    image = make_image(
        "shell-form",
        f"FROM debian:13-slim\nCOPY games /game\n{THREE_LINES}"
        f"ENV ARGS=5\nCMD {HOME}/bin/python /game/polite.py $ARGS\n",
    )
    container = engine.run(image)
    container.said("ready")
    container.stop(20)
    assert container.wait() in {5, 143}
    assert "bye" in container.output()


def test_a_stop_that_entrypoint_got(engine: Engine, debian_game: str) -> None:
    """The launcher sends it to itself when it is held back for the agent, and leaves no trace of it to the game."""
    kept = "--env=_ARBITRIUM_STOP=TERM"
    container = engine.run(debian_game, "/bin/sleep", "600", options=[kept])
    assert container.wait() == 143
    names = f"--entrypoint={HOME}/bin/python"
    shown = engine.run(debian_game, "-c", "import os; print(*sorted(os.environ))", options=[kept, names])
    assert shown.wait() == 0
    assert "PATH" in shown.output()
    assert "_ARBITRIUM" not in shown.output()


def test_an_image_without_a_shell(engine: Engine, make_image: Make) -> None:
    """FROM scratch, one static program, and the exec form of the real command."""
    if STATIC is None:
        pytest.skip("no static busybox on this machine to put into an image")
    image = make_image(
        "scratch",
        f"FROM scratch\nCOPY server /game/cat\nCOPY --from={RUNTIME} {HOME} {HOME}\n"
        f'ENTRYPOINT ["{HOME}/bin/arbitrium-agent", "run", "--"]\nCMD ["/game/cat", "/proc/self/comm"]\n',
        files={"server": Path(STATIC).read_bytes()},
    )
    container = engine.run(image, options=["--env=AGENT_ON_EXIT=exit"])
    assert container.wait() == 0
    assert "cat\n" in container.output()


def test_another_directory(engine: Engine, make_image: Make) -> None:
    """The directory works wherever it is copied to; then its own loader is called by its path."""
    image = make_image(
        "elsewhere",
        f"FROM busybox:latest\nCOPY games /game\nCOPY --from={RUNTIME} {HOME} /srv/agent\n"
        'ENTRYPOINT ["/srv/agent/entrypoint.sh"]\nCMD ["/srv/agent/bin/python", "/game/polite.py"]\n',
    )
    container = engine.run(image)
    container.said("ready")
    container.execute("/srv/agent/bin/arbitrium-agent", "healthcheck")
    container.stop(20)
    assert container.wait() == 0


def test_a_start_script_from_windows_is_reported(engine: Engine, make_image: Make) -> None:
    """By the entrypoint, in the container's log, with what to do."""
    image = make_image(
        "crlf",
        f"FROM debian:13-slim\nCOPY start.sh /game/start.sh\n{THREE_LINES}CMD [\"/game/start.sh\"]\n",
        files={"start.sh": b"#!/bin/sh\r\nexec sleep 1000\r\n"},
    )  # fmt: skip
    container = engine.run(image, options=["--env=AGENT_ON_CRASH=exit"])
    assert container.wait() == 127
    assert "Windows line endings (CRLF)" in container.output()
    assert "sed -i" in container.output()


def test_no_command_is_reported(engine: Engine, debian_game: str) -> None:
    """An image without CMD: exit code 78, and what to write."""
    container = engine.run(debian_game, options=["--entrypoint", f"{HOME}/entrypoint.sh"])
    assert container.wait() == 78
    assert "command" in container.output()


BAD = {
    "not executable": ("RUN chmod 644 /game/start.sh\n", "it is not executable"),
    "crlf": ("RUN sed -i 's/$/\\r/' /game/start.sh\n", "Windows line endings"),
    "root under unreal": (
        """\
RUN mkdir -p /game/My/Binaries/Linux && cp /bin/sleep /game/My/Binaries/Linux/MyServer
RUN printf '#!/bin/sh\\nexec /game/My/Binaries/Linux/MyServer 1000\\n' > /game/start.sh
""",
        "an Unreal server refuses that",
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_the_doctor_makes_a_build_fail(builder: Engine, make_image: Make, mistake: str) -> None:
    """`RUN arbitrium-agent doctor --image -- CMD` exits with 1, and the build shows why."""
    line, says = BAD[mistake]
    dockerfile = (
        f"FROM debian:13-slim\nCOPY start.sh /game/start.sh\nCOPY --from={RUNTIME} {HOME} {HOME}\n{line}"
        f"RUN {HOME}/bin/arbitrium-agent doctor --image -- /game/start.sh\n"
    )
    assert builder.build_command
    with pytest.raises(BuildError, match=says):
        make_image("sick", dockerfile, files={"start.sh": b"#!/bin/sh\nexec sleep 1000\n"})


def test_the_doctor_lets_a_proper_image_pass(make_image: Make) -> None:
    """Warnings (no certificates in the base image) are no reason to fail."""
    make_image(
        "sound",
        f"FROM debian:13-slim\nCOPY Dockerfile /tmp/\nCOPY games /game\n{THREE_LINES}"
        f"RUN {HOME}/bin/arbitrium-agent doctor --image --dockerfile /tmp/Dockerfile\n",
    )


MOUNT = f"""\
RUN --mount=type=bind,source=Dockerfile,target=/tmp/Dockerfile \\
    ["{AGENT}", "doctor", "--image", "--dockerfile", "/tmp/Dockerfile"]
"""


def test_the_readme_line_gives_the_doctor_the_dockerfile(make_image: Make) -> None:
    """As it stands in the README and in docs/image.md; it sees an ENTRYPOINT that RUN cannot see."""
    for text in ("README.md", "docs/image.md"):
        assert MOUNT.strip() in (ROOT / text).read_text()
    lines = f"FROM debian:13-slim\nCOPY games /game\n{THREE_LINES}"
    make_image("mounted", lines + MOUNT)
    with pytest.raises(BuildError, match="a later ENTRYPOINT replaces"):
        # podman and buildah take a RUN from the cache whatever is mounted into it: another line before it, as docs say.
        make_image("mounted-lost", lines + "ENV ANOTHER=layer\n" + MOUNT + 'ENTRYPOINT ["/game/start.sh"]\n')


def test_the_doctor_knows_what_an_old_base_lacks(builder: Engine, make_image: Make) -> None:
    """A program of Debian 13 on Debian 11: the C library is too old, and nothing was executed to find out."""
    if not builder.has("debian:11-slim"):
        pytest.skip("the base image debian:11-slim is not here and cannot be pulled")
    copy = f"COPY --from=debian:13-slim /usr/bin/apt /game/server\nCOPY --from={RUNTIME} {HOME} {HOME}\n"
    check = f"RUN {AGENT} doctor --image -- /game/server\n"
    with pytest.raises(BuildError, match=r"C library of the image is too old|the image lacks lib"):
        make_image("old-libc", f"FROM debian:11-slim\n{copy}{check}")
    make_image("new-libc", f"FROM debian:13-slim\n{copy}{check}")


def test_a_game_user_without_the_capability_is_named(engine: Engine, debian_game: str) -> None:
    """Exit code 78, and which capability is missing, instead of an errno."""
    options = ["--cap-drop=SETUID", "--env=AGENT_GAME_USER=65534:65534", "--env=AGENT_ON_CRASH=exit"]
    container = engine.run(debian_game, options=options)
    assert container.wait() == 78
    assert "this container lacks CAP_SETUID" in container.output()


def test_config_check_fails_a_build(builder: Engine, make_image: Make) -> None:
    """Equal ports; and a query protocol is none, since the library is in the image."""
    assert builder.build_command
    lines = (
        f"FROM debian:13-slim\nCOPY --from={RUNTIME} {HOME} {HOME}\nENV AGENT_PLAYERS_FROM=query:a2s://127.0.0.1:1\n"
    )
    make_image("checked", f"{lines}RUN {AGENT} config --check\n")
    with pytest.raises(BuildError, match="takes a port of its own"):
        make_image("unchecked", f"{lines}ENV AGENT_CONTROL_PORT=9464\nRUN {AGENT} config --check\n")


def test_the_doctor_sees_a_container_as_it_runs(engine: Engine, debian_game: str) -> None:
    """PID 1, the game's signals, its user; nothing is wrong with this one but the place for the logs."""
    container = engine.run(debian_game, options=["--env=AGENT_GRACE_SECONDS=5"])
    container.said("ready")
    shown = json.loads(container.execute(f"{HOME}/bin/arbitrium-agent", "doctor", "--json").stdout)
    levels = {finding["check"]: finding["level"] for finding in shown["findings"]}
    assert levels["init"] == "ok"
    assert levels["agent"] == "ok"
    assert levels["signals"] == "ok"
    assert levels["grace"] == "ok"
    assert levels["storage"] == "warning"
    deaf = engine.run(debian_game, "/bin/sleep", "1000")
    container = deaf
    container.execute(f"{HOME}/bin/arbitrium-agent", "healthcheck", check=False)
    shown = json.loads(container.execute(f"{HOME}/bin/arbitrium-agent", "doctor", "--json", check=False).stdout)
    assert any("does not handle SIGTERM" in finding["message"] for finding in shown["findings"])


def test_an_entrypoint_in_shell_form_is_found_in_the_container(engine: Engine, debian_game: str) -> None:
    """PID 1 is a shell then."""
    container = engine.run(
        debian_game, "-c", f"{HOME}/entrypoint.sh sleep 1000; true", options=["--entrypoint", "/bin/sh"]
    )
    done = container.execute(f"{HOME}/bin/arbitrium-agent", "doctor", check=False)
    assert done.returncode == 1
    assert "ENTRYPOINT is in shell form" in done.stdout
