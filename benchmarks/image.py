"""What the agent costs a game image: bytes, memory and start, in a container of every base image.

Needs podman or docker, the base images, and root (or the same user) to see the container's processes.
"""

from __future__ import annotations

import gzip
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from benchmarks import Row, skipped, summary
from benchmarks._tools import (
    HERE,
    CannotMeasureError,
    first_answer,
    free_port,
    memory,
    moment,
    moments,
    own_processes,
    peak,
    rounds,
    scratch,
)
from benchmarks.start import _python
from tests.image.conftest import BASES, RUNTIME, THREE_LINES
from tests.image.engine import HOME, BuildError, Engine

DIRECTORY = "runtime directory"
LAYER = "runtime directory as a layer (gzip -6)"
IDLE = "RSS in a container, idle: the agent's process"
SCRAPED = "RSS in a container, after a scrape: the agent's process"
IDLE_INIT = "RSS in a container, idle: PID 1"
PSS = "PSS of both in a container, idle"
PEAK = "peak of the agent's RSS since the start, by its RSS idle"
TO_EXEC = "container start to exec of the game"
TO_ANSWER = "container start to the first answered request"
SETTLED = 2.0  # seconds after which nothing of the start is left to do
FLOOR = "python3 -c pass, on the host"


def measure(quick: bool) -> list[Row]:
    """Measures the directory once, and each base image in turn, again and again."""
    if quick:
        return [skipped(DIRECTORY, "agent", "MB", "its image takes minutes to build; run without --quick")]
    engine = Engine.find()
    if engine is None or engine.run_command is None:
        return [skipped(DIRECTORY, "agent", "MB", "neither podman nor docker is here")]
    try:
        program = _stamp()
        images = _images(engine)
    except (CannotMeasureError, BuildError) as problem:
        return [skipped(DIRECTORY, "agent", "MB", str(problem).splitlines()[0])]
    rows = _sizes(engine)
    found: dict[tuple[str, str], list[float]] = {}
    for _ in rounds(25.0, 11, 2):
        for base, image in images.items():
            for what, value in _start(engine, image, program).items():
                found.setdefault((what, base), []).append(value)
        found.setdefault((TO_EXEC, FLOOR), []).append(_python() * 1000)
    floor = statistics.median(found[TO_EXEC, FLOOR])
    aims = {
        IDLE: ("MB", 34.0),
        SCRAPED: ("MB", None),
        IDLE_INIT: ("MB", None),
        PSS: ("MB", None),
        PEAK: ("", 1.3),
        TO_EXEC: ("ms", 1.8 * floor),
        TO_ANSWER: ("ms", 12 * floor),
    }
    for what, (unit, aim) in aims.items():
        for (measured, who), values in found.items():
            if measured == what:
                rows.append(summary(what, who, values, unit, at_most=None if who == FLOOR else aim))
    rows += [
        skipped(TO_EXEC, base, "ms", "the base image is not here and cannot be pulled")
        for base in BASES
        if base not in images
    ]
    return rows


def _stamp() -> str:
    """The program with exact moments, static: it runs in every image.

    Raises:
        CannotMeasureError: there is no C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotMeasureError("no C compiler (Debian: apt install gcc libc6-dev)")
    folder = scratch() / "image"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    program = folder / "stamp"
    subprocess.run([compiler, "-O2", "-static", "-o", str(program), str(HERE / "_stamp.c")], check=True)
    return str(program)


def _images(engine: Engine) -> dict[str, str]:
    """Builds the runtime image and a game image on each base image that is here."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        context = Path(folder)
        for name in ("agent", "examples", "packaging"):
            shutil.copytree(HERE.parent / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        locks = [path.name for path in HERE.parent.glob("requirements*.lock")]
        for name in ["Dockerfile", ".dockerignore", "entrypoint.sh", "LICENSE", *locks]:
            shutil.copy2(HERE.parent / name, context)
        engine.build(RUNTIME, context)
    images = {}
    for base in BASES:
        if engine.has(base):
            with tempfile.TemporaryDirectory(dir=scratch()) as folder:
                tag = f"localhost/arbitrium-agent-test/bench-{base.replace(':', '-')}"
                images[base] = engine.build(tag, Path(folder), dockerfile=f"FROM {base}\n{THREE_LINES}")
    return images


def _sizes(engine: Engine) -> list[Row]:
    assert engine.run_command is not None
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        name = f"arbitrium-agent-bench-{free_port()}"
        subprocess.run([engine.run_command, "create", "--name", name, RUNTIME], check=True, capture_output=True)
        try:
            subprocess.run([engine.run_command, "cp", f"{name}:{HOME}", folder], check=True, capture_output=True)
        finally:
            subprocess.run([engine.run_command, "rm", name], check=True, capture_output=True)
        directory = Path(folder) / Path(HOME).name
        size = sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())
        archive = Path(folder) / "layer.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(directory, HOME.lstrip("/"))
        layer = len(gzip.compress(archive.read_bytes(), 6))
    return [
        Row(DIRECTORY, "agent", size / 1e6, "MB", at_most=40.0),
        Row(LAYER, "agent", layer / 1e6, "MB", at_most=15.0),
    ]


def _start(engine: Engine, image: str, program: str) -> dict[str, float]:
    """One container: from the exec of its entrypoint on, without what the engine does before."""
    folder = Path(program).parent
    file = folder / f"moments-{free_port()}"
    control, metrics = free_port(), free_port()
    container = engine.run(
        image, "launch", f"/bench/{file.name}", f"{HOME}/entrypoint.sh", "/bench/stamp", "wait", f"/bench/{file.name}",
        options=[
            "--network=host", "--entrypoint=/bench/stamp", f"--volume={folder}:/bench",
            f"--env=AGENT_CONTROL_PORT={control}", f"--env=AGENT_METRICS_PORT={metrics}", "--env=AGENT_LOG_LEVEL=error",
        ],
    )  # fmt: skip
    try:
        answered = first_answer(control, "/healthz")
        moment(str(file), "started")
        took = moments(str(file))
        time.sleep(SETTLED)
        init, agent = own_processes(container.pid())
        of_init, of_agent, most = memory(init), memory(agent), peak(agent)
        first_answer(metrics, "/metrics")
        return {
            IDLE: of_agent[0],
            SCRAPED: memory(agent)[0],
            IDLE_INIT: of_init[0],
            PSS: of_init[1] + of_agent[1],
            PEAK: most / of_agent[0],
            TO_EXEC: (took["started"] - took["exec"]) * 1000,
            TO_ANSWER: (answered - took["exec"]) * 1000,
        }
    finally:
        engine.clean_up()
        file.unlink(missing_ok=True)
