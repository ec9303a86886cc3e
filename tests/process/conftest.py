"""Fixtures of the black-box tests."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.fakes import FakePlatform
from tests.process.harness import Launcher, Mode


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launcher]:
    """Starts `arbitrium-agent run` with a game, as often as the test likes; nothing outlives the test."""
    with Launcher(tmp_path) as launcher:
        yield launcher


@pytest.fixture(params=["pid1", pytest.param("subreaper", marks=pytest.mark.slow)])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Both ways of being init: PID 1 of a namespace, and a plain process that has to be a subreaper (a slow test)."""
    return cast("Mode", request.param)


@pytest.fixture
def platform() -> Iterator[FakePlatform]:
    """A platform that accepts the first self-stop."""
    with FakePlatform() as fake:
        yield fake
