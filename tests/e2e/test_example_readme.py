"""The commands of examples/udp_game/README.md, as they stand there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.free_ports import free_port
from tests.process.harness import COMMAND, DEADLINE, base_environment, eventually

EXAMPLES = Path(__file__).parents[2] / "examples"


def end(process: subprocess.Popen[bytes]) -> None:
    """End what was begun: asked first, since an agent that is killed cannot end its game."""
    process.terminate()
    try:
        process.wait(DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_commands_of_the_game_do_what_they_say(tmp_path: Path) -> None:
    """The game runs under the agent, a bot plays, the status tells of it, and the stop saves the result.

    Five seconds: a whole life by hand.
    """
    (block,) = re.findall(r"```sh\n(.*?)```", (EXAMPLES / "udp_game/README.md").read_text(), re.DOTALL)
    folder, start, bot, status, stop = (line.partition("#")[0].strip() for line in block.splitlines())
    assert folder == "cd examples"
    port = str(free_port())  # 7777 may be somebody else's on this machine
    environ = base_environment(tmp_path) | {
        "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}",
        "AGENT_SOCKET": str(tmp_path / "agent.sock"),
        "ARBITRIUM_PORT_GAMEPORT_INTERNAL": port,
        "MATCH_GOAL": "100000",
        "MATCH_RESULT_FILE": str(tmp_path / "result.json"),
    }

    def begin(command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command.split(), cwd=EXAMPLES, env=environ, stdout=subprocess.DEVNULL)
        begun.callback(end, process)
        return process

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command],
            cwd=EXAMPLES,
            env=environ,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    with contextlib.ExitStack() as begun:
        game = begin(start)
        eventually(lambda: "ready" in run(status).stdout.split(), "the game is ready")
        begin(f"{bot} --port {port}")
        eventually(lambda: "1 of" in run("arbitrium-agent players").stdout, "somebody plays")
        assert run(stop).returncode == 0
        assert game.wait(DEADLINE) == 0
        assert (tmp_path / "result.json").is_file()
