"""Events for whoever listens: one bus, a bounded queue a subscriber.

Publishing never waits and never fails. A subscriber that does not keep up loses its oldest events and is told how many.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import cached_property

from pydantic import BaseModel

from agent.api.models import EventName, GapEvent

QUEUE = 256
"""Events that wait for one subscriber at most."""

COMES_BACK = 1.0
"""Seconds in which a long poll that is over begins again: meanwhile it still counts as listening."""


class Event:
    """Something that happened.

    Attributes:
        id: counts up from 1 in the life of an agent; a snapshot and a gap carry the id of the newest event before them.
        type: state, stop, players, text, tags, upload or gap.
        data: what happened.
    """

    def __init__(self, id: int, type: str, data: BaseModel) -> None:  # noqa: A002 - the names of the attributes
        """Takes the parts."""
        self.id = id
        self.type = type
        self.data = data

    # Rendered once, however many listen.
    @cached_property
    def json(self) -> bytes:
        """Its data as JSON, on one line."""
        return self.data.model_dump_json().encode()

    @cached_property
    def sse(self) -> bytes:
        """As a server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        return b"id: %d\nevent: %s\ndata: %s\n\n" % (self.id, self.type.encode(), self.json)

    @cached_property
    def notification(self) -> bytes:
        """As a JSON-RPC notification, without the end of the line."""
        params = b'{"id":%d,"type":"%s","data":%s}' % (self.id, self.type.encode(), self.json)
        return b'{"jsonrpc":"2.0","method":"event","params":%s}' % params


class Subscription:
    """One listener's queue; iterate over it. Ends when it or its bus is closed and everything was read."""

    def __init__(self, first: list[Event], limit: int, close: Callable[[Subscription], None]) -> None:
        """Begins with events of its own, which do not count against the limit."""
        self._events = deque(first)
        self._limit = limit + len(first)
        self._missed = 0
        self._newest = first[-1].id if first else 0
        self._wake: asyncio.Future[None] | None = None
        self._close = close
        self.closed = False

    def put(self, event: Event) -> None:
        """Adds an event; drops the oldest one where there is no room."""
        if self.closed:
            return
        if len(self._events) >= self._limit:
            self._newest = self._events.popleft().id
            self._missed += 1
        self._events.append(event)
        self._awake()

    def close(self) -> None:
        """Takes no more events; what waits can still be read."""
        if not self.closed:
            self.closed = True
            self._close(self)
            self._awake()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def waiting(self) -> int:
        """How many events wait."""
        return len(self._events) + (self._missed > 0)

    def take(self) -> Event | None:
        """The next event, or None where none waits."""
        if self._missed:
            gap = GapEvent(at=datetime.fromtimestamp(time.time(), UTC), missed=self._missed)
            self._missed = 0
            return Event(self._newest, "gap", gap)
        return self._events.popleft() if self._events else None

    async def next(self, timeout: float | None = None) -> Event | None:
        """Waits for the next event.

        Args:
            timeout: seconds to wait at most.

        Returns:
            The event, or None when the time is over or the subscription has ended (see `closed`).
        """
        event = self.take()
        if event is not None or self.closed:
            return event
        self._wake = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._wake
        except TimeoutError:
            return None
        finally:
            self._wake = None
        return self.take()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """All events to come."""
        while True:
            event = await self.next()
            if event is not None:
                yield event
            elif self.closed:
                return


class EventBus:
    """Hands every event to all who listen. For one event loop's thread.

    Attributes:
        last_id: id of the newest event; 0 before the first.
    """

    def __init__(self, limit: int = QUEUE) -> None:
        """Takes how many events may wait for one subscriber."""
        self.last_id = 0
        self._limit = limit
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Event], None]] = []
        self._left_at = float("-inf")
        self._closed = False
        self._on_listeners: Callable[[], object] = lambda: None

    def on_listeners(self, callback: Callable[[], object]) -> None:
        """Calls back whenever somebody begins or ends to listen."""
        self._on_listeners = callback

    def publish(self, type: EventName, data: BaseModel) -> Event:  # noqa: A002 - the name of the attribute of an event
        """Tells everybody, without waiting for anybody."""
        self.last_id += 1
        event = Event(self.last_id, type, data)
        for subscription in tuple(self._subscriptions):
            subscription.put(event)
        for listener in tuple(self._listeners):
            listener(event)
        return event

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Calls a part of the agent itself with each event. It does not count as somebody who listens.

        Returns:
            What ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def subscribe(self, first: list[Event] | None = None) -> Subscription:
        """Listens from now on.

        Args:
            first: what this listener gets before all else: the current state.
        """
        subscription = Subscription(first or [], self._limit, self._leave)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions.add(subscription)
            self._on_listeners()
        return subscription

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._subscriptions)

    @property
    def listened(self) -> bool:
        """Whether anybody listens, or did a moment ago: a long poll is over for a moment whenever it begins again."""
        return bool(self._subscriptions) or time.monotonic() - self._left_at < COMES_BACK

    def _leave(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        self._left_at = time.monotonic()
        self._on_listeners()

    def close(self) -> None:
        """Ends all subscriptions; what waits in them can still be read."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.close()
