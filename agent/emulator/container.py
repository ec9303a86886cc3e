"""One attempt of a deployment's game: started, told to stop, killed, gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agent.emulator.container_log import ContainerLog, Stream
from agent.emulator.errors import CannotRun

SHIM = os.path.join(os.path.dirname(__file__), "shim.py")
READ_BYTES = 65536


class Container:
    """A running game with everything it started; made by `start`.

    Attributes:
        pid: of the game itself, the container's "PID 1".
        exit_code: None while it runs; then its own code, or 128 + the signal that ended it.
        inner_pid: of a container's own first process, which an engine's daemon may have started; 0 for a process game.
        out_of_memory: whether it was killed for using more memory than its version has.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, control: Control, container_log: ContainerLog, tag: str
    ) -> None:
        """Use `start`."""
        self._process = process
        self._control = control
        self._container_log = container_log
        self._tag = tag
        self._task: asyncio.Task[None] | None = None
        self.pid = 0
        self.exit_code: int | None = None
        self.out_of_memory = False
        self.inner_pid = 0

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        container_log: ContainerLog,
        tag: str,
        directory: str | None = None,
        linger: float = 0.0,
        clean_up: Sequence[str] = (),
    ) -> Container:
        """Start a game behind a shim of its own.

        Args:
            command: the argument vector.
            environment: all of the game's environment.
            container_log: where its output goes.
            tag: `NAME=value` that stands in this environment and in no other deployment's.
            directory: its working directory; None for the emulator's.
            linger: seconds that what it started may take to end after it.
            clean_up: what to run where the emulator itself was killed; nothing where it is empty.

        Raises:
            CannotRun: it could not be executed.
        """
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", SHIM, str(theirs.fileno()), str(linger), directory or ""),
                json.dumps(list(clean_up)),
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(environment),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            ours.close()
            raise CannotRun(f"cannot run {command[0]}: {getattr(error, 'strerror', None) or error}") from error
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        self = cls(process, Control(reader, writer), container_log, tag)
        first = await self._control.hear()
        if first is None or "failed" in first:
            await self._finish()
            why = (first or {}).get("failed", "its shim ended; look at the emulator's own output")
            hint = "; is it installed, and on PATH?" if (first or {}).get("errno") == errno.ENOENT else ""
            raise CannotRun(f"cannot run {command[0]}: {why}{hint}")
        self.pid = int(first["started"])
        self._task = asyncio.create_task(self._watch(), name=f"container {self.pid}")
        return self

    @property
    def running(self) -> bool:
        """Whether anything of it may still be alive."""
        return self._task is not None and not self._task.done()

    @property
    def shim_pid(self) -> int:
        """The process below which all of it is found."""
        return self._process.pid

    def output(self) -> str:
        """What this attempt has written so far."""
        return self._container_log.text(self._container_log.attempt).decode(errors="replace")

    def terminate(self) -> None:
        """SIGTERM to the game itself, as a platform does to PID 1."""
        self._control.say(b"T")

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._control.say(b"K")

    async def wait(self) -> int:
        """Until all of it is gone; returns the exit code."""
        assert self._task is not None
        await asyncio.shield(self._task)
        assert self.exit_code is not None
        return self.exit_code

    async def _watch(self) -> None:
        """Hear of its end, while its output is read."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read("stdout", self._process.stdout))
            group.create_task(self._read("stderr", self._process.stderr))
            last = await self._control.hear()
            if last is None:
                # Somebody killed the shim. What it had below it is found by its environment.
                kill_tagged(self._tag)
        await self._finish()
        code = 128 + signal.SIGKILL if last is None else int(last["exited"])
        self.exit_code = code if code >= 0 else 128 - code

    async def _read(self, stream: Stream, pipe: asyncio.StreamReader | None) -> None:
        assert pipe is not None
        while data := await pipe.read(READ_BYTES):
            self._container_log.write(stream, data)

    async def _finish(self) -> None:
        await self._control.close()
        await self._process.wait()
        self._container_log.flush()


class Control:
    """The emulator's end of the conversation with a shim."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both from one socket."""
        self._reader = reader
        self._writer = writer

    async def hear(self) -> dict[str, Any] | None:
        """The shim's next line; None when it is gone."""
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        return dict(json.loads(line)) if line.endswith(b"\n") else None

    def say(self, word: bytes) -> None:
        """Send one command."""
        if not self._writer.is_closing():
            self._writer.write(word)

    async def close(self) -> None:
        """Close the socket, which also ends a shim that still runs."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def tagged(tag: str) -> list[int]:
    """The processes of this user whose environment holds a `NAME=value`."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
                if tag.encode() in file.read().split(b"\0"):
                    found.append(int(entry))
    return found


def kill_tagged(tag: str) -> None:
    """SIGKILL to every process whose environment holds a `NAME=value`, until a look finds no further one."""
    seen: set[int] = set()
    while new := set(tagged(tag)) - seen:
        for pid in new:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        seen |= new
