"""The stores that logs are shipped to: object storage and directories through obstore, and plain HTTP PUT.

Imported late: obstore costs memory and 10 to 40 ms.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, Protocol

from agent.errors import LEAVING
from agent.logs.target import KEY, Target, store_config

if TYPE_CHECKING:
    import aiohttp
    from obstore.store import ObjectStore


class StoreError(Exception):
    """A store did not accept an object.

    Attributes:
        final: whether retrying is useless until the configuration is changed (wrong key, no such bucket).
    """

    def __init__(self, message: str, *, final: bool) -> None:
        """Makes the error.

        Args:
            message: one line for people, without secrets.
            final: as the attribute.
        """
        super().__init__(message)
        self.final = final


class Store(Protocol):
    """The interface of a store for shipping. Keys are paths with slashes below the target's base."""

    async def put(self, key: str, data: bytes) -> None:
        """Stores an object atomically; it is confirmed when this returns.

        Raises:
            StoreError: it is not stored.
        """

    async def put_file(self, key: str, file: IO[bytes]) -> None:
        """Stores a whole file; as `put`."""

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """Stores an object of unknown size; if the store permits, without holding all of it in memory. As `put`."""

    async def close(self) -> None:
        """Lets connections go."""


def open_store(target: Target, environ: Mapping[str, str] | None = None) -> Store:
    """The store for a target.

    Args:
        target: where to upload.
        environ: where `AGENT_STORE_*` is looked up; the process's own environment by default, which is also where
            the stores look for their usual variables.

    Raises:
        StoreError: a part of the configuration is missing or wrong.
    """
    if target.kind == "http":
        return HttpStore(target.base)
    return ObstoreStore(target, os.environ if environ is None else environ)


class ObstoreStore:
    """S3, GCS, Azure or a directory."""

    def __init__(self, target: Target, environ: Mapping[str, str]) -> None:
        """Opens it; nothing is sent yet. Raises StoreError."""
        self._directory = target.base.partition("://")[2] if target.kind == "file" else None
        if self._directory is not None:
            with contextlib.suppress(OSError):  # errors are reported when an object is put there
                os.makedirs(self._directory, 0o700, exist_ok=True)
        self.raw = open_obstore(target, environ)

    async def put(self, key: str, data: bytes) -> None:
        """As `Store`."""
        import obstore  # noqa: PLC0415 - late, see above

        try:
            await obstore.put_async(self.raw, key, data, use_multipart=False)
        except Exception as problem:
            raise explain(problem) from None
        self._protect(key)

    async def put_file(self, key: str, file: IO[bytes]) -> None:
        """As `Store`."""
        file.seek(0)
        await self.put(key, file.read())

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """As `Store`; a multipart upload of parts of 5 MiB, two at a time."""
        import obstore  # noqa: PLC0415 - late, see above

        try:
            await obstore.put_async(self.raw, key, pieces, use_multipart=True, max_concurrency=2)
        except Exception as problem:
            raise explain(problem) from None
        self._protect(key)

    def _protect(self, key: str) -> None:
        """Lets only the agent's user read the files in a directory, because a log may contain secrets."""
        if self._directory is not None:
            with contextlib.suppress(OSError):
                os.chmod(f"{self._directory}/{key}", 0o600, follow_symlinks=True)

    async def close(self) -> None:
        """Does nothing: the connections end with the object."""


