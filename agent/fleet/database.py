"""The runs as tables of DuckDB: `exits`, and `logs` if a query uses it. Needs the extra `fleet`."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from agent.errors import AgentError, how_to_install
from agent.fleet.exits import COLUMNS, line
from agent.fleet.scan import AT_ONCE, Found, Scanner

if TYPE_CHECKING:
    import duckdb

LOG_COLUMNS = {
    "ts": "TIMESTAMPTZ",
    "stream": "VARCHAR",
    "line": "VARCHAR",
    "base64": "VARCHAR",
    "partial": "BOOLEAN",
    "dropped_bytes": "BIGINT",
}
_ASKS_FOR_LOGS = re.compile(r"\blogs\b", re.IGNORECASE)


class Database:
    """The tables of one store over one span.

    Attributes:
        found: what the scan came upon.
    """

    def __init__(self, url: str, environ: Mapping[str, str], since: datetime | None) -> None:
        """Opens store and database; reads nothing.

        Args:
            url: of the store.
            environ: where `AGENT_STORE_*` is looked up.
            since: only lives that ended from then on; None for all.

        Raises:
            AgentError: DuckDB is not installed, or the store cannot be used.
        """
        try:
            import duckdb  # noqa: PLC0415 - an extra
        except ModuleNotFoundError:
            raise AgentError(f"cannot look at a fleet: duckdb is not installed; {how_to_install('fleet')}") from None
        self._scanner = Scanner(url, environ, since)
        self._since = since
        self._files = tempfile.TemporaryDirectory(prefix="arbitrium-fleet-")
        self.connection: duckdb.DuckDBPyConnection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")

    def __enter__(self) -> Self:
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Takes database and files away."""
        self.connection.close()
        self._files.cleanup()

    @property
    def found(self) -> Found:
        """What the scan came upon."""
        return self._scanner.found

    @property
    def shown(self) -> str:
        """The store, for people."""
        return self._scanner.shown

    async def load(self) -> None:
        """Reads the lives into the table `exits`. Raises AgentError."""
        path = f"{self._files.name}/exits.ndjson"
        with open(path, "wb") as file:  # noqa: ASYNC230 - nobody else waits for this loop
            async for rows in self._scanner.rows():
                file.writelines(map(line, rows))
        source = read_json(path, {name: kind for name, (kind, _) in COLUMNS.items()})
        wanted = "" if self._since is None else f"WHERE ended >= TIMESTAMPTZ '{self._since.isoformat()}'"
        self.connection.execute(f"CREATE TABLE exits AS SELECT * FROM {source} {wanted}")  # noqa: S608 - all of it is our own
        os.unlink(path)

    async def load_logs(self) -> None:
        """Makes the view `logs`: the lines of all lives in `exits`, with the directory they belong to.

        Segments of a directory on this machine are read where they are, those of a store from copies that go away at
        the end. Raises AgentError.
        """
        directories = [name for (name,) in self.connection.execute("SELECT directory FROM exits").fetchall()]
        keys = await self._scanner.segments(directories)
        if self._scanner.local is not None:
            paths = [f"{self._scanner.local}/{key}" for key in keys]
            cut = len(self._scanner.local) + 1
        else:
            paths = [f"{self._files.name}/{key}" for key in keys]
            cut = len(self._files.name) + 1
            for first in range(0, len(keys), AT_ONCE):
                some = list(zip(keys, paths, strict=True))[first : first + AT_ONCE]
                await asyncio.gather(*(self._copy(key, path) for key, path in some))
        if not paths:
            columns = ", ".join(f"NULL::{kind} AS {name}" for name, kind in LOG_COLUMNS.items())
            self.connection.execute(f"CREATE VIEW logs AS SELECT NULL::VARCHAR AS directory, {columns} WHERE false")
            return
        source = read_json(paths, LOG_COLUMNS, "compression = 'zstd', filename = true, maximum_object_size = 16777216")
        self.connection.execute(
            f"CREATE VIEW logs AS SELECT regexp_replace(substr(filename, {cut + 1}), '/[^/]*$', '') AS directory, "  # noqa: S608 - as above
            f"* EXCLUDE (filename) FROM {source}"
        )

    async def _copy(self, key: str, path: str) -> None:
        content = await self._scanner.get(key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:  # noqa: ASYNC230 - as above
            file.write(content or b"")

    async def query(self, sql: str) -> duckdb.DuckDBPyConnection:
        """Runs SQL; log segments are read only where it names `logs`.

        Raises:
            AgentError: it is wrong; the message is DuckDB's.
        """
        import duckdb  # noqa: PLC0415 - an extra

        if _ASKS_FOR_LOGS.search(sql):
            await self.load_logs()
        try:
            return self.connection.execute(sql)
        except duckdb.Error as wrong:
            raise AgentError(
                f"cannot run the query: {wrong}; the tables are exits and logs, and DESCRIBE exits lists the columns"
            ) from None

    def all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of one of our own queries."""
        return self.connection.execute(sql, list(values)).fetchall()


def read_json(path: str | list[str], columns: Mapping[str, str], more: str = "") -> str:
    """The call of DuckDB's that reads lines of JSON with these columns, which are our own words."""
    shape = ", ".join(f"{name}: {_quoted(kind)}" for name, kind in columns.items())
    paths = _quoted(path) if isinstance(path, str) else f"[{', '.join(_quoted(one) for one in path)}]"
    return f"read_json({paths}, format = 'newline_delimited', columns = {{{shape}}}{', ' if more else ''}{more})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
