"""Lists the runs of deployments in a store, and reads their logs line by line, with the gaps marked."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.logs import runs
from agent.logs.sources import Source, SourceError
from agent.terminal_text import safe_json

_RUN = re.compile(r"^(?:(?P<above>.*?)/)?(?P<time>\d{8}T\d{6}Z)-(?P<id>[^/]+)-(?P<attempt>\d+)/(?P<name>.+)$")
_SEGMENT = re.compile(r"^(?P<number>\d{6,})-(?P<time>\d{8}T\d{6}\.\d{3}Z)\.(?P<form>ndjson|log)\.zst$")


@dataclass(slots=True)
class Run:
    """One attempt of one deployment.

    Attributes:
        directory: its key in the store.
        time: when the agent started, `YYYYMMDDTHHMMSSZ`.
        deployment_id: which deployment.
        attempt: which start of the game.
        names: the objects below the directory.
    """

    directory: str
    time: str
    deployment_id: str
    attempt: int
    names: set[str] = field(default_factory=set)

    @property
    def segments(self) -> list[str]:
        """Names of the segments, in order."""
        return sorted((name for name in self.names if _SEGMENT.match(name)), key=number_of)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a log, or a gap.

    Attributes:
        ts: when, as ISO 8601; "" if unknown.
        stream: `stdout`, `stderr`, `agent`, the path of a file, or "" for a verbatim log.
        text: the line, without its line break.
        raw: the exact bytes if they are not UTF-8.
        partial: whether the line continues.
        gap: whether bytes are missing here; `text` says which.
    """

    ts: str
    stream: str
    text: str
    raw: bytes | None = None
    partial: bool = False
    gap: bool = False

    def as_json(self, *, terminal: bool = False) -> str:
        """The JSON of the segment; with `terminal`, control characters are made harmless."""
        content: dict[str, object] = {"ts": self.ts, "stream": self.stream, "line": self.text}
        if self.raw is not None:
            content["base64"] = base64.b64encode(self.raw).decode()
        if self.partial:
            content["partial"] = True
        if self.gap:
            content["gap"] = True
        return safe_json(content, terminal=terminal)


def find_runs(source: Source, deployment_id: str | None = None) -> list[Run]:
    """The runs in a source, oldest first.

    Args:
        source: where to look.
        deployment_id: the deployment; None for all.

    Raises:
        SourceError: it cannot be listed.
    """
    found: dict[str, Run] = {}
    for key in source.keys():  # noqa: SIM118 - it is no mapping
        match = _RUN.match(key)
        if match is None or (deployment_id is not None and match["id"] != deployment_id):
            continue
        directory = key[: -len(match["name"]) - 1]
        run = found.setdefault(directory, Run(directory, match["time"], match["id"], int(match["attempt"])))
        run.names.add(match["name"])
    return sorted(found.values(), key=lambda run: (run.time, run.attempt))


def document(source: Source, run: Run, name: str = runs.EXIT) -> dict[str, object] | None:
    """A JSON document of a run, such as its `exit.json`; None if there is none."""
    try:
        content = json.loads(source.get(f"{run.directory}/{name}"))
    except KeyError:
        return None
    except (ValueError, RecursionError):
        raise SourceError(f"cannot read {run.directory}/{name}: it is no JSON") from None
    return content if isinstance(content, dict) else None


def number_of(name: str) -> int:
    """The number of a segment, from its name."""
    return int(name.partition("-")[0])