class HttpStore:
    """PUT to a URL: a server that takes files, or a presigned URL."""

    def __init__(self, url: str) -> None:
        """Opens nothing yet.

        Args:
            url: the key replaces `{key}` or is added to the path; a presigned URL is used unchanged.
        """
        self._url = url
        self._session: aiohttp.ClientSession | None = None

    def address(self, key: str) -> str:
        """The URL of an object."""
        if KEY in self._url:
            return self._url.replace(KEY, key)
        return self._url if "?" in self._url else f"{self._url}/{key}"

    async def put(self, key: str, data: bytes | IO[bytes]) -> None:
        """As `Store`."""
        from urllib.parse import quote  # noqa: PLC0415 - late, see above

        import aiohttp  # noqa: PLC0415 - late, see above
        from yarl import URL  # noqa: PLC0415 - comes with aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=10))
        url = URL(self.address(quote(key)), encoded=True)
        headers = {"Content-Type": "application/octet-stream"}
        if (url.host or "").endswith(".blob.core.windows.net"):
            headers["x-ms-blob-type"] = "BlockBlob"  # Azure refuses a PUT without it
        try:
            async with self._session.put(url, data=data, headers=headers, allow_redirects=False) as answer:
                status, text = answer.status, (await answer.content.read(300)).decode("utf-8", "replace")
        except (aiohttp.ClientError, OSError) as problem:
            raise StoreError(f"{type(problem).__name__}: {problem}", final=False) from None
        if not 200 <= status < 300:
            busy = status in (408, 425, 429) or status >= 500
            raise StoreError(f"the server answered {status}: {' '.join(text.split())}", final=not busy)

    async def put_file(self, key: str, file: IO[bytes]) -> None:
        """As `Store`."""
        file.seek(0)
        # aiohttp closes the file that it sends; it may be needed for another attempt.
        with (
            os.fdopen(os.dup(file.fileno()), "rb")
            if not isinstance(file, io.BytesIO)
            else io.BytesIO(file.read()) as own
        ):
            await self.put(key, own)

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """As `Store`; collected first, because a presigned PUT needs a Content-Length."""
        parts = [bytes(piece) async for piece in pieces]
        await self.put(key, b"".join(parts))

    async def close(self) -> None:
        """As `Store`."""
        if self._session is not None:
            await self._session.close()
            self._session = None


# Options of the HTTP client, as named in obstore's ClientConfig.
_CLIENT_OPTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_url",
    "timeout",
    "user_agent",
)


def open_obstore(target: Target, environ: Mapping[str, str]) -> ObjectStore:
    """The obstore object for a target that is not an http URL; also used for reading. Raises StoreError."""
    from obstore.store import LocalStore, from_url  # noqa: PLC0415 - late, see above

    try:
        if target.kind == "file":
            return LocalStore.from_url(target.base, mkdir=True)
        config: Any = store_config(environ)
        # obstore panics when it finds one of these among the options of the store itself (0.12).
        client: Any = {"allow_http": _is_plain(environ), "connect_timeout": "5s", "timeout": "10m"}
        client |= {name: config.pop(name) for name in _CLIENT_OPTIONS if name in config}
        if target.kind == "s3" and "access_key_id" in config and not {"token", "session_token"} & config.keys():
            # A session token in the environment belongs to other keys, and would make every signature invalid.
            config["token"] = ""
        return from_url(
            target.base,
            config=config,
            client_options=client,
            retry_config={
                "max_retries": 2,
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=1),
                    "base": 2,
                },
                "retry_timeout": timedelta(seconds=20),
            },
        )
    except LEAVING:
        raise
    except BaseException as problem:  # a panic of the library is not an Exception
        raise explain(problem) from None


def _is_plain(environ: Mapping[str, str]) -> bool:
    """Whether an endpoint is plain http, common for a store in the same network; it has to be allowed explicitly."""
    return any(
        value.startswith("http://") and ("ENDPOINT" in name or name.endswith("_BASE_URL"))
        for name, value in environ.items()
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "AGENT_STORE_"))
    )


def explain(problem: BaseException) -> StoreError:
    """The exception of obstore as one line for people, and whether it is final."""
    from obstore import exceptions  # noqa: PLC0415 - late, see above

    final = isinstance(
        problem,
        (
            exceptions.PermissionDeniedError,
            exceptions.UnauthenticatedError,
            exceptions.NotFoundError,
            exceptions.InvalidPathError,
            exceptions.NotSupportedError,
            exceptions.UnknownConfigurationKeyError,
            ValueError,  # an invalid key
        ),
    )
    return StoreError(_short(str(problem)) or type(problem).__name__, final=final)


def _short(text: str) -> str:
    """The message of obstore without its repetitions: the server's own words, if there are any."""
    line = " ".join(text.partition("\n\nDebug source:")[0].split())
    status = re.search(r"status code: (\d{3}[^:]*)", line)
    code = re.search(r"<Code>([^<]*)</Code>", line)
    message = re.search(r"<Message>([^<]*)</Message>", line)
    if status is not None:
        return ": ".join(part.group(1).strip() for part in (status, code, message) if part is not None)
    return line[:300]
