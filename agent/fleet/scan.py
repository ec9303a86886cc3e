"""Finds the runs in a store and reads their `exit.json`, many at a time.

The store is listed folder by folder and not as a whole: a run has several objects, and whole days or runs can be
skipped by name. Reads are concurrent, because a store has a high latency but handles many requests.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from agent.errors import AgentError
from agent.fleet import exits
from agent.logs.store import StoreError, explain, open_obstore
from agent.logs.target import Target

AT_ONCE = 64
"""Requests under way at the same time."""
_BATCHES = 3
LONGEST_LIFE = timedelta(days=2)
"""A life that ended in the span may have begun so much earlier. The platform's own default for the longest is a day."""

_RUN = re.compile(r"(?P<time>\d{8}T\d{6}Z)-[^/]+-\d+")
_DATE = re.compile(r"date=(?P<date>\d{4}-\d{2}-\d{2})")
_SEGMENT = re.compile(r"\d{6,}-\d{8}T\d{6}\.\d{3}Z\.ndjson\.zst")


@dataclass(slots=True)
class Found:
    """What a scan came upon beside the lives themselves.

    Attributes:
        exits: lives with an `exit.json`.
        without: directories of lives without one: they still run, or agent and game were killed at once.
        unreadable: keys whose content is no JSON object.
    """

    exits: int = 0
    without: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


class Scanner:
    """Reads one store."""

    def __init__(self, url: str, environ: Mapping[str, str], since: datetime | None = None) -> None:
        """Opens it; nothing is read yet.

        Args:
            url: as `AGENT_LOG_URL`, or a directory; a part of the path narrows it down.
            environ: where `AGENT_STORE_*` is looked up.
            since: what began more than `LONGEST_LIFE` before is left out; None for everything.

        Raises:
            AgentError: it is no store that can be listed, or cannot be opened.
        """
        if "://" not in url:
            url = f"file://{os.path.abspath(url)}"
        try:
            target = Target(url)
        except ValueError as wrong:
            raise AgentError(f"cannot read a fleet from {url!r}: it {wrong}") from None
        self.shown = target.shown
        if target.kind == "http":
            raise AgentError(
                f"cannot read a fleet from {self.shown}: plain HTTP has no listing; give the store behind it"
            )
        if target.kind == "file" and not os.path.isdir(target.base.partition("://")[2]):
            raise AgentError(f"cannot read a fleet from {self.shown}: there is no such directory; check the URL")
        try:
            self._store: Any = open_obstore(target, environ)
        except StoreError as problem:
            raise AgentError(f"cannot open {self.shown}: {problem}; check the URL and the store's variables") from None
        self.local = target.base.partition("://")[2] if target.kind == "file" else None
        self.found = Found()
        self._since = since - LONGEST_LIFE if since is not None else None
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def rows(self) -> AsyncIterator[list[dict[str, object]]]:
        """The rows of all lives, some at a time, in no order; what else there is, is in `found`.

        Raises:
            AgentError: the store cannot be read.
        """
        waiting: set[asyncio.Task[list[dict[str, object]]]] = set()
        try:
            some: list[str] = []
            async for directory in self._lives():
                some.append(directory)
                if len(some) == AT_ONCE:
                    waiting.add(asyncio.create_task(self._exits(some)))
                    some = []
                if len(waiting) == _BATCHES:  # read on only when these are done: what waits takes memory
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        yield task.result()
            waiting.add(asyncio.create_task(self._exits(some)))
            for last in asyncio.as_completed(waiting):
                yield await last
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def segments(self, directories: list[str]) -> list[str]:
        """The keys of all log segments of these lives that are JSON, in order."""

        async def some(directory: str) -> list[str]:
            _, objects = await self._list(directory)
            return [key for key in objects if _SEGMENT.fullmatch(key.rpartition("/")[2])]

        listed = await asyncio.gather(*(some(directory) for directory in directories))
        return sorted(key for keys in listed for key in keys)

    async def get(self, key: str) -> bytes | None:
        """An object; None where there is none. Raises AgentError."""
        import obstore  # noqa: PLC0415 - as in agent.logs.store

        async with self._at_once:
            try:
                answer = await obstore.get_async(self._store, key)
                return bytes(await answer.bytes_async())
            except FileNotFoundError:
                return None
            except Exception as problem:
                raise self._problem(problem) from None

    async def _lives(self) -> AsyncIterator[str]:
        """The directories of all lives that are wanted, level by level."""
        level = [""]
        while level:
            below: list[str] = []
            listed = [asyncio.create_task(self._list(prefix)) for prefix in level]
            try:
                for listing in listed:
                    folders, _ = await listing
                    for folder in folders:
                        name = folder.rpartition("/")[2]
                        if (run := _RUN.fullmatch(name)) is not None:
                            if self._since is None or run["time"] >= f"{self._since:%Y%m%dT%H%M%SZ}":
                                yield folder
                        elif self._is_wanted(name):
                            below.append(folder)
            finally:
                for listing in listed:
                    listing.cancel()
                await asyncio.gather(*listed, return_exceptions=True)
            level = below

    def _is_wanted(self, name: str) -> bool:
        date = _DATE.fullmatch(name)
        return date is None or self._since is None or date["date"] >= f"{self._since:%Y-%m-%d}"

    async def _list(self, prefix: str) -> tuple[list[str], list[str]]:
        """Folders and objects right below a prefix."""
        import obstore  # noqa: PLC0415 - as in agent.logs.store

        async with self._at_once:
            try:
                found = await obstore.list_with_delimiter_async(self._store, prefix or None)
            except Exception as problem:
                raise self._problem(problem) from None
        return [folder.rstrip("/") for folder in found["common_prefixes"]], [item["path"] for item in found["objects"]]

    async def _exits(self, directories: list[str]) -> list[dict[str, object]]:
        keys = [f"{directory}/exit.json" for directory in directories]
        if self.local is not None:
            # A call for each file through the store's library costs more than reading them one after the other.
            contents = await asyncio.to_thread(self._read_files, keys)
        else:
            contents = await asyncio.gather(*(self.get(key) for key in keys))
        rows = (self._row(directory, content) for directory, content in zip(directories, contents, strict=True))
        return [row for row in rows if row is not None]

    def _read_files(self, keys: list[str]) -> list[bytes | None]:
        contents: list[bytes | None] = []
        for key in keys:
            try:
                with open(f"{self.local}/{key}", "rb") as file:
                    contents.append(file.read())
            except FileNotFoundError:
                contents.append(None)
            except OSError as problem:
                raise AgentError(f"cannot read {self.local}/{key}: {problem.strerror}; run this as its owner") from None
        return contents

    def _row(self, directory: str, content: bytes | None) -> dict[str, object] | None:
        if content is None:
            self.found.without.append(directory)
            return None
        document = exits.parse(content)
        if document is None:
            self.found.unreadable.append(f"{directory}/exit.json")
            return None
        self.found.exits += 1
        return exits.row(directory, document)

    def _problem(self, problem: BaseException) -> AgentError:
        return AgentError(f"cannot read {self.shown}: {explain(problem)}; check the URL and the store's variables")
