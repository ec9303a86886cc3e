"""Reads the configuration of an Agones game server from a `gameserver.yaml` and the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.config.model import Settings
from agent.errors import Problem, SettingsError, how_to_install
from agent.game.files import open_regular

_NAME = "AGENT_AGONES_CONFIG"


@dataclass(slots=True)
class Counter:
    """A counter of Agones: a count from 0 to a capacity."""

    count: int
    capacity: int

    def shown(self) -> dict[str, str]:
        """As it is in JSON, where numbers of 64 bits are text."""
        return {"count": str(self.count), "capacity": str(self.capacity)}


@dataclass(slots=True)
class List:
    """A list of Agones: different texts, as many as a capacity."""

    values: list[str]
    capacity: int

    def shown(self) -> dict[str, Any]:
        """As it is in JSON."""
        return {"capacity": str(self.capacity), "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class Health:
    """When a silent game is unhealthy: seconds between two calls (0: never), how many may be missed, and the first."""

    period: float
    threshold: int
    delay: float


@dataclass(frozen=True, slots=True)
class Spec:
    """All of it."""

    health: Health
    counters: dict[str, Counter] = field(default_factory=dict)
    lists: dict[str, List] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    player_capacity: int | None = None


def read(settings: Settings) -> Spec:
    """Reads the file of AGENT_AGONES_CONFIG, where there is one; settings that are set win over it.

    Raises:
        SettingsError: it cannot be read, or says what cannot be.
    """
    given = _file(settings.agones_config) if settings.agones_config else {}
    try:
        return _spec(settings, given)
    except (TypeError, ValueError, AttributeError) as wrong:
        takes = f"takes a GameServer, Fleet or GameServerSet of Agones, and this is none: {wrong}"
        raise SettingsError([Problem(_NAME, settings.agones_config, takes)]) from None


def _file(path: str) -> Mapping[str, Any]:
    try:
        with open(open_regular(path), encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as problem:
        raise SettingsError([Problem(_NAME, path, f"takes a file that can be read: {problem}")]) from None
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else _yaml(path, text)
    except ValueError as wrong:
        raise SettingsError([Problem(_NAME, path, f"takes YAML or JSON: {wrong}")]) from None
    if not isinstance(found, dict):
        raise SettingsError([Problem(_NAME, path, "takes a file with a GameServer or a Fleet of Agones")])
    return found


def _yaml(path: str, text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - only where there is such a file
    except ImportError:
        takes = f"takes a .json file where PyYAML is not installed; convert it, or {how_to_install('agones')}"
        raise SettingsError([Problem(_NAME, path, takes)]) from None
    try:
        # A file may hold several documents; the first that is a game server counts.
        documents = [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    except yaml.YAMLError as wrong:
        raise ValueError(str(wrong).replace("\n", " ")) from None
    kinds = ("GameServer", "Fleet", "GameServerSet")
    return next((document for document in documents if document.get("kind") in kinds), next(iter(documents), None))


def _spec(settings: Settings, given: Mapping[str, Any]) -> Spec:
    template = given
    # A Fleet has the game server in its template.
    if given.get("kind") in ("Fleet", "GameServerSet"):
        template = given.get("spec", {}).get("template", {})
    spec, meta = template.get("spec", {}) or {}, template.get("metadata", {}) or {}
    health = spec.get("health", {}) or {}
    is_set = settings.given
    period = float(health.get("periodSeconds", settings.agones_health_period))
    threshold = int(health.get("failureThreshold", settings.agones_health_threshold))
    delay = float(health.get("initialDelaySeconds", settings.agones_health_delay))
    if health.get("disabled"):
        period = 0.0
    counters = {str(name): _counter(name, each or {}) for name, each in (spec.get("counters", {}) or {}).items()} | {
        name: Counter(count, capacity) for name, count, capacity in settings.agones_counters
    }
    lists = {str(name): _list(name, each or {}) for name, each in (spec.get("lists", {}) or {}).items()} | {
        name: List(list(values), capacity) for name, values, capacity in settings.agones_lists
    }
    players = (spec.get("players", {}) or {}).get("initialCapacity")
    return Spec(
        health=Health(
            settings.agones_health_period if "agones_health_period" in is_set else period,
            settings.agones_health_threshold if "agones_health_threshold" in is_set else threshold,
            settings.agones_health_delay if "agones_health_delay" in is_set else delay,
        ),
        counters=counters,
        lists=lists,
        labels={str(key): str(value) for key, value in (meta.get("labels", {}) or {}).items()},
        annotations={str(key): str(value) for key, value in (meta.get("annotations", {}) or {}).items()},
        player_capacity=None if players is None else int(players),
    )


def _counter(name: object, given: Mapping[str, Any]) -> Counter:
    # Agones' own default is a capacity of 1000.
    counter = Counter(int(given.get("count", 0)), int(given.get("capacity", 1000)))
    if not 0 <= counter.count <= counter.capacity:
        raise ValueError(f"counter {name} has a count of {counter.count}, which is not within 0 to {counter.capacity}")
    return counter


def _list(name: object, given: Mapping[str, Any]) -> List:
    values = [str(value) for value in given.get("values", []) or []]
    capacity = int(given.get("capacity", 1000))
    if len(set(values)) != len(values) or not len(values) <= capacity <= 1000:
        raise ValueError(f"list {name} has more values than its capacity, one twice, or a capacity above 1000")
    return List(values, capacity)
