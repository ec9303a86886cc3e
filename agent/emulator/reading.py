"""How requests are read: bodies, query parameters, pages."""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from agent.emulator.errors import ApiError
from agent.emulator.records import BODY

Model = TypeVar("Model", bound=BaseModel)
MOST_BODY_BYTES = 8 * 1024 * 1024
"""Largest body taken; an application's picture is in one."""
DEFAULT_PAGE = 100
"""Items of a page when `limit` is not given."""


async def read_body(request: web.Request, model: type[Model]) -> Model:
    """A request's JSON body, checked.

    Raises:
        ApiError: 400, and what is wrong with which member.
    """
    if request.content_type != "application/json":
        raise ApiError(400, f"cannot read a body of type {request.content_type}; send application/json")
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(400, f"cannot read more than {MOST_BODY_BYTES} bytes; send a smaller body") from None
    request[BODY] = raw
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        faults = {where(e["loc"]): e["msg"].removeprefix("Value error, ") for e in error.errors(include_url=False)}
        listed = "; ".join(f"{name}: {message}" if name else message for name, message in faults.items())
        raise ApiError(400, f"cannot accept the body: {listed}", details={"faults": faults}) from None


def where(location: tuple[int | str, ...]) -> str:
    """A member's path as people write it: `users[0].user_data`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def one(request: web.Request, name: str) -> str | None:
    """A query parameter; None when it is absent.

    Raises:
        ApiError: 400, it is there twice.
    """
    values = request.query.getall(name, [])
    if len(values) > 1:
        raise ApiError(400, f"cannot take the query parameter {name} twice; send it once")
    return values[0] if values else None


def number(request: web.Request, name: str) -> int | None:
    """A query parameter that is a whole number from 1 on.

    Raises:
        ApiError: 400, it is something else.
    """
    text = one(request, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 100 and int(text) >= 1):
        raise ApiError(400, f"cannot read the query parameter {name}; it is a whole number from 1 on")
    return int(text)


def paged(request: web.Request, items: list[Any], name: str) -> dict[str, Any]:
    """One page of a list, with the contract's `Pagination` and `total_count`.

    Args:
        request: its `page` and `limit` say which.
        items: all of them, in order.
        name: what the contract calls the list.
    """
    page = number(request, "page") or 1
    limit = number(request, "limit") or DEFAULT_PAGE
    pages = max(1, math.ceil(len(items) / limit))
    return {
        name: items[(page - 1) * limit : page * limit],
        "total_count": len(items),
        "pagination": {
            "number": page,
            "next_page_number": page + 1 if page < pages else None,
            "previous_page_number": min(page - 1, pages) if page > 1 else None,
            "paginator": {"num_pages": pages},
            "has_next": page < pages,
            "has_previous": page > 1,
        },
    }


def load_json(text: str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity.

    Raises:
        ValueError: it is not JSON.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)
