"""The game's output and the agent's log: what reads, keeps and passes on. Standard library only."""

from __future__ import annotations

import os
import time

from agent import log
from agent.config.homes import home
from agent.game.cgroup import read_memory_limit
from agent.logs.capture import Capture
from agent.logs.redact import Redactor
from agent.logs.shared_counts import LOST_STDERR, SharedCounts
from agent.logs.sink import BUFFER, Sink
from agent.logs.spool import QUEUE, Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.init.inputs import Inputs


# In a container with little memory, each buffer is limited to this share of it. A full buffer makes the game wait or
# drops log lines, and both are reported; being killed for lack of memory would not be.
_SHARE_OF_MEMORY = 64
_LEAST_BUFFER = 256 * 1024


def _buffer(most: int, limit: int | None) -> int:
    return most if limit is None else max(_LEAST_BUFFER, min(most, limit // _SHARE_OF_MEMORY))


class Output:
    """The parts of one agent that handle logs.

    Attributes:
        redactor: knows the secrets.
        spool: stores the output on disk.
        capture: reads the game's output, or None with AGENT_CAPTURE=off.
        counts: what became of it, for the agent's process too.
    """

    def __init__(self, inputs: Inputs) -> None:
        """Creates them; reading begins when the game is started."""
        words = inputs.setting("redact")
        patterns = [word[1:-1] for word in words if word.startswith("/")]
        self.redactor = Redactor([*inputs.secrets, *inputs.redacted_variables], patterns)
        memory_limit = read_memory_limit()
        buffer = _buffer(BUFFER, memory_limit)
        self.counts = SharedCounts()
        self._stderr = Sink(2, lambda: None, buffer, self.counts.writer(LOST_STDERR))
        log.send_to(self._stderr.put_line)
        self.spool = Spool(
            inputs.setting("spool_dir") or default_spool(),
            inputs.setting("spool_max"),
            queue_bytes=_buffer(QUEUE, memory_limit),
            command=inputs.command,
            say=log.warning,
            counts=self.counts,
        )
        self.spool.advice = _advice(inputs)
        self.capture: Capture | None = None
        if inputs.setting("capture"):
            self.capture = Capture(
                self.spool,
                self.redactor,
                {"stdout": 1, "stderr": 2},
                redact_passthrough=inputs.setting("redact_stdout"),
                buffer_bytes=buffer,
                sinks={"stderr": self._stderr},
                counts=self.counts,
            )

    def caught_up(self) -> bool:
        """Whether all that the game has written was read, spooled and passed on."""
        now = time.monotonic()
        return self.capture is None or self.capture.drain(now)

    def put_line(self, line: bytes) -> None:
        """Writes a line of the agent's own to stderr."""
        self._stderr.put_line(line)

    def close(self, deadline: float) -> None:
        """Passes on and stores the rest of the output, until a deadline of the monotonic clock."""
        log.send_to(None)
        if self.capture is not None:
            self.capture.close(deadline)
        self._stderr.drain(deadline)
        self._stderr.end()
        self.spool.close(deadline)


def default_spool() -> str:
    """The default directory of the spool. It should survive a restart of the container's processes, not a reboot."""
    return f"{home(os.getuid())}/spool"


def _advice(inputs: Inputs) -> str:
    """What the user can still do about a full spool, given the current settings."""
    if inputs.raw("log_url"):
        return "the store is too slow: check it, and raise AGENT_SPOOL_MAX"
    return (
        "set AGENT_LOG_URL, or raise AGENT_SPOOL_MAX"
        if inputs.raw("spool_max")
        else "set AGENT_LOG_URL or AGENT_SPOOL_MAX"
    )
