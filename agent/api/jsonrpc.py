"""JSON-RPC 2.0 (https://www.jsonrpc.org/specification): messages in, answers out. No I/O."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic_core import from_json

from agent.api.contracts import Caller, OnRequest
from agent.api.models import Nothing, Subscribed
from agent.api.operations import Operations
from agent.api.problems import FieldProblem, Kind, OperationError, internal
from agent.api.table import BY_NAME, Operation

Answer: TypeAlias = bytes | None
"""The answer, without the line break; None if there is none."""

BATCH_CALLS = 64
"""The most calls in a batch: a line of 64 KiB could contain 32,000."""
BATCH_BYTES = 1024 * 1024
"""The most bytes of answers that are kept until the whole batch is answered; further calls get an error."""

_SUBSCRIBE = Operation(
    "subscribe", lambda *_: Subscribed(), Nothing, Subscribed, "subscribe", http=("GET", "/v1/events")
)
METHODS = {name: operation for name, operation in BY_NAME.items() if operation.socket} | {"subscribe": _SUBSCRIBE}


class Dispatcher:
    """Executes the messages of one client."""

    def __init__(
        self, operations: Operations, caller: Caller, subscribe: Callable[[], None], on_request: OnRequest | None
    ) -> None:
        """Takes the operations, the caller, the function that subscribes, and the callback for each call."""
        self._operations = operations
        self._caller = caller
        self._subscribe = subscribe
        self._on_request = on_request

    def message(self, line: bytes) -> Answer | Awaitable[Answer] | Batch:
        """Executes a line with one call; a batch is only parsed.

        Returns:
            The answer, or an awaitable for a slow operation; or the batch, whose calls are executed one by one with
            `Batch.step`, so that other connections are served in between.
        """
        try:
            message = from_json(line, allow_inf_nan=False)
        except ValueError as wrong:
            return failure(None, OperationError(Kind.NOT_JSON, f"cannot read the line: it is not JSON ({wrong})"))
        if not isinstance(message, list):
            return self.call(message)
        if not message:
            return failure(None, _invalid("", message, "at least one call in a batch"))
        if len(message) > BATCH_CALLS:
            limit = FieldProblem("", f"{len(message)} calls", f"at most {BATCH_CALLS} calls in a batch")
            detail = f"cannot carry out a batch of {len(message)} calls: {BATCH_CALLS} at most; send several"
            return failure(None, OperationError(Kind.TOO_LARGE, detail, [limit]))
        return Batch(self, message)

    def call(self, message: Any) -> Answer | Awaitable[Answer]:
        """Executes one call."""
        began = time.perf_counter()
        name, identity, quiet = "unknown", None, False
        try:
            identity, quiet = _identity(message)
            operation, params = _read(message)
            name = operation.name
            outcome = operation.call(self._operations, _input(operation, params), self._caller)
            if not isinstance(outcome, BaseModel):
                return self._await(outcome, name, identity, quiet=quiet, began=began)
            if operation is _SUBSCRIBE:
                self._subscribe()
        except Exception as fault:
            return self._failed(fault, name, identity, quiet=quiet, began=began)
        self._observe(name, "ok", began)
        return None if quiet else _success(identity, outcome)

    async def _await(
        self, outcome: Awaitable[BaseModel], name: str, identity: Any, *, quiet: bool, began: float
    ) -> Answer:
        try:
            result = await outcome
        except Exception as fault:
            return self._failed(fault, name, identity, quiet=quiet, began=began)
        self._observe(name, "ok", began)
        return None if quiet else _success(identity, result)

    def _failed(self, fault: Exception, name: str, identity: Any, *, quiet: bool, began: float) -> Answer:
        wrong = fault if isinstance(fault, OperationError) else internal(name, fault)
        self._observe(name, str(wrong.kind.code), began)
        return None if quiet else failure(identity, wrong)

    def _observe(self, name: str, status: str, began: float) -> None:
        if self._on_request is not None:
            self._on_request("socket", name, status, time.perf_counter() - began)


class Batch:
    """The calls of one line, executed one at a time."""

    def __init__(self, dispatcher: Dispatcher, messages: list[Any]) -> None:
        """Executes nothing yet."""
        self._dispatcher = dispatcher
        self._messages = iter(messages)
        self._answers: list[Answer | Awaitable[Answer]] = []
        self._bytes = 0

    def step(self) -> bool:
        """Executes the next call.

        Returns:
            False if there is none left: `answer` returns the answers.
        """
        message = next(self._messages, _NONE)
        if message is _NONE:
            return False
        if self._bytes > BATCH_BYTES:
            answer: Answer | Awaitable[Answer] = _too_much(message)
        else:
            answer = self._dispatcher.call(message)
        if isinstance(answer, bytes):
            self._bytes += len(answer)
        self._answers.append(answer)
        return True

    def answer(self) -> Answer | Awaitable[Answer]:
        """All answers in one line, or an awaitable for them."""
        if any(isinstance(answer, Awaitable) for answer in self._answers):
            return _gather(self._answers)
        return _batch([answer for answer in self._answers if isinstance(answer, bytes)])


_NONE = object()


def _too_much(message: Any) -> Answer:
    """The answer to a call that is not executed, because the answers of its batch are already too large."""
    try:
        identity, quiet = _identity(message)
    except OperationError as wrong:
        return failure(None, wrong)
    detail = (
        f"cannot carry out this call: the answers before it take more than {BATCH_BYTES} bytes; send several batches"
    )
    return None if quiet else failure(identity, OperationError(Kind.TOO_LARGE, detail))


def _identity(message: Any) -> tuple[Any, bool]:
    """The id of a request, and whether it is a notification: a valid request without one."""
    if not isinstance(message, dict):
        raise _invalid("", message, "a request object")
    identity = message.get("id")
    # 1e999 is parsed as infinity, which JSON cannot represent in the answer.
    if isinstance(identity, bool | list | dict) or (isinstance(identity, float) and not math.isfinite(identity)):
        raise _invalid("id", identity, "text, a number or null")
    valid = message.get("jsonrpc") == "2.0" and isinstance(message.get("method"), str)
    return identity, valid and "id" not in message


def _read(message: dict[str, Any]) -> tuple[Operation, list[Any] | dict[str, Any]]:
    """The called operation and its params."""
    if message.get("jsonrpc") != "2.0":
        raise _invalid("jsonrpc", message.get("jsonrpc"), 'exactly "2.0"')
    method = message.get("method")
    if not isinstance(method, str):
        raise _invalid("method", method, "the name of a method")
    params = message.get("params")
    if params is not None and not isinstance(params, list | dict):
        raise _invalid("params", params, "an object or an array")
    operation = METHODS.get(method)
    if operation is None:
        known = ", ".join(sorted(METHODS))
        detail = f"cannot call {method[:100]}: there is no such method"
        raise OperationError(Kind.NOT_FOUND, detail, [FieldProblem("method", method[:100], known)])
    return operation, params or {}


def _input(operation: Operation, params: list[Any] | dict[str, Any]) -> BaseModel:
    """The input of an operation. An array contains the fields in order."""
    if not params and operation.takes_nothing is not None:
        return operation.takes_nothing
    if isinstance(params, dict):
        return operation.take(params)
    names = [] if "root" in operation.takes.model_fields else list(operation.takes.model_fields)
    if len(params) > len(names):
        raise OperationError(
            Kind.BAD_INPUT,
            f"cannot {operation.doing}: there are {len(params)} params in the array, and it takes {len(names)}",
            [FieldProblem("params", len(params), f"an object, or an array of {len(names)} at most")],
        )
    return operation.take(dict(zip(names, params, strict=False)))


def _invalid(field: str, got: Any, takes: str) -> OperationError:
    shown = json.dumps(got)
    shown = shown if len(shown) <= 100 else shown[:99] + "…"
    detail = f"cannot read the request: {field or 'it'} got {shown} and takes {takes}"
    return OperationError(Kind.BAD_REQUEST, detail, [FieldProblem(field, shown, takes)])


def _success(identity: Any, result: BaseModel) -> bytes:
    rendered = result.__pydantic_serializer__.to_json(result)
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (json.dumps(identity).encode(), rendered)


def failure(identity: Any, wrong: OperationError) -> bytes:
    """An error object."""
    error = {"code": wrong.kind.code, "message": str(wrong), "data": wrong.document()}
    return json.dumps({"jsonrpc": "2.0", "id": identity, "error": error}).encode()


async def _gather(answers: list[Answer | Awaitable[Answer]]) -> Answer:
    return _batch([r for r in [a if isinstance(a, bytes) or a is None else await a for a in answers] if r is not None])


def _batch(answers: list[bytes]) -> Answer:
    return b"[%s]" % b",".join(answers) if answers else None
