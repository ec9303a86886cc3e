"""Runs the agent as a separate process, and restarts it when it crashes or hangs. Standard library only.

The agent is forked from the init: this saves the start of an interpreter, shares the init's memory pages, and gives the
agent everything that the init knows. The agent can be lost at any moment: nothing that the init does for the game waits
for it longer than a bounded time.
"""

from __future__ import annotations

import os
import signal
import socket

from agent import log
from agent.game.process import send
from agent.init.limits import restore_limits
from agent.link.messages import (
    FactTold,
    Leave,
    MethodAsked,
    MethodEnded,
    MethodFailed,
    Ping,
    Pong,
    Serving,
)
from agent.link.wire import BrokenLinkError, Unpacker, pack
from agent.retry import RetryPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from agent.game.reaper import Reaper
    from agent.init.loop import Loop, TimerHandle
    from agent.lifecycle.stop_methods import Method
    from agent.record import Record

    Handler = Callable[[Record, bytes], object]

# While the agent imports its modules it does not answer; on a twentieth of a CPU that takes a while.
_START_SECONDS = 120.0
# After the first time without an answer the agent is ended; after the second, nothing waits for it.
_HUNG_SECONDS = 15.0
_ABSENT_SECONDS = 1.0
# SIGKILL does not end a process that waits in the kernel, for a disk or volume that hangs: another one takes its place.
_STUCK_SECONDS = 5.0
_PING_EVERY = 0.5
_RESTARTS = RetryPolicy(first=0.1, cap=30.0)
_STABLE_SECONDS = 60.0
# The most bytes that are queued for an agent that does not read; with more it counts as hung.
_MOST_UNSENT = 32 * 1024 * 1024
_READ = 64 * 1024  # more would be mapped and unmapped by malloc for each message (mallopt(3), M_MMAP_THRESHOLD)


