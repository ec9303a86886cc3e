"""Every stop source with every method against every way a game can take it, inside a short and a long deadline.

Never late: what must be over by a moment is over at most 100 ms after it. Never early: a game that does not obey has
all of its share before the next method, and all of its time before SIGKILL. A game that obeys does so by the method
that is meant. Printed as a table (`pytest -s`).
"""

import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.free_ports import free_port
from tests.process.harness import COMMAND, Launcher, Run, game

LATE_SECONDS = 0.1
SOURCES = ["game", "platform", "policy", "operator"]
HOOK = "command:sh -c 'kill -USR1 $AGENT_GAME_PID'"
METHODS = ["notify", "stdin:stop", "signal:SIGINT", HOOK, "rcon:stop", "signal:SIGTERM"]
BEHAVIOURS = ["obeys", "slow", "ignores", "forks", "hangs"]
AT_ONCE = 30
# So many agents on few cores: they are all started before the first one is stopped, a few at a time, and not stopped in
# one moment.
STARTED_AT_ONCE = 4
APART_SECONDS = 0.1


@dataclass(frozen=True)
class Cell:
    """One combination."""

    source: str
    method: str
    behaviour: str
    grace: float

    @property
    def command(self) -> list[str]:
        """The game."""
        arguments = [self.behaviour, str(self.grace * 0.3)] if self.behaviour == "slow" else [self.behaviour]
        return game("answers_stop", *arguments)

    @property
    def env(self) -> dict[str, str]:
        """The agent's settings."""
        kind = self.method.partition(":")[0]
        env = {"AGENT_STOP": self.method, "AGENT_GRACE_SECONDS": str(self.grace), "HEARS": kind}
        if self.method.startswith("rcon"):
            port = str(free_port())
            env |= {"RCON_PORT": port, "AGENT_RCON_ADDRESS": f"127.0.0.1:{port}", "AGENT_RCON_PASSWORD": "pass-word"}
        return env | ({"AGENT_EMPTY_TIMEOUT": "100ms"} if self.source == "policy" else {})

    def ask(self, run: Run) -> None:
        """Asks for the stop."""
        match self.source:
            case "game":
                assert run.http("POST", "/v1/stop").status == 202
            case "platform":
                run.signal(signal.SIGTERM)
            case "policy":
                assert run.http("POST", "/v1/ready").status == 200
                assert run.http("PUT", "/v1/players", {"count": 1}).status == 200
                assert run.http("PUT", "/v1/players", {"count": 0}).status == 200
            case _:
                done = subprocess.run(
                    [COMMAND, "stop"],
                    env={"AGENT_SOCKET": str(run.socket_path), "PATH": "/bin:/usr/bin"},
                    capture_output=True,
                    timeout=60,
                    check=False,
                )
                assert done.returncode == 0, done


@dataclass(frozen=True)
class Outcome:
    """What a cell came to, in seconds."""

    cell: Cell
    game_seconds: float
    allowed_seconds: float
    promised_seconds: float
    killed: bool
    total_seconds: float
    turns: list[dict[str, Any]]

    @property
    def faults(self) -> list[str]:
        """What was not as promised."""
        cell, found = self.cell, []
        if self.game_seconds > self.allowed_seconds + LATE_SECONDS:
            found.append(f"late: gone after {self.game_seconds:.3f} of {self.allowed_seconds:.3f} s")
        if cell.source == "platform" and self.total_seconds > cell.grace + LATE_SECONDS:
            found.append(f"late: over after {self.total_seconds:.3f} of {cell.grace:g} s")
        stubborn = cell.behaviour in ("ignores", "hangs", "forks")
        if stubborn and not self.killed:
            found.append("not killed")
        if stubborn and min(self.game_seconds, self.total_seconds) < self.promised_seconds - 0.005:
            found.append(f"early: killed after {self.game_seconds:.3f} of {self.promised_seconds:.3f} s")
        if stubborn:
            # Nobody is left in the group of a game that only left a daemon behind: such a turn is over at once.
            applied = [turn for turn in self.turns if turn["outcome"] == "applied"]
            cut = [turn for turn in applied if turn["seconds"] < turn["planned_seconds"] - 0.005]
            found += [f"early: {turn['method']} had {turn['seconds']} s" for turn in cut]
        elif len(self.turns) != 1 or self.turns[0]["outcome"] != "applied":
            found.append(f"not by its method: {[(turn['method'], turn['outcome']) for turn in self.turns]}")
        if not stubborn and self.killed:
            found.append("killed though it obeyed")
        return found


def start(launch: Launcher, cell: Cell) -> Run:
    """The cell's game under its agent, ready and served."""
    launch.files.mkdir()
    run = launch(cell.command, env=cell.env, mode="subreaper", stdin=subprocess.PIPE)
    run.wait_for("ready")
    assert run.is_ready_to_answer()
    return run


def stop(cell: Cell, run: Run, after_seconds: float) -> Outcome:
    """The cell's stop, from being asked for to the end."""
    threading.Event().wait(after_seconds)
    asked = time.monotonic()
    cell.ask(run)
    run.process.wait(cell.grace + 30)
    total = time.monotonic() - asked
    run.finish()
    document = run.story()
    assert document["stop"]["source"] == cell.source, document["stop"]
    steps = {step["step"]: step for step in document["happened"] if "step" in step}
    planned = {step["step"]: step["seconds"] for step in document["plan"]["steps"]}
    taken = sum(steps[name]["seconds"] for name in ("stop", "kill") if name in steps)
    return Outcome(
        cell=cell,
        game_seconds=taken,
        allowed_seconds=planned["stop"] + planned["kill"],
        promised_seconds=planned["stop"],
        killed="kill" in steps,
        total_seconds=total,
        turns=[step for step in document["happened"] if "method" in step],
    )


def table(outcomes: list[Outcome]) -> str:
    """All cells, a line each."""
    lines = [f"{'source':9} {'method':15} {'behaviour':9} {'grace':>5} {'gone':>7} {'of':>7} {'killed':6}  faults"]
    lines += [
        f"{o.cell.source:9} {o.cell.method[:15]:15} {o.cell.behaviour:9} {o.cell.grace:5g} {o.game_seconds:7.3f} "
        f"{o.allowed_seconds:7.3f} {'yes' if o.killed else 'no':6}  {'; '.join(o.faults)}"
        for o in outcomes
    ]
    return "\n".join(lines)


def check(tmp_path: Path, cells: list[Cell]) -> None:
    """Plays all cells, several at once, and holds each against what was promised."""
    outcomes: list[Outcome] = []
    for first in range(0, len(cells), AT_ONCE):
        some = cells[first : first + AT_ONCE]
        with ThreadPoolExecutor(AT_ONCE) as pool, ExitStack() as stack:
            launchers = [stack.enter_context(Launcher(tmp_path / str(first + number))) for number in range(len(some))]
            with ThreadPoolExecutor(STARTED_AT_ONCE) as starting:
                runs = list(starting.map(start, launchers, some))
            outcomes += pool.map(stop, some, runs, (number * APART_SECONDS for number in range(len(some))))
    print("\n" + table(outcomes))
    faulty = [outcome for outcome in outcomes if outcome.faults]
    assert not faulty, table(faulty)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("grace", [5.0, 30.0])
def test_the_whole_matrix(tmp_path: Path, grace: float) -> None:
    """All of it."""
    check(tmp_path, [Cell(*combination, grace) for combination in product(SOURCES, METHODS, BEHAVIOURS)])
