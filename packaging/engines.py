"""The container engine of this machine, for building, releasing and moving the pinned base images."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


class EngineError(SystemExit):
    """No engine, or one that failed; the message is what to print."""


def find() -> str:
    """podman, docker or buildah, whichever is there and answers; `CONTAINER_ENGINE` names one of several."""
    wanted = os.environ.get("CONTAINER_ENGINE")
    for name in [wanted] if wanted else ["podman", "docker", "buildah"]:
        if shutil.which(name) and subprocess.run([name, "version"], capture_output=True, check=False).returncode == 0:
            return name
    raise EngineError("cannot build an image: there is no podman, docker or buildah that answers; install one")


def output(*command: str) -> str:
    """What a command prints; its failure ends the program."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise EngineError(f"cannot go on: `{' '.join(command)}` exited {done.returncode}")
    return done.stdout.strip()


def base() -> str:
    """The base image of packaging/bases.env."""
    lines = (HERE / "bases.env").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2].strip() for line in lines if line.startswith("BASE="))


def build(engine: str, tag: str, version: str, revision: str, *options: str, epoch: int | None = None) -> None:
    """Builds the image with the runtime directory.

    Args:
        engine: from `find`.
        tag: what to call it.
        version: of the agent.
        revision: the commit.
        options: more options of the build.
        epoch: seconds since 1970 that everything is dated, for the same bytes each time.
    """
    command = [engine, "build", "--tag", tag]
    command += [f"--build-arg={name}={value}" for name, value in
                (("BASE", base()), ("VERSION", version), ("REVISION", revision))]  # fmt: skip
    if engine != "docker":
        command += ["--layers"] + ([f"--timestamp={epoch}"] if epoch is not None else [])
    elif epoch is not None:
        command += [f"--build-arg=SOURCE_DATE_EPOCH={epoch}"]
    if subprocess.run([*command, *options, str(ROOT)], check=False).returncode != 0:
        raise EngineError(f"cannot build {tag}; see above")


def copy_out(engine: str, image: str, path: str, target: Path) -> None:
    """Copies a directory out of an image, without running it."""
    if engine == "buildah":
        container = output("buildah", "from", "--pull-never", image)
        try:
            root = output("buildah", "mount", container)
            shutil.copytree(root + path, target / Path(path).name, symlinks=True)
        finally:
            output("buildah", "rm", container)
        return
    container = output(engine, "create", image)
    try:
        output(engine, "cp", f"{container}:{path}", str(target))
    finally:
        output(engine, "rm", container)
