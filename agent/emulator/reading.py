"""Reads requests: bodies, query parameters, pages; detects unknown parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from aiohttp import web
from pydantic import BaseModel, ValidationError

from agent.emulator.errors import ApiError
from agent.emulator.json_text import load_json
from agent.emulator.records import BODY

Model = TypeVar("Model", bound=BaseModel)
IGNORED = web.RequestKey("ignored", list[str])
"""What the request holds that changes nothing here, as sentences' beginnings: `max_players (unknown)`."""
STRICT: web.AppKey[bool] = web.AppKey("strict", bool)
"""Whether such a request is refused rather than remarked on."""
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
        body = model.model_validate_json(raw)
    except ValidationError as error:
        raise body_faults(error) from None
    try:
        ignored = list(_ignored(load_json(raw), model, ()))
    except ValueError as error:
        raise ApiError(400, f"cannot accept the body: {error}; send what the contract has") from None
    note_ignored(request, ignored)
    return body


def body_faults(error: ValidationError) -> ApiError:
    """What is wrong with which member of a body, as 400."""
    faults = {where(e["loc"]): e["msg"].removeprefix("Value error, ") for e in error.errors(include_url=False)}
    listed = "; ".join(f"{name}: {message}" if name else message for name, message in faults.items())
    return ApiError(400, f"cannot accept the body: {listed}", details={"faults": faults})


def note_ignored(request: web.Request, found: list[str]) -> None:
    """Remember what a request holds that changes nothing here, for the log and the page.

    Raises:
        ApiError: 400 where `--strict` asks for it.
    """
    strict = request.app[STRICT]
    if found and strict:
        raise ApiError(400, f"cannot accept what would be ignored: {'; '.join(found)}; leave it out, or drop --strict")
    request.setdefault(IGNORED, []).extend(found)


def _ignored(value: Any, model: type[BaseModel], path: tuple[int | str, ...]) -> Iterator[str]:
    """The members of a JSON value that its model does not know, or knows and does nothing with."""
    if not isinstance(value, dict):
        return
    without_effect: frozenset[str] = getattr(model, "without_effect", frozenset())
    for name, member in value.items():
        place = (*path, name)
        known = model.model_fields.get(name)
        if known is None:
            yield f"{where(place)} (unknown)"
        elif name in without_effect:
            if member != known.default:
                yield f"{where(place)} (without effect here)"
        elif (inner := inner_model(model, name)) is not None:
            for index, each in enumerate(member if isinstance(member, list) else [member]):
                yield from _ignored(each, inner, (*place, index) if isinstance(member, list) else place)


def inner_model(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a member, or of the items of one that is a list; None where it is something simpler."""
    annotation = model.model_fields[name].annotation
    arguments = get_args(annotation)
    return next((e for e in (annotation, *arguments) if isinstance(e, type) and issubclass(e, BaseModel)), None)


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
