"""What follows the game's end: `exit.json`, shipping by the agent, the self-stop. Standard library only.

A first `exit.json` is written as soon as the game's last output has been read, so that it exists whatever fails later.
Then the agent ships the logs. If the agent is not running or crashes, the init does not wait longer than the time
planned for shipping.
"""

from __future__ import annotations

import json

from agent import log
from agent.errors import EXIT_BAD_SETTINGS
from agent.init.limits import make_room, restore_limits
from agent.init.release import LightRelease
from agent.link.messages import (
    FlushAsked,
    FlushDone,
    FlushMoved,
    ReleaseAsked,
    ReleaseSettled,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from agent.game.process import GameProcess
    from agent.init.agent_process import AgentProcess
    from agent.init.attempt import Attempt
    from agent.init.inputs import Inputs
    from agent.init.loop import Loop
    from agent.init.oom_watch import OomWatch
    from agent.init.output import Output
    from agent.lifecycle.game_report import GameReport
    from agent.lifecycle.states import State
    from agent.record import Record

# The share of the shipping time that is spent on reading the last output; the rest is for what is on disk already.
_DRAIN_SHARE = 0.3
_LOOK_EVERY = 0.01
_WRITE_TRIES = 5
# Longest wait for `exit.json` to be written; after that its disk is assumed to hang.
_WRITE_SECONDS = 0.3
# The least time for shipping by an agent that has to restart first; with less, nothing is shipped.
_WORTH_A_START = 1.5
EXIT = "exit.json"


class Ending:
    """Handles the end of each start of the game, and the end of the deployment.

    Attributes:
        deployment: what the platform injected, without secrets, as JSON; the agent sends it once it is up.
    """

    def __init__(
        self,
        loop: Loop,
        inputs: Inputs,
        process: GameProcess,
        output: Output,
        report: GameReport,
        agent: AgentProcess,
        light: LightRelease,
        oom: OomWatch,
    ) -> None:
        """Takes the parts that it works with."""
        self.deployment = ""
        self._loop = loop
        self._inputs = inputs
        self._process = process
        self._output = output
        self._report = report
        self._agent = agent
        self._light = light
        self._oom = oom
        self._until = 0.0
        self._done: Callable[[], None] | None = None
        self._flush: FlushAsked | None = None
        self._tail = b""
        self._release: ReleaseAsked | None = None
        self._settled: Callable[[Literal["confirmed", "refused"]], None] | None = None
        agent.handle(FlushDone, lambda _message, _payload: self._finish())
        agent.handle(ReleaseSettled, self._on_settled)
        agent.on_up(self._agent_is_up)
        agent.on_down(self._agent_is_down)

    def prepare(self) -> None:
        """Imports the modules for the end while the game is still stopping, since there is little time afterwards."""
        from agent.init import exit_document  # noqa: F401, PLC0415 - nothing before the game's end needs it

    # Flush -----------------------------------------------------------------------------------------------------------

    def flush(self, attempt: Attempt, state: State, until: float, done: Callable[[], None]) -> None:
        """See `agent.init.effects.Ending`."""
        restore_limits()
        make_room()
        self._until, self._done = until, done
        now = self._loop.time()
        self._wait_for_output(attempt, state, now + (until - now) * _DRAIN_SHARE)

    def hurry(self, until: float) -> None:
        """Moves the deadline of the flush."""
        self._until = min(self._until, until)
        if self._flush is not None:
            self._agent.tell(FlushMoved(self._until))

    def _wait_for_output(self, attempt: Attempt, state: State, deadline: float) -> None:
        now = self._loop.time()
        if not self._output.caught_up():
            if now < min(deadline, self._until):
                self._loop.call_later(_LOOK_EVERY, self._wait_for_output, attempt, state, deadline)
                return
            log.warning("cannot keep or pass on the very last output: a process holds it open, or its reader is slow")
        self._try_to_write_down(attempt, state, _WRITE_TRIES)

    def _try_to_write_down(self, attempt: Attempt, state: State, tries: int) -> None:
        try:
            self._write_down(attempt, state)
        except Exception as problem:
            if tries > 1:  # a module could not be read: there was no descriptor for a moment
                self._loop.call_later(_LOOK_EVERY, self._try_to_write_down, attempt, state, tries - 1)
                return
            log.fault("cannot write exit.json", problem)
            self._finish()

    def _write_down(self, attempt: Attempt, state: State) -> None:
        """Writes the first `exit.json`, then hands over to the agent where there is something to ship."""
        from agent.init.exit_document import exit_document  # noqa: PLC0415 - nothing before the game's end needs it

        document, crashed = exit_document(
            state,
            inputs=self._inputs,
            process=self._process,
            output=self._output,
            report=self._report,
            sequence=attempt.sequence,
            at_stop=attempt.at_stop,
            deployment=self.deployment,
            now=self._loop.time(),
            agent_starts=self._agent.starts,
            oom=self._oom,
            others=attempt.others(state.history[-1].at),
            left_behind=attempt.left_behind,
        )
        attempt.document = document
        log.info(f"autopsy: {document['summary']}")
        spool = self._output.spool
        shipping: dict[str, object] = {
            "destination": None,
            "directory": "",
            "complete": not self._needs_agent(state),
            "shipped": [],
            "not_shipped": [],
            "spool": spool.counters(),
        }
        text = json.dumps({**document, "shipping": shipping, "bundle": None}, indent=2, ensure_ascii=False, default=str)
        spool.put_file(EXIT, self._output.redactor.text(text).encode("utf-8", "backslashreplace") + b"\n")
        self._wait_for_disk(state, document, crashed, min(self._until, self._loop.time() + _WRITE_SECONDS))

    def _wait_for_disk(self, state: State, document: dict[str, object], crashed: bool, deadline: float) -> None:
        now = self._loop.time()
        if not self._output.spool.flush(now) and now < deadline:
            self._loop.call_later(_LOOK_EVERY, self._wait_for_disk, state, document, crashed, deadline)
            return
        spool = self._output.spool
        if why := spool.unwritten[EXIT]:
            log.error(f"cannot write {spool.run}/{EXIT}: {why}; make room or set AGENT_SPOOL_DIR")
        else:
            log.info(f"exit.json: {spool.run}/{EXIT}")
        self._hand_over(state, document, crashed)

    def _hand_over(self, state: State, document: dict[str, object], crashed: bool) -> None:
        if self._done is None:
            return
        if not self._needs_agent(state):
            self._finish()
            return
        self._tail = self._output.capture.tail() if self._output.capture is not None else b""
        self._flush = FlushAsked(
            self._until, json.dumps(document, default=str), crashed=crashed, again=state.will_restart
        )
        if self._agent.serving:
            self._agent.tell(self._flush, self._tail)
        elif not self._agent.present:
            self._agent_is_down()

    def _needs_agent(self, state: State) -> bool:
        """Whether there is something to ship or to export, or a core to be looked for."""
        if state.could_not_start == EXIT_BAD_SETTINGS:
            return False
        if self._inputs.raw("log_url") or self._inputs.exports_last:
            return True
        return bool(self._inputs.setting("core")) and state.exit is not None

    def _finish(self) -> None:
        done, self._done, self._flush = self._done, None, None
        if done is not None:
            done()

    # Release ---------------------------------------------------------------------------------------------------------

    def release(self, state: State, settled: Callable[[Literal["confirmed", "refused"]], None]) -> None:
        """See `agent.init.effects.Ending`."""
        wanted = state.stop.log_storage if state.stop is not None else None
        self._settled = settled
        self._release = ReleaseAsked(wanted or self._inputs.setting("log_storage"))
        if self._agent.responsive:
            self._agent.tell(self._release)
        else:
            self._release_lightly()

    def _release_lightly(self) -> None:
        if self._release is None:
            return
        environ = self._inputs.environ
        self._light.start(
            environ.get("ARBITRIUM_DELETE_URL", ""),
            environ.get("ARBITRIUM_DELETE_TOKEN", ""),
            self._release.log_storage,
            self._settle,
        )

    def _on_settled(self, message: Record, _payload: bytes) -> None:
        assert isinstance(message, ReleaseSettled), "registered for it"
        self._settle(message.outcome)

    def _settle(self, outcome: str) -> None:
        settled, self._settled, self._release = self._settled, None, None
        if settled is not None:
            if outcome == "confirmed":
                log.info("the platform will stop this deployment; holding until it does")
            settled("confirmed" if outcome == "confirmed" else "refused")

    # The agent -------------------------------------------------------------------------------------------------------

    def _agent_is_up(self) -> None:
        """Gives the restarted agent its unfinished work again; a helper that makes the self-stop keeps doing so."""
        if self._flush is not None:
            self._agent.tell(
                FlushAsked(self._until, self._flush.document, self._flush.crashed, self._flush.again), self._tail
            )

    def _agent_is_down(self) -> None:
        if self._flush is not None and self._until - self._loop.time() < _WORTH_A_START:
            log.error("cannot ship: the agent's process was lost at the end; what is on disk stays in the spool")
            self._finish()
        self._release_lightly()
