"""A container engine, whichever is there: podman or docker run, buildah builds where it is alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
DEADLINE = 60.0  # seconds until a test gives up on what should long have happened
BUILD_SECONDS = 1800.0  # the interpreter is compiled when nothing is cached
ROOT = Path(__file__).parents[2]
HOME = "/opt/arbitrium-agent"
AGENT = f"{HOME}/bin/arbitrium-agent"
PYTHON = f"{HOME}/bin/python"


def eventually(look: Callable[[], T | None], what: str) -> T:
    """Looks again and again until what is seen is true.

    Raises:
        AssertionError: it did not happen within `DEADLINE`.
    """
    end = time.monotonic() + DEADLINE
    while not (seen := look()):
        assert time.monotonic() < end, f"not within {DEADLINE:g} s: {what}"
        time.sleep(0.1)
    return seen


class BuildError(Exception):
    """An image cannot be built; `str()` is what the build printed."""


@dataclass
class Engine:
    """Builds images and runs containers.

    Attributes:
        build_command: podman, docker or buildah.
        run_command: podman or docker; None where there is only buildah.
    """

    build_command: str
    run_command: str | None
    started: list[Container] = field(default_factory=list)

    @classmethod
    def find(cls) -> Engine | None:
        """The engine of this machine, or None. `CONTAINER_ENGINE` names one of several."""
        wanted = os.environ.get("CONTAINER_ENGINE")
        names = [wanted] if wanted else ["podman", "docker", "buildah"]
        for name in names:
            if shutil.which(name) and _run([name, "version"], check=False).returncode == 0:
                return cls(name, None if name == "buildah" else name)
        return None

    @property
    def is_podman(self) -> bool:
        """Some options are podman's alone."""
        return self.run_command == "podman"

    def has(self, image: str) -> bool:
        """Whether an image is there, or can be pulled."""
        if self.build_command == "buildah":
            return _run(["buildah", "pull", "--policy", "missing", image], check=False).returncode == 0
        inspect = _run([self.build_command, "image", "inspect", image], check=False)
        return inspect.returncode == 0 or _run([self.build_command, "pull", "-q", image], check=False).returncode == 0

    def build(self, tag: str, context: Path, *options: str, dockerfile: str | None = None) -> str:
        """Builds an image; layers that are there already are used again.

        Args:
            tag: what to call it.
            context: directory with the Dockerfile.
            options: of the build command.
            dockerfile: text to use in place of the context's Dockerfile.

        Returns:
            The tag.

        Raises:
            BuildError: it cannot be built.
        """
        if dockerfile is not None:
            (context / "Dockerfile").write_text(dockerfile)
        command = [self.build_command, "build", "--tag", tag, *options]
        if self.build_command != "docker":
            command.insert(2, "--layers")
        done = _run([*command, str(context)], check=False, timeout=BUILD_SECONDS)
        if done.returncode != 0:
            raise BuildError(f"cannot build {tag}:\n{(done.stdout + done.stderr)[-6000:]}")
        return tag

    def run(self, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Starts a container in the background, without a network unless the options name one.

        Args:
            image: its image.
            command: what stands in place of CMD.
            options: of the run command.
        """
        assert self.run_command is not None
        network = [] if any(option.startswith("--network") for option in options) else ["--network=none"]
        name = f"arbitrium-agent-test-{uuid.uuid4().hex[:12]}"
        container = Container(self.run_command, name)
        self.started.append(container)
        _run([self.run_command, "run", "--detach", "--name", name, *network, *options, image, *command])
        return container

    def clean_up(self) -> None:
        """Removes every container that was started."""
        for container in self.started:
            container.remove()
        self.started.clear()


@dataclass
class Container:
    """One container, running or ended."""

    engine: str
    name: str

    def output(self) -> str:
        """What it printed so far, on both streams."""
        done = _run([self.engine, "logs", self.name], check=False)
        return done.stdout + done.stderr

    def said(self, text: str) -> str:
        """Waits until its output has a text; returns the output."""
        return eventually(lambda: output if text in (output := self.output()) else None, f"{text!r} of {self.name}")

    def wait(self) -> int:
        """Waits for its end; returns its exit code."""
        return int(_run([self.engine, "wait", self.name], timeout=DEADLINE).stdout.split()[-1])

    def stop(self, seconds: int) -> None:
        """What a platform does: SIGTERM to PID 1, and SIGKILL when the grace is over."""
        _run([self.engine, "stop", "--time" if self.engine == "docker" else "-t", str(seconds), self.name])

    def kill(self, signal: str) -> None:
        """Sends a signal to PID 1."""
        _run([self.engine, "kill", "--signal", signal, self.name])

    def execute(self, *command: str, check: bool = True, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command in it, as its own user or as another one."""
        given = ["--user", user] if user is not None else []
        return _run([self.engine, "exec", *given, self.name, *command], check=check)

    def python(self, code: str) -> str:
        """Runs a few lines in the runtime's interpreter, in the container; returns what they printed."""
        return self.execute(PYTHON, "-c", code).stdout

    def state(self) -> dict[str, Any]:
        """What the engine knows of its state."""
        (inspected,) = json.loads(_run([self.engine, "inspect", self.name]).stdout)
        state: dict[str, Any] = inspected["State"] | {"RestartCount": inspected.get("RestartCount", 0)}
        return state

    def pid(self) -> int:
        """PID 1 as this machine numbers it."""
        return int(self.state()["Pid"])

    def remove(self) -> None:
        """Ends and removes it, whatever state it is in."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            _run(
                [self.engine, "rm", "--force", "--time=0", self.name], check=False
            ) if self.engine == "podman" else _run([self.engine, "rm", "--force", self.name], check=False)


def _run(command: Sequence[str], *, check: bool = True, timeout: float = DEADLINE) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout, errors="replace")
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
    return done
