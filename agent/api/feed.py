"""Publishes changes of the lifecycle and the game's reports as events, and creates the first events of a subscriber."""

from __future__ import annotations

from agent.api.contracts import Control
from agent.api.events import Event, EventBus, Subscription
from agent.api.models import TextEvent
from agent.api.views import View
from agent.lifecycle.game_report import Fact, GameReport, PlayersReported, TextReported
from agent.lifecycle.states import Event as LifecycleEvent
from agent.lifecycle.states import State


class Feed:
    """Publishes state, stop, players and text events."""

    def __init__(self, control: Control, report: GameReport, events: EventBus, view: View) -> None:
        """Subscribes to the report; `on_transition` must be passed to the mirror of the lifecycle."""
        self._control = control
        self._report = report
        self._events = events
        self._view = view
        report.subscribe(self._on_fact)

    def on_transition(self, before: State, after: State, event: LifecycleEvent) -> None:
        """An observer for `Mirror.watch`.

        Both states came over the link: unchanged parts are equal, but not the same objects.
        """
        if after.stop is not None and (after.stop != before.stop or after.plan != before.plan):
            announcement = self._view.stop_event(after, event.at)
            if announcement is not None:
                self._events.publish("stop", announcement)
        # One event may pass through several phases (starting to ready to ...): each is published, in order.
        previous = before.phase
        for moment in after.history[len(before.history) :]:
            self._events.publish("state", self._view.state_event(after, moment.at, previous, moment.phase))
            previous = moment.phase

    def _on_fact(self, fact: Fact) -> None:
        match fact:
            case PlayersReported():
                self._events.publish("players", self._view.players_event(fact))
            case TextReported(at=at, text=text):
                self._events.publish("text", TextEvent(at=self._view.time(at), text=text))
            case _:
                pass  # heartbeats and metrics are too frequent; clients can query them

    def subscribe(self) -> Subscription:
        """The first events of a subscriber: the current phase, and the stop if one is under way."""
        state, now = self._control.state, self._control.now()
        events = [Event(self._events.last_id, "state", self._view.state_event(state, now, None, state.phase))]
        stop = self._view.stop_event(state, now)
        if stop is not None:
            events.append(Event(self._events.last_id, "stop", stop))
        return self._events.subscribe(events)
