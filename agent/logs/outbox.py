"""Puts objects into the store, with retries; a failing store is reported once, and its recovery too."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import IO, Any

from agent.logs.redact import Redactor
from agent.logs.speed import Speed
from agent.logs.store import Store, StoreError, open_store
from agent.logs.target import Target
from agent.record import Record
from agent.retry import RetryPolicy


class UploadPolicy(Record):
    """How often and for how long an upload is tried.

    Attributes:
        patience: timeout of one attempt in seconds, or None for no limit besides the caller's.
        pauses: the pauses between attempts.
        give_up: whether a permanent refusal ends the attempts; otherwise they continue, since the store may be fixed.
    """

    patience: float | None
    pauses: RetryPolicy
    give_up: bool


class Outbox:
    """Uploads to one store, and counts what was confirmed.

    Attributes:
        target: where to upload.
        problem: why the store accepts nothing now, in words; "" while it works.
        objects, bytes: confirmed so far.
        failures: attempts that failed.
    """

    def __init__(
        self,
        target: Target,
        redactor: Redactor,
        say: Callable[[str], None],
        speed: Speed,
        environ: Mapping[str, str] | None = None,
        store: Store | None = None,
    ) -> None:
        """Opens nothing yet.

        Args:
            target: where to upload.
            redactor: for messages.
            say: called with a message when the store stops accepting uploads, and when it accepts them again.
            speed: told whether the store accepts uploads; the measurements come from elsewhere.
            environ: where `AGENT_STORE_*` is looked up; the process's environment by default.
            store: used instead of the target's store.
        """
        self.target = target
        self.problem = ""
        self.objects = 0
        self.bytes = 0
        self.failures = 0
        self._redactor = redactor
        self._say = say
        self._speed = speed
        self._environ = environ
        self._store = store

    async def put(self, key: str, data: bytes, policy: UploadPolicy) -> None:
        """Returns when the store has confirmed the object.

        Raises:
            StoreError: the store cannot be used as configured, or (with `give_up`) refused permanently.
        """
        await self._attempts(lambda store: store.put(key, data), len(data), policy)

    async def put_file(self, key: str, file: IO[bytes], policy: UploadPolicy) -> None:
        """As `put`, for a file, from its beginning."""
        size = file.seek(0, io.SEEK_END)
        await self._attempts(lambda store: store.put_file(key, file), size, policy)

    async def put_pieces(self, key: str, pieces: Callable[[], AsyncIterator[bytes]], policy: UploadPolicy) -> int:
        """As `put`, for an object that is created again for each attempt.

        Returns:
            Its size in bytes.
        """
        size = 0

        async def attempt(store: Store) -> None:
            nonlocal size
            size = 0

            async def counted() -> AsyncIterator[bytes]:
                nonlocal size
                async for piece in pieces():
                    size += len(piece)
                    yield piece

            await store.put_pieces(key, counted())

        await self._attempts(attempt, 0, policy)
        self.bytes += size
        return size

    async def close(self) -> None:
        """Lets connections go."""
        if self._store is not None:
            await self._store.close()

    async def _attempts(
        self, attempt: Callable[[Store], Coroutine[Any, Any, None]], size: int, policy: UploadPolicy
    ) -> None:
        for retry in itertools.count():
            try:
                if self._store is None:
                    self._store = open_store(self.target, self._environ)
                async with asyncio.timeout(policy.patience):
                    await attempt(self._store)
            except (StoreError, TimeoutError) as raised:
                problem = raised
                if not isinstance(raised, StoreError):
                    problem = StoreError(f"no answer within {policy.patience:.3g} s", final=False)
                assert isinstance(problem, StoreError), "a timeout was made one above"
                self._failed(problem)
                if policy.give_up and problem.final:
                    raise problem from None
            else:
                self.objects += 1
                self.bytes += size
                self._speed.works_again()
                if self.problem:
                    self.problem = ""
                    self._say("the store takes logs again")
                return
            await asyncio.sleep(policy.pauses.wait(retry, random.SystemRandom()))

    def _failed(self, problem: StoreError) -> None:
        self.failures += 1
        self._speed.failed()
        text = self._redactor.text(str(problem))
        if not self.problem:
            self._say(
                f"cannot ship logs to {self.target.shown}: {text}; they stay in the spool meanwhile: look at the "
                "store, AGENT_LOG_URL and the store's credentials"
            )
        self.problem = text
