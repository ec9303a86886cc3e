"""Events for subscribers: one bus, with a bounded queue for each subscriber.

Publishing never waits and never fails. A slow subscriber loses its oldest events and is told how many.
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
"""The most events that wait for one subscriber."""

BETWEEN_SECONDS = 0.02
"""How long a subscriber that gets all that waits is left alone afterwards: events can come faster than many subscribers
can be served one by one, and then everybody else would wait."""
EACH_SECONDS = 0.001
"""As long for each subscriber, where that is longer: to serve one costs some 0.2 ms."""

COMES_BACK = 1.0
"""Seconds after the end of a long poll in which the client still counts as a subscriber: it will poll again."""


class Event:
    """An event.

    Attributes:
        id: counts from 1 since the agent's start; a snapshot and a gap have the id of the newest event before them.
        type: state, stop, players, text, tags, upload or gap.
        data: the details.
    """

    def __init__(self, id: int, type: str, data: BaseModel) -> None:  # noqa: A002 - the names of the attributes
        """Takes the parts."""
        self.id = id
        self.type = type
        self.data = data

    # Rendered once for all subscribers.
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
    """The queue of one subscriber; iterate over it. Ends when it or its bus is closed and everything was read."""

    def __init__(
        self, first: list[Event], limit: int, close: Callable[[Subscription], None], between: Callable[[], float]
    ) -> None:
        """Takes the first events, which do not count towards the limit."""
        self._events = deque(first)
        self._limit = limit + len(first)
        self._missed = 0
        self._newest = first[-1].id if first else 0
        self._wake: asyncio.Future[None] | None = None
        self._again = 0.0  # when `batch` may give more
        self._close = close
        self._between = between  # seconds from one batch to the next
        self.closed = False

    def put(self, event: Event) -> None:
        """Adds an event; drops the oldest one if the queue is full."""
        if self.closed:
            return
        if len(self._events) >= self._limit:
            self._newest = self._events.popleft().id
            self._missed += 1
        self._events.append(event)
        self._awake()

    def close(self) -> None:
        """Accepts no more events; queued events can still be read."""
        if not self.closed:
            self.closed = True
            self._close(self)
            self._awake()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def waiting(self) -> int:
        """The number of queued events."""
        return len(self._events) + (self._missed > 0)

    def take(self) -> Event | None:
        """The next event, or None if there is none."""
        if self._missed:
            gap = GapEvent(at=datetime.fromtimestamp(time.time(), UTC), missed=self._missed)
            self._missed = 0
            return Event(self._newest, "gap", gap)
        return self._events.popleft() if self._events else None

    async def next(self, timeout: float | None = None) -> Event | None:
        """Waits for the next event.

        Args:
            timeout: the most seconds to wait.

        Returns:
            The event, or None if the time is over or the subscription has ended (see `closed`).
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

    async def batch(self, timeout: float) -> list[Event]:
        """Waits for the next events, and gives all that wait; not too often (`BETWEEN_SECONDS`, `EACH_SECONDS`).

        Args:
            timeout: the most seconds to wait.

        Returns:
            The events in order; none if the time is over or the subscription has ended (see `closed`).
        """
        clock = asyncio.get_running_loop().time
        if (early := self._again - clock()) > 0:
            await asyncio.sleep(early)
        event = await self.next(timeout)
        self._again = clock() + self._between()
        events = []
        while event is not None:
            events.append(event)
            event = self.take()
        return events

    async def __aiter__(self) -> AsyncIterator[Event]:
        """All events to come."""
        while True:
            event = await self.next()
            if event is not None:
                yield event
            elif self.closed:
                return


class EventBus:
    """Passes every event to all subscribers. Must be used in the event loop's thread.

    Attributes:
        last_id: id of the newest event; 0 before the first.
    """

    def __init__(self, limit: int = QUEUE) -> None:
        """Takes the length limit of a subscriber's queue."""
        self.last_id = 0
        self._limit = limit
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Event], None]] = []
        self._left_at = float("-inf")
        self._closed = False
        self._on_listeners: Callable[[], object] = lambda: None

    def on_listeners(self, callback: Callable[[], object]) -> None:
        """Calls back when a subscription begins or ends."""
        self._on_listeners = callback

    def publish(self, type: EventName, data: BaseModel) -> Event:  # noqa: A002 - the name of the attribute of an event
        """Publishes an event, without waiting for any subscriber."""
        self.last_id += 1
        event = Event(self.last_id, type, data)
        for subscription in tuple(self._subscriptions):
            subscription.put(event)
        for listener in tuple(self._listeners):
            listener(event)
        return event

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Calls a part of the agent itself with each event. It does not count as a subscriber.

        Returns:
            A function that ends this.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def subscribe(self, first: list[Event] | None = None) -> Subscription:
        """Creates a subscription.

        Args:
            first: the first events for this subscriber: the current state.
        """
        subscription = Subscription(first or [], self._limit, self._leave, self._between)
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

    def _between(self) -> float:
        return max(BETWEEN_SECONDS, EACH_SECONDS * len(self._subscriptions))

    @property
    def listened(self) -> bool:
        """Whether there is a subscriber, or was one a moment ago: a long poll pauses before it begins again."""
        return bool(self._subscriptions) or time.monotonic() - self._left_at < COMES_BACK

    def _leave(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        self._left_at = time.monotonic()
        self._on_listeners()

    def close(self) -> None:
        """Ends all subscriptions; their queued events can still be read."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.close()