class LogReader:
    """Reads the log of one run, in order; can be called again while the log grows."""

    def __init__(self, source: Source, run: Run) -> None:
        """Reads nothing yet."""
        self._source = source
        self._run = run
        about = document(source, run, runs.RUN) or {}
        first = about.get("first_segment")
        self._next = first if isinstance(first, int) else (1 if run.attempt <= 1 else None)
        self._seen = 0  # items already returned from the next segment, which was still being written

    @property
    def last_number(self) -> int:
        """The number of the last segment that was read."""
        return (self._next or 1) - 1

    def more(self) -> Iterator[Item]:
        """The new items since the last call, including gaps. Raises SourceError."""
        done = f"{(self._next or 1) - 1:06d}~"
        for key in self._source.keys(f"{self._run.directory}/", f"{self._run.directory}/{done}"):
            self._run.names.add(key[len(self._run.directory) + 1 :])
        for name in self._run.segments:
            number = number_of(name)
            if self._next is not None and number < self._next:
                continue
            if self._next is not None and number > self._next:
                yield _gap(_segments(self._next, number - 1), "not in the store: dropped, or not shipped")
                self._seen = 0
            grows = self._source.grows(f"{self._run.directory}/{name}")
            items = list(self._read(name))
            while grows and items and items[-1].partial:
                items.pop()
            yield from items[self._seen :]
            self._next, self._seen = (number, len(items)) if grows else (number + 1, 0)

    def _read(self, name: str) -> Iterator[Item]:
        import zstandard  # noqa: PLC0415 - late: only where something is read

        match = _SEGMENT.match(name)
        assert match is not None, "only segments are listed"
        try:
            packed = self._source.get(f"{self._run.directory}/{name}")
            text = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        except KeyError:
            yield _gap(f"segment {number_of(name)}", "it was deleted meanwhile")
            return
        except zstandard.ZstdError as problem:
            yield _gap(f"segment {number_of(name)}", f"it is damaged: {problem}")
            return
        if match["form"] == "log":
            for line in text.removesuffix(b"\n").split(b"\n"):
                yield Item("", "", line.decode("utf-8", "replace"), line)
            return
        for line in text.splitlines():
            try:
                yield _item(json.loads(line))
            except (ValueError, TypeError, AttributeError, RecursionError):
                yield _gap(f"a line in segment {number_of(name)}", "it is damaged")


def ending(exit_document: dict[str, object] | None, last_number: int) -> list[Item]:
    """The gap after the last segment, according to `exit.json`."""
    shipping = (exit_document or {}).get("shipping")
    not_shipped = shipping.get("not_shipped") if isinstance(shipping, dict) else None
    items = []
    for part in not_shipped if isinstance(not_shipped, list) else []:
        what = str(part.get("what")) if isinstance(part, dict) else ""
        if _SEGMENT.match(what) and number_of(what) > last_number:
            items.append(_gap(f"segment {number_of(what)}", f"not shipped: {part.get('why')}"))
    return sorted(items, key=lambda item: item.text)


def joined(items: Iterator[Item]) -> Iterator[Item]:
    """The same lines, with partial lines joined."""
    parts: dict[str, list[Item]] = {}
    for item in items:
        if item.gap:
            # A partial line before a gap does not continue after it.
            yield from (_join(begun) for begun in parts.values())
            parts.clear()
            yield item
        elif item.partial:
            parts.setdefault(item.stream, []).append(item)
        elif item.stream in parts:
            yield _join([*parts.pop(item.stream), item])
        else:
            yield item
    yield from (_join(begun) for begun in parts.values())


def _join(parts: list[Item]) -> Item:
    if all(part.raw is None for part in parts):
        return Item(parts[0].ts, parts[0].stream, "".join(part.text for part in parts))
    raw = b"".join(part.text.encode() if part.raw is None else part.raw for part in parts)
    return Item(parts[0].ts, parts[0].stream, raw.decode("utf-8", "replace"), raw)


def _item(content: dict[str, object]) -> Item:
    exact = content.get("base64")
    return Item(
        str(content.get("ts", "")),
        str(content.get("stream", "")),
        str(content.get("line", "")),
        base64.b64decode(exact) if isinstance(exact, str) else None,
        bool(content.get("partial")),
        "dropped_bytes" in content,
    )


def _gap(what: str, why: str) -> Item:
    return Item("", "agent", f"[arbitrium-agent] {what} of the log: {why}", gap=True)


def _segments(first: int, last: int) -> str:
    return f"segment {first}" if first == last else f"segments {first} to {last}"
