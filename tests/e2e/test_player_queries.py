"""Real servers asked how many play, over the protocols that they speak. Skipped, visibly, where one is missing.

`apt-get install openarena-server teeworlds-server`; `npm install -g minecraft-protocol` for a server and a client of
Minecraft's protocol.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.runtime.player_query import Tally, query
from tests.free_ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

OPENARENA, TEEWORLDS = "/usr/games/openarena-server", "/usr/games/teeworlds-server"
MINECRAFT = """
const mc = require('minecraft-protocol')
const server = mc.createServer({'online-mode': false, host: '127.0.0.1', port: +process.argv[1], maxPlayers: 7,
  version: '1.16.5', motd: '', beforePing: (answer) => { delete answer.description; return answer }})
server.on('listening', () => mc.createClient({host: '127.0.0.1', port: +process.argv[1], username: 'ada',
  version: '1.16.5'}))
"""


@contextmanager
def running(command: list[str], home: Path, **environment: str) -> Iterator[None]:
    """A server for as long as it is needed."""
    env = {**os.environ, "HOME": str(home), **environment}
    with subprocess.Popen(
        command, cwd=home, env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            yield
        finally:
            server.kill()


async def until(ask: Callable[[], Awaitable[Tally]], wanted: Callable[[Tally], bool]) -> Tally:
    """Asks until the answer is the one that is waited for; a server that loads gives none."""
    tally = None
    async with asyncio.timeout(60):
        while tally is None or not wanted(tally):
            try:
                tally = await ask()
            except OSError:  # TimeoutError is one
                tally = None
            await asyncio.sleep(0.1)
    return tally


async def test_a_quake3_server_with_bots_is_empty(tmp_path: Path) -> None:
    """OpenArena: its `clients` are bots, and its people are nobody."""
    if not os.access(OPENARENA, os.X_OK):
        pytest.skip("openarena-server is not installed")
    port = free_port(socket.SOCK_DGRAM)
    settings = {
        "dedicated": "1",
        "net_ip": "127.0.0.1",
        "net_port": str(port),
        "fs_homepath": str(tmp_path),
        "sv_master1": "",
        "sv_maxclients": "12",
        "bot_enable": "1",
        "bot_minplayers": "3",
    }
    words = [word for name, value in settings.items() for word in ("+set", name, value)]
    with running([OPENARENA, *words, "+map", "oa_dm1"], tmp_path):
        ask = query("quake3", "127.0.0.1", port)
        tally = await until(ask, lambda tally: bool(tally.bots))
        assert tally == Tally(0, 12, tally.bots)


async def test_a_teeworlds_server_is_counted(tmp_path: Path) -> None:
    """With the handshake of 0.7."""
    if not os.access(TEEWORLDS, os.X_OK):
        pytest.skip("teeworlds-server is not installed")
    port = free_port(socket.SOCK_DGRAM)
    setup = f"sv_port {port};bindaddr 127.0.0.1;sv_register 0;sv_max_clients 11"
    with running([TEEWORLDS, setup], tmp_path):
        assert await until(query("teeworlds", "127.0.0.1", port), lambda tally: True) == Tally(0, 11)


async def test_a_minecraft_server_without_a_description_is_counted(tmp_path: Path) -> None:
    """And somebody is on it."""
    npm = shutil.which("npm")
    modules = (
        subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=True).stdout.strip() if npm else ""
    )
    if not os.path.isdir(f"{modules}/minecraft-protocol"):
        pytest.skip("minecraft-protocol is not installed (npm install -g minecraft-protocol)")
    port = free_port(socket.SOCK_STREAM)
    with running(["node", "-e", MINECRAFT, str(port)], tmp_path, NODE_PATH=modules):
        assert await until(query("minecraft", "127.0.0.1", port), lambda tally: tally.players > 0) == Tally(1, 7)