class AgentProcess:
    """The agent's process, present or not.

    Attributes:
        serving: whether the agent is up: its API answers.
        heard: whether any client is subscribed to events.
        starts: how often it was started.
        failed_starts: how many of the latest starts in a row failed before the agent was up.
    """

    def __init__(
        self,
        loop: Loop,
        reaper: Reaper,
        target: Callable[[socket.socket], NoReturn],
        before_fork: Callable[[], object] = lambda: None,
    ) -> None:
        """Starts nothing yet.

        Args:
            loop: watches the link.
            reaper: the process is a helper of the init's, not the game's.
            target: what the forked process does with its end of the link; it never returns.
            before_fork: called before the fork, to prepare data that the forked process reads from its memory.
        """
        self.serving = False
        self.heard = False
        self.starts = 0
        self.failed_starts = 0
        self._loop = loop
        self._reaper = reaper
        self._target = target
        self._before_fork = before_fork
        self._handlers: dict[type[Record], Handler] = {Pong: self._on_pong, MethodFailed: self._on_method_failed}
        self._started = False  # or tried to
        self._pid = 0
        self._link: socket.socket | None = None
        self._unpacker = Unpacker()
        self._unsent = bytearray()
        self._started_at = 0.0
        self._heard_at = 0.0  # when it last said anything
        self._fell = 0  # in a row
        self._again: TimerHandle | None = None
        self._leaving = False
        self._killed_at: float | None = None  # by the init itself
        self._forbidden = False
        self._ping = 0
        self._ping_timer: TimerHandle | None = None
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._turn = 0
        self._failed: Callable[[str], None] | None = None
        self._asked: MethodAsked | None = None
        self._on_up: list[Callable[[], None]] = []
        self._on_back: list[Callable[[], None]] = []
        self._on_down: list[Callable[[], None]] = []

    def handle(self, kind: type[Record], handler: Handler) -> None:
        """Registers the handler for a type of message: `handler(message, payload)`."""
        self._handlers[kind] = handler

    def on_up(self, callback: Callable[[], None]) -> None:
        """Calls back each time the agent is up."""
        self._on_up.append(callback)

    def on_back(self, callback: Callable[[], None]) -> None:
        """Calls back each time an agent that was suspended or too busy answers again."""
        self._on_back.append(callback)

    def on_down(self, callback: Callable[[], None]) -> None:
        """Calls back each time the agent was lost."""
        self._on_down.append(callback)

    @property
    def present(self) -> bool:
        """Whether there is a process, which may still be starting, or is about to be started for the first time."""
        return self._link is not None or not (self._started or self._leaving or self._forbidden)

    @property
    def responsive(self) -> bool:
        """Whether it is up and answered within the last second."""
        return self.serving and self._loop.time() - self._heard_at < _ABSENT_SECONDS + _PING_EVERY

    # Starting and losing it ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Forks the agent; if that fails, tries again later."""
        self._again = None
        self._started = True
        if self._leaving or self._forbidden or self._link is not None:
            return
        restore_limits()
        try:
            ours, theirs = socket.socketpair()
        except OSError as problem:
            self._lost(f"cannot start the agent's process: {os.strerror(problem.errno or 0).lower()}")
            return
        self.starts += 1
        try:
            self._before_fork()
            pid = os.fork()
        except OSError as problem:
            ours.close()
            theirs.close()
            self._lost(f"cannot start the agent's process: {os.strerror(problem.errno or 0).lower()}")
            return
        if pid == 0:
            ours.close()
            self._target(theirs)
        self._reaper.add_helper(pid)
        theirs.close()
        ours.setblocking(False)
        self._pid, self._link, self._killed_at = pid, ours, None
        self._unpacker, self._unsent = Unpacker(), bytearray()
        self._started_at = self._heard_at = self._loop.time()
        self._loop.add_reader(ours.fileno(), self._read)
        self._ping_timer = self._loop.call_later(_PING_EVERY, self._look)

    def forbid(self) -> None:
        """Does not restart the agent: the settings are wrong."""
        self._forbidden = True

    def ended(self, pid: int, status: int) -> bool:
        """Handles the end of a helper, which was reaped; whether it was the agent and somebody else had killed it."""
        if pid != self._pid or self._link is None:
            return False
        self._read()  # messages that it sent before it crashed still count
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"code {code}"
        self._lost(f"the agent's process has ended with {how}")
        return code == -signal.SIGKILL and self._killed_at is None

    def kill(self) -> None:
        """Kills the agent's process."""
        if self._pid and self._link is not None:
            if self._killed_at is None:
                self._killed_at = self._loop.time()
            send(self._pid, signal.SIGKILL)

    def leave(self) -> None:
        """The init is about to exit: the agent closes its connections, and is not restarted."""
        self._leaving = True
        self.tell(Leave())

    def _lost(self, why: str) -> None:
        was_there = self._link is not None
        if self._link is not None:
            self._loop.remove_reader(self._link.fileno())
            self._loop.remove_writer(self._link.fileno())
            self._link.close()
            self._link = None
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        stable = self.serving and self._loop.time() - self._started_at > _STABLE_SECONDS
        self._fell = 0 if stable else self._fell
        self.failed_starts = 0 if self.serving else self.failed_starts + 1
        self.serving = self.heard = False
        self._method_failed("the agent's process was lost")
        if self._leaving or self._forbidden:
            return
        pause = _RESTARTS.ceiling(self._fell)
        self._fell += 1
        log.error(
            f"{why}; the game keeps running, stops still work, logs are kept, and API calls wait: restarting the "
            f"agent in {pause:g} s"
        )
        self._again = self._loop.call_later(pause, self.start)
        if was_there:
            for callback in self._on_down:
                callback()

    # The link --------------------------------------------------------------------------------------------------------

    def tell(self, message: Record, payload: bytes = b"") -> bool:
        """Sends a message, now or as soon as the agent reads; False where there is no agent."""
        if self._link is None:
            return False
        self._unsent += pack(message, payload)
        self._write()
        return True

    def tell_fact(self, fact: Record) -> None:
        """Sends the agent what the game told the init directly (sd_notify)."""
        self.tell(FactTold(fact))  # type: ignore[arg-type]  # a fact is a record

    def _write(self) -> None:
        if self._link is None:
            return
        try:
            while self._unsent:
                del self._unsent[: self._link.send(self._unsent[:_READ])]
            self._loop.remove_writer(self._link.fileno())
        except BlockingIOError:
            self._loop.add_writer(self._link.fileno(), self._write)
            if len(self._unsent) > _MOST_UNSENT:
                log.error("the agent's process does not read what it is told; ending it")
                self.kill()
        except OSError:
            pass  # it has crashed: handled when the process is reaped

    def _read(self) -> None:
        link = self._link
        if link is None:
            return
        try:
            data = link.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(link.fileno())
            # The process normally ends next; one that closed the link and is still running is of no use.
            self.kill()
            return
        self._note_heard()
        try:
            messages = self._unpacker.feed(data)
        except BrokenLinkError as problem:
            log.error(f"cannot understand the agent's process ({problem}); ending it")
            self._loop.remove_reader(link.fileno())
            self.kill()
            return
        for message, payload in messages:
            if isinstance(message, Serving):
                self._up()
            handler = self._handlers.get(type(message))
            if handler is None:
                continue
            try:
                handler(message, payload)
            except Exception as problem:
                log.fault(f"cannot handle {type(message).__name__} from the agent's process", problem)

    def _note_heard(self) -> None:
        now = self._loop.time()
        if self.serving and now - self._heard_at > _ABSENT_SECONDS + _PING_EVERY:
            for callback in self._on_back:
                callback()
        self._heard_at = now

    def _up(self) -> None:
        self.serving = True
        self.failed_starts = 0
        if self.starts > 1:
            log.info("the agent's process is up again")
        if self._failed is not None and self._asked is not None:
            self.tell(self._asked)  # a stop in the first second: the method waited for it
        for callback in self._on_up:
            self._loop.call_soon(callback)

    # Whether it answers ----------------------------------------------------------------------------------------------

    def caught_up(self, then: Callable[[], None]) -> None:
        """Calls back once the agent has read all input that had arrived at this moment; never, if it crashes before.

        If the agent is not running, `on_up` is called when it is.
        """
        if self.serving:
            self._ping += 1
            self._waiting.append((self._ping, then))
            self.tell(Ping(self._ping))
        elif self._forbidden or self._leaving:
            then()

    def _on_pong(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, Pong), "registered for it"
        due = [then for number, then in self._waiting if number <= message.number]
        self._waiting = [(number, then) for number, then in self._waiting if number > message.number]
        for then in due:
            then()

    def _look(self) -> None:
        """Pings the agent; ends one that does not answer, and gives up one that does not end."""
        restore_limits()
        now = self._loop.time()
        patience = _HUNG_SECONDS if self.serving else _START_SECONDS
        late = now - (self._ping_timer.at if self._ping_timer is not None else now)
        if late > _ABSENT_SECONDS:
            self._heard_at = now  # the whole container was suspended, the init too
        elif self._killed_at is not None:
            if now - self._killed_at > _STUCK_SECONDS:
                self._lost(
                    f"cannot end the agent's process {self._pid}: it waits in the kernel, for a disk or a volume"
                )
                return
        elif now - self._heard_at > patience:
            log.error(f"the agent's process has not answered for {patience:g} s; ending it")
            self.kill()
        if self.serving:
            self._ping += 1
            self.tell(Ping(self._ping))
        self._ping_timer = self._loop.call_later(_PING_EVERY, self._look)

    # Stop methods that need it ---------------------------------------------------------------------------------------

    def ask_method(self, method: Method, ends: float, failed: Callable[[str], None]) -> str:
        """Asks the agent to apply a stop method; see `agent.init.stop_actions.Remote`."""
        if not self.present or (self.serving and not self.responsive):
            return "the agent's process is not there"
        self._turn += 1
        self._failed = failed
        self._asked = MethodAsked(self._turn, method.kind, method.argument, ends)
        if self.serving:
            self.tell(self._asked)
        return ""

    def end_method(self) -> None:
        """Tells the agent that the method's time slot is over."""
        if self._failed is not None:
            self._failed = None
            self.tell(MethodEnded(self._turn))

    def _on_method_failed(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, MethodFailed), "registered for it"
        if message.turn == self._turn:
            self._method_failed(message.why)

    def _method_failed(self, why: str) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(why)
