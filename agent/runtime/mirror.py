"""The lifecycle as the agent sees it: a mirror of the init's state.

The init decides. To answer API calls without waiting for the init, a posted event is also applied here: the transition
is a pure function, and the init handles the agent's events in the order in which they were posted. The init's state,
which says how many events were handled, then replaces the local result.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from agent import log
from agent.lifecycle.states import Event, State
from agent.lifecycle.transition import transition
from agent.link.messages import EventPosted, StateChanged

Observer: TypeAlias = Callable[[State, State, Event], None]


class Mirror:
    """The state, and the posted events that the init has not confirmed yet.

    Attributes:
        state: the current state, as far as it is known here.
    """

    def __init__(
        self, state: State, taken: int, send: Callable[[EventPosted], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Takes the state that the init had when the agent was forked.

        Args:
            state: the init's state then.
            taken: how many events from agents it had handled.
            send: sends an event to the init.
            loop: its clock is the init's.
        """
        self.state = state
        self._confirmed = state
        self._taken = taken
        self._send = send
        self._loop = loop
        self._pending: deque[Event] = deque()
        self._observers: list[Observer] = []

    def now(self) -> float:
        """The current time in seconds of the monotonic clock."""
        return self._loop.time()

    def watch(self, observer: Observer) -> None:
        """Calls `observer(before, after, event)` after every transition that the init has made."""
        self._observers.append(observer)

    def post(self, event: Event) -> State:
        """Sends an event to the init, and returns the expected state after it."""
        self._send(EventPosted(event))
        self._pending.append(event)
        self.state, _ = transition(self.state, event)
        return self.state

    def on_state(self, message: StateChanged, _payload: bytes = b"") -> None:
        """The init has made a transition, or has handled an event that changed nothing."""
        for _ in range(min(message.taken - self._taken, len(self._pending))):
            self._pending.popleft()
        self._taken = message.taken
        before, self._confirmed = self._confirmed, message.state
        self.state = message.state
        for event in self._pending:
            self.state, _ = transition(self.state, event)
        if message.state == before:
            return
        for observer in self._observers:
            try:
                observer(before, message.state, message.event)
            except Exception as problem:
                log.fault("cannot note a transition", problem)
