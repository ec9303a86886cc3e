"""Opens the places that logs are read from: a store, a directory, an archive, or a spool on this machine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from agent.errors import AgentError
from agent.logs import objects, runs
from agent.logs.store import explain, open_obstore
from agent.logs.target import KEY, Target, clean


class SourceError(AgentError):
    """Logs cannot be read."""


class Source(Protocol):
    """The interface for reading logs.

    Attributes:
        shown: the place, for messages.
    """

    shown: str

    def keys(self, below: str = "", after: str = "") -> Iterable[str]:
        """All keys that begin with `below`, or only those after `after`; in any order. Raises SourceError."""

    def get(self, key: str) -> bytes:
        """An object; raises KeyError if it does not exist, and SourceError if it cannot be read."""

    def grows(self, key: str) -> bool:
        """Whether a segment is still being written."""

    def close(self) -> None:
        """Closes open files."""


def open_source(url: str, environ: Mapping[str, str]) -> Source:
    """The source for a URL or a path.

    Args:
        url: `AGENT_LOG_URL` as it was for shipping, a directory, or an archive (`....tar`), also by http.
        environ: where `AGENT_STORE_*` is looked up.

    Raises:
        SourceError: it is something else.
    """
    if "://" not in url:
        url = f"file://{os.path.abspath(url)}"
    try:
        target = Target(url)
    except ValueError as wrong:
        raise SourceError(f"cannot read logs from {url!r}: --url {wrong}") from None
    if url.partition("?")[0].endswith(".tar"):
        return ArchiveSource(target, url)
    if target.kind == "http":
        where = "of the server behind it" if KEY in url else "that it names (it ends in .tar)"
        raise SourceError(
            f"cannot list what is behind {target.shown}: plain HTTP has no listing; give the directory {where}, or the "
            "archive, as --url"
        )
    return ObstoreSource(target, environ)


class ObstoreSource:
    """S3, GCS, Azure or a directory."""

    def __init__(self, target: Target, environ: Mapping[str, str]) -> None:
        """Opens it."""
        self.shown = target.shown
        if target.kind == "file" and not os.path.isdir(target.base.partition("://")[2]):
            raise SourceError(f"cannot read logs from {self.shown}: there is no such directory; check --url")
        try:
            self._store: Any = open_obstore(target, environ)
        except Exception as problem:
            raise SourceError(f"cannot open {self.shown}: {problem}; check --url and the store's variables") from None

    def keys(self, below: str = "", after: str = "") -> Iterable[str]:
        """As `Source`."""
        import obstore  # noqa: PLC0415 - as in agent.logs.store

        # A prefix of obstore ends at a slash.
        folder = below.rpartition("/")[0]
        try:
            for some in obstore.list(self._store, prefix=folder or None, offset=after or None):
                yield from (item["path"] for item in some if item["path"].startswith(below))
        except Exception as problem:
            raise self._problem(problem) from None

    def get(self, key: str) -> bytes:
        """As `Source`."""
        import obstore  # noqa: PLC0415 - as in agent.logs.store

        try:
            return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            raise KeyError(key) from None
        except Exception as problem:
            raise self._problem(problem) from None

    def grows(self, key: str) -> bool:
        """Never: shipped segments are complete."""
        return False

    def close(self) -> None:
        """Nothing is held."""

    def _problem(self, problem: Exception) -> SourceError:
        return SourceError(f"cannot read {self.shown}: {explain(problem)}; check --url and the store's variables")


class ArchiveSource:
    """The archive that was uploaded to a presigned URL, read from a file or by HTTP."""

    def __init__(self, target: Target, url: str) -> None:
        """Reads its table of contents."""
        self.shown = target.shown
        try:
            self._file = _file(target, url)
            self._tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115 - read from to the end
            self._members = {member.name: member for member in self._tar.getmembers() if member.isfile()}
        except (OSError, tarfile.TarError) as problem:
            raise SourceError(f"cannot read the archive {self.shown}: {problem}; check --url") from None

    def keys(self, below: str = "", after: str = "") -> Iterable[str]:
        """As `Source`."""
        return [name for name in self._members if name.startswith(below) and name > after]

    def get(self, key: str) -> bytes:
        """As `Source`."""
        file = self._tar.extractfile(self._members[key])
        assert file is not None, "only files are listed"
        return file.read()

    def grows(self, key: str) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Closes the archive."""
        self._tar.close()
        self._file.close()


class SpoolSource:
    """A spool directory: logs of agents without a store, or not (yet) shipped."""

    def __init__(self, directory: str) -> None:
        """Reads nothing yet."""
        self.shown = directory
        self._segments: dict[str, runs.Segment] = {}
        self._files: dict[str, str] = {}
        self._gaps: dict[str, int] = {}
        self._about: dict[str, bytes] = {}

    def keys(self, below: str = "", after: str = "") -> Iterable[str]:
        """As `Source`, with the keys that the files would have in a store."""
        self._segments, self._files = {}, {}
        for run in runs.all_runs(self.shown):
            time, _, end = os.path.basename(run).partition("-")
            owner = clean(runs.owner_of(run).partition("\n")[0]) if runs.owner_of(run) else f"local-{end[-8:]}"
            parts = [(first, f"_/_/{time}-{owner}-{attempt}") for first, attempt in runs.attempts(run) or [(1, 1)]]
            found, gaps = runs.load(run, clean=False)
            for segment in found:
                key = f"{runs.key_of(parts, segment.number)}/{objects.name(segment, 'ndjson')}"
                self._segments[key] = segment
                self._gaps[key] = gaps.get(segment.number, 0)
            for number, (first, directory) in enumerate(parts, 1):
                self._about[f"{directory}/{runs.RUN}"] = json.dumps({"first_segment": first}).encode()
                name = runs.EXIT if number == len(parts) else f"exit-{number}.json"
                self._files[f"{directory}/{runs.EXIT}"] = f"{run}/{name}"
        keys = [*self._segments, *self._about, *(key for key, path in self._files.items() if os.path.exists(path))]
        return [key for key in keys if key.startswith(below) and key > after]

    def get(self, key: str) -> bytes:
        """As `Source`."""
        if key in self._about:
            return self._about[key]
        try:
            if key in self._segments:
                segment = self._segments[key]
                if self.grows(key) and not os.path.exists(str(segment.path)):
                    segment.path = str(segment.path).removesuffix(runs.OPEN) + runs.DONE  # closed meanwhile
                text = objects.text(segment, "ndjson", self._gaps[key])
                return b"".join(objects.compress(text))
            with open(self._files[key], "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise KeyError(key) from None
        except OSError as problem:
            raise SourceError(
                f"cannot read {self.shown}: {problem}; run this as the user that the agent runs as"
            ) from None

    def grows(self, key: str) -> bool:
        """The segment that an agent is writing, or was writing when it was killed."""
        return key in self._segments and str(self._segments[key].path).endswith(runs.OPEN)

    def close(self) -> None:
        """Nothing is held."""


def _file(target: Target, url: str) -> Any:
    if target.kind == "file":
        return open(target.base.partition("://")[2], "rb")
    if target.kind != "http":
        raise OSError("an archive is a file, or behind http")
    import urllib.request  # noqa: PLC0415 - only for this

    copy = tempfile.SpooledTemporaryFile(max_size=16 * 1024 * 1024)  # noqa: SIM115 - the archive reads from it
    with contextlib.closing(urllib.request.urlopen(url, timeout=60)) as answer:  # noqa: S310 - the URL is the user's own
        while piece := answer.read(1 << 20):
            copy.write(piece)
    copy.seek(0, io.SEEK_SET)
    return copy
