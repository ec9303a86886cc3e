"""The lines of docs/image.md for each kind of image, as they stand there: built, started, asked, stopped."""

from __future__ import annotations

import re

import pytest

from tests.image.conftest import RUNTIME, Make
from tests.image.engine import PYTHON, ROOT, Engine

pytestmark = [pytest.mark.image, pytest.mark.timeout(1800)]

RECIPES = dict(
    re.findall(
        r"```dockerfile\n# recipe: (\S+)\n(.*?)```", (ROOT / "docs/image.md").read_text(encoding="utf-8"), re.DOTALL
    )
)
# A stand-in for s6-overlay's /init, which cannot be had here: it insists on PID 1 and, at a stop, asks all to end.
INIT = b"""#!/bin/sh
[ $$ = 1 ] || { echo "/init: fatal: can only run as pid 1"; exit 100; }
trap 'kill -TERM -1' TERM
"$@" &
wait $!
wait $!
"""
DISTROLESS = "gcr.io/distroless/cc-debian12:nonroot"
# A stand-in where that cannot be had: a C library, certificates, a user, and no shell.
DISTROLESS_LINES = """\
FROM debian:12-slim AS debian
RUN mkdir -p /root-of-it/etc /root-of-it/home/nonroot /root-of-it/tmp && chmod 1777 /root-of-it/tmp \\
 && echo root:x:0:0:root:/root:/sbin/nologin >/root-of-it/etc/passwd \\
 && echo nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin >>/root-of-it/etc/passwd \\
 && for name in ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libgcc_s.so.1 libpthread.so.0 libdl.so.2; do \\
      file=$(find /usr/lib -name $name | head -n 1); \\
      mkdir -p /root-of-it$(dirname $file) && cp -L $file /root-of-it$file; done
FROM scratch
COPY --from=debian /root-of-it /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 65532
WORKDIR /home/nonroot
"""
FILES = {
    "server": f"#!{PYTHON}\n".encode() + (ROOT / "tests/games/polite.py").read_bytes(),
    "start.sh": b'#!/bin/sh\nexec /game/server "$@"\n',
    "init": INIT,
}


def test_the_recipes_are_found() -> None:
    """All that the issue names; a typing error in a marker would lose one."""
    assert set(RECIPES) == {
        "no-entrypoint", "entrypoint-with-arguments", "tini", "dumb-init", "own-init", "shell-form", "shell-form-exec",
        "scratch", "distroless", "studio-base",
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_works_as_written(engine: Engine, make_image: Make, recipe: str) -> None:
    """The game is ready, the command is on PATH and finds the agent as root too, and the stop is heard."""
    if not engine.has("debian:13-slim"):
        pytest.skip("the base image debian:13-slim is not here and cannot be pulled")
    lines = RECIPES[recipe].replace("arbitrium-agent:latest", RUNTIME)
    if DISTROLESS in lines and not engine.has(DISTROLESS):
        lines = lines.replace(DISTROLESS, make_image("distroless", DISTROLESS_LINES))
    image = make_image(f"recipe-{recipe}", lines, files=FILES)
    container = engine.run(image)
    container.said("ready")
    container.execute("arbitrium-agent", "status")
    container.execute("arbitrium-agent", "healthcheck")
    container.execute("arbitrium-agent", "ready", user="0")
    container.stop(10)
    assert container.wait() == 0
    assert "bye" in container.output()


def test_an_init_that_insists_on_pid_1_cannot_be_the_game(engine: Engine, make_image: Make) -> None:
    """Why the recipe is as it is."""
    lines = RECIPES["own-init"].replace("arbitrium-agent:latest", RUNTIME)
    lines += 'ENTRYPOINT ["/opt/arbitrium-agent/entrypoint.sh"]\nCMD ["/init", "/game/server"]\n'
    container = engine.run(
        make_image("init-under-the-agent", lines, files=FILES), options=["--env=AGENT_ON_CRASH=exit"]
    )
    assert container.wait() == 100
    assert "can only run as pid 1" in container.output()


def test_root_reaches_the_agent_of_another_user(engine: Engine, make_image: Make) -> None:
    """All commands, not only the health check: `docker exec -u 0` where the container runs as somebody else."""
    image = make_image(
        "another-user", RECIPES["no-entrypoint"].replace("arbitrium-agent:latest", RUNTIME) + "USER 1234:1234\n",
        files=FILES,
    )  # fmt: skip
    container = engine.run(image)
    container.said("ready")
    for command in (
        ["ready"],
        ["players", "--count", "2"],
        ["status"],
        ["health"],
        ["healthcheck"],
        ["logs"],
        ["doctor"],
    ):
        container.execute("arbitrium-agent", *command, user="0")
    assert "bye" not in container.output()
    container.execute("arbitrium-agent", "stop", "--reason", "match over", user="0")
    assert container.wait() == 0
