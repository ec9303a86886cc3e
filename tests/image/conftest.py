"""Builds what the image tests share: the runtime directory, and one game image for each base image."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.image.engine import HOME, ROOT, Engine

BASES = ("debian:11-slim", "debian:12-slim", "debian:13-slim", "busybox:latest")
RUNTIME = "localhost/arbitrium-agent-test/runtime"
THREE_LINES = f"""\
COPY --from={RUNTIME} {HOME} {HOME}
ENTRYPOINT ["{HOME}/entrypoint.sh"]
CMD ["{HOME}/bin/python", "/game/polite.py"]
"""


@pytest.fixture(scope="session")
def builder() -> Engine:
    """Something that builds images, or a visible skip."""
    found = Engine.find()
    if found is None:
        pytest.skip("no podman, docker or buildah here: nothing was built")
    return found


@pytest.fixture(scope="session")
def runtime_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build of the runtime directory reads, copied: an editor may write while the build reads."""
    context = tmp_path_factory.mktemp("runtime")
    for name in ("agent", "examples", "packaging"):
        shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    locks = [path.name for path in ROOT.glob("requirements*.lock")]
    for name in ["Dockerfile", ".dockerignore", "entrypoint.sh", "LICENSE", *locks]:
        shutil.copy2(ROOT / name, context)
    return context


@pytest.fixture(scope="session")
def runtime(builder: Engine, runtime_context: Path) -> str:
    """The image with the runtime directory, built from this checkout."""
    return builder.build(RUNTIME, runtime_context)


@pytest.fixture
def engine(builder: Engine) -> Iterator[Engine]:
    """Something that runs containers, or a visible skip; nothing outlives the test."""
    if builder.run_command is None:
        pytest.skip("there is only buildah here, which runs no containers")
    yield builder
    builder.clean_up()


Make = Callable[..., str]


@pytest.fixture(scope="session")
def make_image(builder: Engine, runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Builds a game image from the lines of a Dockerfile; the test games lie in /game."""
    assert runtime == RUNTIME

    def make(name: str, dockerfile: str, *, files: dict[str, bytes] | None = None) -> str:
        context = tmp_path_factory.mktemp(name)
        shutil.copytree(ROOT / "tests/games", context / "games", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (Path(__file__).parent / "games").iterdir():
            if path.is_file():
                shutil.copy2(path, context / "games")
        for file, content in (files or {}).items():
            (context / file).write_bytes(content)
            (context / file).chmod(0o755)
        return builder.build(f"localhost/arbitrium-agent-test/{name}", context, dockerfile=dockerfile)

    return make


@pytest.fixture(scope="session", params=BASES)
def base(request: pytest.FixtureRequest, builder: Engine) -> str:
    """One of the base images."""
    name: str = request.param
    if not builder.has(name):
        pytest.skip(f"the base image {name} is not here and cannot be pulled")
    return name


@pytest.fixture(scope="session")
def game_image(base: str, make_image: Make) -> str:
    """A game image on a base image, with the three lines."""
    return make_image(base.replace(":", "-"), f"FROM {base}\nCOPY games /game\n{THREE_LINES}")


@pytest.fixture(scope="session")
def debian_game(builder: Engine, make_image: Make) -> str:
    """A game image on Debian, for what does not depend on the base image."""
    if not builder.has("debian:13-slim"):
        pytest.skip("the base image debian:13-slim is not here and cannot be pulled")
    return make_image("debian-13-slim", f"FROM debian:13-slim\nCOPY games /game\n{THREE_LINES}")
