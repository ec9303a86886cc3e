"""What is left of the init if it breaks after the game was started: what a plain init does. Standard library only.

A fault of the init's must not take the game with it: the end of PID 1 is SIGKILL to everything in the container. So the
game runs on, signals and output are passed on, and its exit code counts; on the platform, the self-stop is called.

The module is imported before anything can break, and needs neither descriptors nor threads.
"""

from __future__ import annotations

import os
import time

from agent import log
from agent.game.process import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from agent.game.process import GameProcess
    from agent.init.inputs import Inputs
    from agent.init.signals import KeptSignals
    from agent.init.sockets import Sockets
else:
    import _signal as signal  # the C part: see agent.game.spawn

EXIT_UNKNOWN = 70
"""The exit code where the game's is not known (EX_SOFTWARE of sysexits.h)."""

_EVERY = 0.05
_PIECE = 4096  # what a pipe that has room always takes without blocking (man 7 pipe, PIPE_BUF)
_MOST_PIECES = 256
# The part of the grace that the game gets; after that, and after its own end, SIGKILL.
_SHARE = 0.8
_LAST_SECONDS = 1.0
_ASK_AGAIN = 1.0
# No memory, no descriptor, a module that cannot be read: tried again in the next round.
_PASSING = (OSError, MemoryError, ImportError)


class LastResort:
    """Looks after the game without the rest of the init."""

    def __init__(self, process: GameProcess, inputs: Inputs, signals: KeptSignals, sockets: Sockets) -> None:
        """Takes over what the broken init looked after.

        Args:
            process: the game, which was started, or could not be.
            inputs: what the agent was started with.
            signals: passes on those that arrive.
            sockets: closed, so that callers are refused and do not wait for an answer, and that descriptors are free.
        """
        self._process = process
        self._inputs = inputs
        self._arrived: list[tuple[int, float]] = []
        self._stopping_since: float | None = None
        self._code: int | None = None
        self._unwritten: dict[int, bytes] = {}  # by the descriptor that it came from
        signals.give_to(lambda number, at: self._arrived.append((number, at)))
        if signals.stop_at is not None:  # it may have been lost with what broke
            self._arrived.append((signal.SIGTERM, signals.stop_at))
        log.send_to(None)
        try:
            sockets.close()
        except _PASSING:
            log.warning("cannot close the sockets of the API: its callers wait in vain")

    def run(self) -> int:
        """Until the game has ended, and the self-stop was called.

        Returns:
            The exit code: the game's.
        """
        for pid in self._process.reaper.helpers:
            send(pid, signal.SIGKILL)  # the agent's process, which nobody listens to any more
        code = self._until_the_game_ends() if self._process.failure is None else self._process.failure.exit_code
        after = self._inputs.setting("on_exit" if code == 0 else "on_crash")
        if self._inputs.on_platform and after != "exit" and self._stopping_since is None:
            self._self_stop()
        return code

    # The game --------------------------------------------------------------------------------------------------------

    def _until_the_game_ends(self) -> int:
        while self._game_lives():
            self._handle_signals()
            self._pass_on()
            time.sleep(_EVERY)
        until = time.monotonic() + _LAST_SECONDS
        while (self._pass_on() or self._others_live()) and time.monotonic() < until:
            self._process.kill()
            time.sleep(_EVERY)
        code = EXIT_UNKNOWN if self._code is None else self._code
        code = 128 - code if code < 0 else code
        log.info(f"the game has ended; exit code {code}")
        return code

    def _game_lives(self) -> bool:
        return self._others_live() and self._code is None

    def _others_live(self) -> bool:
        """Whether any process of the game is left; notes how the main one has ended."""
        game = self._process.game
        try:
            ended, left = self._process.reaper.reap({}, game.groups() if game is not None else ())
        except _PASSING:
            return True
        if self._process.main_pid in ended:
            self._code = os.waitstatus_to_exitcode(ended[self._process.main_pid])
        return left

    def _handle_signals(self) -> None:
        while self._arrived:
            number, at = self._arrived.pop(0)
            if at == self._stopping_since:
                continue  # the same one, known in two ways
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stopping_since = at if self._stopping_since is None else self._stopping_since
                if self._process.signalled_early.pop(self._process.main_pid, None) != signal.SIGTERM:
                    send(self._process.main_pid, signal.SIGTERM)
                send(self._process.main_pid, signal.SIGCONT)
            elif number != signal.SIGCHLD:
                self._process.forward(number)
        grace: float = self._inputs.setting("grace_seconds")
        if self._stopping_since is not None and time.monotonic() > self._stopping_since + grace * _SHARE:
            self._process.kill()

    # Its output ------------------------------------------------------------------------------------------------------

    def _pass_on(self) -> bool:
        """Passes on what the game has written, unless a thread does; whether there was any."""
        process = self._process
        if process.game is None or (process.capture is not None and process.capture.reads):
            return False
        any_moved = False
        for name, fd in process.game.streams.items():
            try:
                any_moved |= self._move(fd, 2 if name == "stderr" else 1)
            except _PASSING:
                continue
        return any_moved

    def _move(self, source: int, target: int) -> bool:
        import select  # noqa: PLC0415 - may fail like any import now, and is tried again

        os.set_blocking(source, False)
        room = select.poll()
        room.register(target, select.POLLOUT)
        moved = False
        for _ in range(_MOST_PIECES):
            if not self._unwritten.get(source):
                try:
                    self._unwritten[source] = os.read(source, _PIECE)
                except BlockingIOError:
                    return moved
            piece = self._unwritten[source]
            if not piece or not room.poll(0):
                return moved
            if self._inputs.setting("redact_stdout"):
                piece = b""  # what is not redacted must not be shown
            self._unwritten[source] = piece[os.write(target, piece) :] if piece else b""
            moved = True
        return moved

    # The platform ----------------------------------------------------------------------------------------------------

    def _self_stop(self) -> None:
        """Calls until the platform has confirmed, then waits for its signal: who exits is started and billed again."""
        environ = self._inputs.environ
        url, token = environ["ARBITRIUM_DELETE_URL"], environ["ARBITRIUM_DELETE_TOKEN"]
        confirmed = False
        while not self._stop_arrived():
            try:
                from agent.init import release  # noqa: PLC0415 - may fail like any import now, and is tried again

                if not confirmed:
                    confirmed = release.call_here(url, token, self._inputs.setting("log_storage"), self._stop_arrived)
            except Exception as problem:
                log.fault("cannot call the self-stop", problem)
            until = time.monotonic() + _ASK_AGAIN
            while not self._stop_arrived() and time.monotonic() < until:
                time.sleep(_EVERY)

    def _stop_arrived(self) -> bool:
        return any(number in (signal.SIGTERM, signal.SIGINT) for number, _ in self._arrived)
