"""Container games: a version's image, run by podman or docker, if one is installed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from collections.abc import Mapping
from typing import Literal

from agent.emulator.container import Container
from agent.emulator.errors import CannotRun
from agent.emulator.models import VersionBody

LINGER_SECONDS = 5.0
"""What podman's monitor may take to tidy up after a container."""
CALL_SECONDS = 30.0
"""Longest that a call takes which only looks, or removes."""
KEPT = ("PATH", "HOME", "USER", "XDG_", "CONTAINER", "DOCKER_", "TMPDIR", "STORAGE_", "BUILDAH_", "LANG")
"""What the engine's own command needs of the emulator's environment."""


def find_engine(wanted: Literal["auto", "podman", "docker", "none"]) -> Engine | None:
    """The engine to use; None when there is none."""
    names = {"auto": ["podman", "docker"], "none": []}.get(wanted, [wanted])
    path = next((path for name in names if (path := shutil.which(name))), None)
    return Engine(path) if path else None


def process_command(version: VersionBody) -> list[str]:
    """The argument vector of a process game.

    Raises:
        CannotRun: the version has no command, or its quotes do not match.
    """
    command = [*_words(version, version.command), *_words(version, version.arguments)]
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


def _words(version: VersionBody, text: str | None) -> list[str]:
    try:
        return shlex.split(text or "")
    except ValueError as error:
        raise CannotRun(f"cannot read the command of version {version.name}: {error}; check its quotes") from None


class Engine:
    """Podman or docker, by its command line.

    Args:
        path: of its program.
    """

    def __init__(self, path: str) -> None:
        """See the class."""
        self.path = path

    def environment(self, game: Mapping[str, str]) -> dict[str, str]:
        """What the engine's command runs with: its own settings, and the game's variables to pick from."""
        return {**{name: value for name, value in os.environ.items() if name.startswith(KEPT)}, **game}

    async def create(self, version: VersionBody, name: str, game: Mapping[str, str], closing: asyncio.Event) -> None:
        """Make a container, pulling its image if it is not here.

        Values of variables are not on the command line: the engine takes them from its own environment by name, so
        that no token shows in a list of processes. The container shares the machine's network, so that the game finds
        the emulator, and what it listens on is found by the forwarders.

        Raises:
            CannotRun: the engine refused, took longer than `time_to_deploy`, or the emulator is being closed.
        """
        options = [f"--name={name}", "--network=host", f"--memory={version.req_memory}m"]
        options += [f"--cpus={version.req_cpu / 1024:.3f}"]
        for variable in game:
            options += ["--env", variable]
        entrypoint, *rest = _words(version, version.command) or [""]
        if entrypoint:
            options.append(f"--entrypoint={entrypoint}")
        command = [*options, image_of(version), *rest, *_words(version, version.arguments)]
        code, said = await self.call("create", *command, game=game, seconds=version.time_to_deploy, closing=closing)
        if code:
            raise CannotRun(f"cannot make a container of {image_of(version)}: {_last_line(said)}; check the image")

    def start_command(self, name: str) -> list[str]:
        """The command that starts a container and stays with it: its output, its signals, its exit code."""
        return [self.path, "start", "--attach", name]

    async def wait_until_running(self, name: str, container: Container) -> int:
        """Until a container's own command was executed; returns its PID on this machine, 0 when it has ended already.

        Raises:
            CannotRun: it could not be.
        """
        while True:
            code, said = await self.call("inspect", "--format", "{{.State.Status}} {{.State.Pid}}", name)
            status, _, pid = said.strip().partition(" ")
            if code == 0 and status == "running" and pid.isdigit():
                return int(pid)
            if not container.running:
                break
            await asyncio.sleep(0.05)
        if await container.wait() and status in {"created", "configured", "initialized"}:
            raise CannotRun(
                f"cannot start the container: {_last_line(container.output())}; check the version's command"
            )
        return 0

    async def out_of_memory(self, name: str) -> bool:
        """Whether the kernel killed a container for using more memory than it had."""
        code, said = await self.call("inspect", "--format", "{{.State.OOMKilled}}", name)
        return code == 0 and said.strip() == "true"

    async def remove(self, name: str) -> None:
        """Make sure that nothing is left of a container."""
        await self.call(*self.remove_command(name)[1:])

    def remove_command(self, name: str) -> list[str]:
        """The command that kills a container, where it still runs, and forgets it."""
        return [self.path, "rm", "--force", "--volumes", name]

    async def call(
        self,
        *arguments: str,
        game: Mapping[str, str] | None = None,
        seconds: float = CALL_SECONDS,
        closing: asyncio.Event | None = None,
    ) -> tuple[int, str]:
        """Run the engine's command; its exit code and all that it said."""
        process = await asyncio.create_subprocess_exec(
            self.path,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment(game or {}),
            start_new_session=True,  # Ctrl-C is the emulator's affair
        )
        said = asyncio.create_task(process.communicate())
        left = asyncio.create_task(closing.wait()) if closing else None
        try:
            await asyncio.wait({said, *([left] if left else [])}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if left:
                left.cancel()
                await asyncio.gather(left, return_exceptions=True)
            late = not said.done()
            if late:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what it started holds its output open
            output = (await said)[0].decode(errors="replace")
        code = process.returncode or 0
        return (code or 1, f"it took longer than {seconds:g} s") if late else (code, output)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "the engine does not say why"
