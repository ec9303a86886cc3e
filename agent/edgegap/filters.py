"""The query of `GET /v1/deployments`, typed: filters are checked before the request is sent."""

import enum
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from agent.edgegap.errors import InvalidArgumentError


class Field(enum.StrEnum):
    """What deployments can be filtered by."""

    STATUS = "status"
    APPLICATION = "application"
    VERSION = "version"
    TAGS = "tags"
    REQUEST_ID = "request_id"
    CREATED_AT = "created_at"
    FLEET_NAME = "fleet_name"
    HOST_NAME = "host_name"


class Operator(enum.StrEnum):
    """How a field is compared; `ILIKE` ignores case and takes % for anything."""

    EQ = "eq"
    NEQ = "neq"
    GTE = "gte"
    LTE = "lte"
    IN = "in"
    NIN = "nin"
    ILIKE = "ilike"


_LISTS = frozenset({Operator.IN, Operator.NIN})
_EQUAL = frozenset({Operator.EQ, Operator.NEQ})

OPERATORS: dict[Field, frozenset[Operator]] = {
    Field.STATUS: _EQUAL,
    Field.APPLICATION: _EQUAL | _LISTS,
    Field.VERSION: _EQUAL | _LISTS,
    Field.TAGS: _EQUAL | _LISTS,
    Field.REQUEST_ID: _EQUAL | _LISTS,
    Field.CREATED_AT: frozenset({Operator.EQ, Operator.GTE, Operator.LTE}),
    Field.FLEET_NAME: _EQUAL | _LISTS | {Operator.ILIKE},
    Field.HOST_NAME: _EQUAL | _LISTS | {Operator.ILIKE},
}
"""What each field takes, as the contract's description of the parameter `query` has it."""

_EXPRESSION = re.compile(r"\s*(?P<field>\w+)\s*(?P<sign>!=|>=|<=|=|~)\s*(?P<value>.*?)\s*", re.DOTALL)
_SIGNS = {
    "=": Operator.EQ,
    "!=": Operator.NEQ,
    ">=": Operator.GTE,
    "<=": Operator.LTE,
    "~": Operator.ILIKE,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition.

    Attributes:
        field: what is compared.
        operator: how.
        value: with what; several values for `IN` and `NIN`, one for all others.
    """

    field: Field
    operator: Operator
    value: str | Sequence[str]

    def __post_init__(self) -> None:
        """Check that the platform takes this combination."""
        takes = OPERATORS[self.field]
        if self.operator not in takes:
            raise _wrong(f"{self.field} takes {', '.join(sorted(takes))}, not {self.operator}")
        if (self.operator in _LISTS) == isinstance(self.value, str):
            raise _wrong(f"{self.operator} takes {'several values' if self.operator in _LISTS else 'one value'}")
        if not self.value or (not isinstance(self.value, str) and not all(self.value)):
            raise _wrong(f"{self.field} {self.operator} has an empty value")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a condition as people write it: `status=ready`, `tags=a,b`, `host_name~%chicago%`.

        Args:
            text: field, sign (`=`, `!=`, `>=`, `<=`, `~`) and value. Commas make `=` and `!=` a list (in, nin) where
                the field takes one.

        Raises:
            InvalidArgumentError: it cannot be read, or the platform does not take it.
        """
        match = _EXPRESSION.fullmatch(text)
        if match is None:
            raise _wrong(f"{text!r} is not of the form field=value (signs: {' '.join(_SIGNS)})")
        try:
            field = Field(match["field"])
        except ValueError:
            raise _wrong(f"there is no field {match['field']!r}; fields: {', '.join(Field)}") from None
        operator, value = _SIGNS[match["sign"]], match["value"]
        several = {Operator.EQ: Operator.IN, Operator.NEQ: Operator.NIN}.get(operator)
        if "," in value and several in OPERATORS[field]:
            return cls(field, several, [part.strip() for part in value.split(",")])
        return cls(field, operator, value)

    def to_wire(self) -> dict[str, object]:
        """Write it as the contract has it."""
        value = self.value if isinstance(self.value, str) else list(self.value)
        return {"field": str(self.field), "operator": str(self.operator), "value": value}


class OrderField(enum.StrEnum):
    """What deployments can be ordered by."""

    CREATED_AT = "created_at"
    AVAILABLE_SESSION_SOCKETS = "available_session_sockets"


@dataclass(frozen=True, slots=True)
class Order:
    """One key of the order."""

    field: OrderField
    descending: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `created_at`, `created_at:asc` or `created_at:desc`.

        Raises:
            InvalidArgumentError: it is none of them.
        """
        name, _, direction = text.strip().partition(":")
        if name not in set(OrderField) or direction not in {"", "asc", "desc"}:
            raise _wrong(f"{text!r} is not an order; write {' or '.join(OrderField)}, with :asc or :desc")
        return cls(OrderField(name), direction == "desc")

    def to_wire(self) -> dict[str, object]:
        """Write it as the contract has it."""
        return {"field": str(self.field), "order": "desc" if self.descending else "asc"}


@dataclass(frozen=True, slots=True)
class Query:
    """Which deployments to list, and in which order.

    Attributes:
        filters: all must hold; at most one per field.
        order_by: the first key counts most.
    """

    filters: Sequence[Filter] = ()
    order_by: Sequence[Order] = ()

    def __post_init__(self) -> None:
        """Check that no field is filtered twice: the platform refuses that."""
        fields = [condition.field for condition in self.filters]
        twice = sorted({str(field) for field in fields if fields.count(field) > 1})
        if twice:
            raise _wrong(f"{', '.join(twice)} is filtered more than once, and the platform takes one filter per field")

    def to_wire(self) -> str | None:
        """Write it as the value of the parameter `query`; None where nothing is asked."""
        asked: dict[str, object] = {}
        if self.filters:
            asked["filters"] = [condition.to_wire() for condition in self.filters]
        if self.order_by:
            asked["order_by"] = [key.to_wire() for key in self.order_by]
        return json.dumps(asked, separators=(",", ":")) if asked else None


def _wrong(what: str) -> InvalidArgumentError:
    return InvalidArgumentError("list deployments", what, advice="correct the filter or the order")
