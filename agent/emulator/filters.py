"""Selects the deployments for a list or a bulk stop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.functional_validators import AfterValidator

from agent.emulator.deployment import Deployment
from agent.emulator.json_text import load_json
from agent.emulator.models import BulkFilter
from agent.emulator.reading import where

WITH_LISTS = frozenset({"request_id", "tags", "application", "version", "fleet_name", "host_name"})
WITH_PATTERNS = frozenset({"fleet_name", "host_name"})
Field = Literal["status", "application", "version", "tags", "request_id", "created_at", "fleet_name", "host_name"]
Operator = Literal["eq", "neq", "gte", "lte", "in", "nin", "ilike"]


class Filter(BaseModel):
    """One condition."""

    model_config = ConfigDict(strict=True, extra="forbid")
    field: Field
    operator: Operator
    value: str | list[str]


class Order(BaseModel):
    """What to order by."""

    model_config = ConfigDict(strict=True, extra="forbid")
    field: Literal["created_at", "available_session_sockets"]
    order: Literal["asc", "desc"] = "asc"


def _one_for_each(filters: list[Filter]) -> list[Filter]:
    fields = [each.field for each in filters]
    if len(set(fields)) < len(fields):
        raise ValueError("has two filters on one field; at most one is allowed")
    return filters


class Query(BaseModel):
    """The JSON of the list's `query` parameter."""

    model_config = ConfigDict(strict=True, extra="forbid")
    filters: Annotated[list[Filter], AfterValidator(_one_for_each)] = []
    order_by: list[Order] = []


def parse_query(text: str) -> Query:
    """Read the `query` parameter.

    Raises:
        ValueError: it is not one; the message says where.
    """
    try:
        query = Query.model_validate(load_json(text))
    except ValidationError as error:
        faults = [f"{where(e['loc']) or 'query'}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise ValueError("; ".join(faults)) from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    for each in query.filters:
        _check(each)
    return query


def _check(each: Filter) -> None:
    """Refuse what an operator cannot do on a field."""
    if each.field == "created_at":
        allowed = {"eq", "gte", "lte"}
    else:
        allowed = {"eq", "neq"}
        allowed |= {"in", "nin"} if each.field in WITH_LISTS else set()
        allowed |= {"ilike"} if each.field in WITH_PATTERNS else set()
    if each.operator not in allowed:
        raise ValueError(f"{each.field} takes the operators {', '.join(sorted(allowed))}, not {each.operator}")
    if isinstance(each.value, list) != (each.operator in {"in", "nin"}):
        raise ValueError(
            f"{each.field} {each.operator} takes {'an array' if each.operator in {'in', 'nin'} else 'a text'}"
        )
    if each.field == "created_at":
        moment(str(each.value))


def moment(text: str) -> datetime:
    """A date and time; without a zone it is UTC.

    Raises:
        ValueError: it is none.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a time looks like 2026-04-30T12:00:00Z") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _values(deployment: Deployment, field: str) -> set[str]:
    """What a deployment has in a field."""
    host = deployment.host
    return {
        "status": {deployment.status.value.lower()},
        "application": {deployment.request.application},
        "version": {deployment.request.version},
        "tags": set(deployment.tags),
        "request_id": {deployment.id},
        "fleet_name": {host.fleet} if host and host.fleet else set(),
        "host_name": {host.host_id} if host else set(),
    }[field]


def _holds(each: Filter, deployment: Deployment) -> bool:
    """Whether a deployment meets a condition."""
    if each.field == "created_at":
        wanted = moment(str(each.value))
        test: Callable[[datetime], bool] = {
            "eq": lambda at: at == wanted,
            "gte": lambda at: at >= wanted,
            "lte": lambda at: at <= wanted,
        }[each.operator]
        return test(deployment.created)
    has = _values(deployment, each.field)
    if each.operator == "ilike":
        pattern = ".*".join(re.escape(part) for part in str(each.value).split("%"))
        return any(re.fullmatch(pattern, value, re.IGNORECASE | re.DOTALL) for value in has)
    wanted_values = {each.value} if isinstance(each.value, str) else set(each.value)
    if each.field == "status":
        wanted_values = {value.lower().removeprefix("status.") for value in wanted_values}
    return bool(has & wanted_values) == (each.operator in {"eq", "in"})


def selected(query: Query, deployments: Iterable[Deployment]) -> list[Deployment]:
    """Those that meet every filter, in the order asked for; the newest first unless something else is."""
    found = [each for each in deployments if all(_holds(condition, each) for condition in query.filters)]
    found.sort(key=lambda each: each.created, reverse=True)
    for order in reversed(query.order_by):
        # No deployment has sessions here, so ordering by their sockets leaves the order as it is.
        if order.field == "created_at":
            found.sort(key=lambda each: each.created, reverse=order.order == "desc")
    return found


def bulk_selected(filters: Iterable[BulkFilter], deployments: Iterable[Deployment]) -> list[Deployment]:
    """Those that meet every filter of a bulk stop; all of them when there is no filter.

    A filter without a value meets nothing, `not` included: it is a list that somebody forgot to fill, and the other
    reading of it stops everything.
    """

    def holds(each: BulkFilter, deployment: Deployment) -> bool:
        has: set[Any] = {deployment.id} if each.field == "request_id" else set(deployment.tags)
        wanted = set(each.values)
        if not wanted:
            return False
        if each.filter_type == "any":
            return bool(has & wanted)
        if each.filter_type == "all":
            return wanted <= has
        return not has & wanted

    conditions = list(filters)
    return [each for each in deployments if all(holds(condition, each) for condition in conditions)]
