"""Container games: a version's image, run by podman or docker where one of them is there."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping
from typing import Literal

from agent.emulator.errors import CannotRun
from agent.emulator.models import VersionBody

LINGER_SECONDS = 5.0
"""What podman's monitor may take to tidy up after a container."""
CANNOT_START = frozenset({125, 126, 127})
"""Exit codes of `podman run` and `docker run`: the engine's own error, not executable, not found."""


def find_engine(wanted: Literal["auto", "podman", "docker", "none"]) -> str | None:
    """The path of the engine to use; None when there is none."""
    names = {"auto": ["podman", "docker"], "none": []}.get(wanted, [wanted])
    return next((path for name in names if (path := shutil.which(name))), None)


def process_command(version: VersionBody) -> list[str]:
    """The argument vector of a process game.

    Raises:
        CannotRun: the version has no command, or its quotes do not match.
    """
    try:
        command = [*shlex.split(version.command or ""), *shlex.split(version.arguments or "")]
    except ValueError as error:
        raise CannotRun(f"cannot read the command of version {version.name}: {error}; check its quotes") from None
    if not command:
        raise CannotRun(
            f"cannot run version {version.name}: it has no command, and no container engine is here for its image; "
            "give it a command, or install podman"
        )
    return command


def image_of(version: VersionBody) -> str:
    """The image's full name; empty when the version names none."""
    if not version.docker_image:
        return ""
    repository = version.docker_repository.strip("/")
    image = f"{repository}/{version.docker_image}" if repository else version.docker_image
    return f"{image}:{version.docker_tag}" if version.docker_tag else image


def container_command(engine: str, version: VersionBody, name: str, variables: Iterable[str]) -> list[str]:
    """The engine's command line for a container game.

    Values of variables are not in it: the engine takes them from its own environment by name, so that no token shows
    in a list of processes. The container shares the machine's network, so that the game finds the emulator.

    Raises:
        CannotRun: its quotes do not match.
    """
    command = [engine, "run", "--rm", f"--name={name}", "--network=host", "--log-driver=none"]
    command += [f"--memory={version.req_memory}m", f"--cpus={version.req_cpu / 1024:.3f}"]
    for variable in variables:
        command += ["--env", variable]
    try:
        if version.command:
            command.append(f"--entrypoint={shlex.split(version.command)[0]}")
        rest = shlex.split(version.command)[1:] if version.command else []
        return [*command, image_of(version), *rest, *shlex.split(version.arguments or "")]
    except ValueError as error:
        raise CannotRun(f"cannot read the command of version {version.name}: {error}; check its quotes") from None


def engine_environment(own: Mapping[str, str], game: Mapping[str, str]) -> dict[str, str]:
    """What the engine's client runs with: its own settings, and the game's variables to pick from."""
    kept = ("PATH", "HOME", "USER", "XDG_", "CONTAINER", "DOCKER_", "TMPDIR", "STORAGE_", "BUILDAH_", "LANG")
    return {**{name: value for name, value in own.items() if name.startswith(kept)}, **game}
