"""Endpoint storages: where a deployment's logs go after its stop."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from agent.emulator.deployment import Deployment, KeptLogs
from agent.emulator.models import StorageBody

if TYPE_CHECKING:
    from obstore.store import S3Store

log = logging.getLogger(__name__)
UPLOAD_SECONDS = 30.0
"""Longest that an upload holds a deployment in `TERMINATING`."""
LINK_SECONDS = 7 * 24 * 3600
"""How long the signed link of an S3 storage is valid: the longest that S3 signs for."""


async def keep_logs(deployment: Deployment, storage: StorageBody) -> KeptLogs:
    """Write a deployment's logs, and those of its last crash, to a storage.

    The objects are `APPLICATION/VERSION/REQUEST_ID.log` and `….crash.log`, or `.ndjson`. An endpoint with the scheme
    `file` is a directory; its bucket is a folder in it.

    Raises:
        Exception: whatever the store says; the caller reports it, as nothing better can be done.
    """
    book = deployment.container_log
    ndjson = storage.output_format == "NDJSON"
    folder = f"{_safe(deployment.request.application)}/{_safe(deployment.request.version)}"
    key, crash_key = f"{folder}/{deployment.id}{'.ndjson' if ndjson else '.log'}", None
    async with asyncio.timeout(UPLOAD_SECONDS):
        link = await _put(storage, key, book.ndjson() if ndjson else book.text())
        if deployment.crash_logs is not None:
            crash_key = f"{folder}/{deployment.id}.crash.log"
            await _put(storage, crash_key, deployment.crash_logs)
    return KeptLogs(storage, key, crash_key, link)


async def read_logs(kept: KeptLogs) -> tuple[str | None, str | None]:
    """The logs and the crash logs that a storage has; None for those that are gone from it or out of reach."""
    found: list[str | None] = []
    for key in (kept.key, kept.crash_key):
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                found.append((await _get(kept.storage, key)).decode(errors="replace") if key else None)
        except Exception as error:
            # Whatever a store can say: the rest of the answer is worth having.
            log.warning("cannot read %s from storage %s: %s", key, kept.storage.name, type(error).__name__)
            found.append(None)
    return found[0], found[1]


def _safe(name: str) -> str:
    """A name as one part of a path: no separators, and neither `.` nor `..`."""
    kept = "".join(character if character.isalnum() or character in "-_.+ " else "_" for character in name)
    return "_" + kept[1:] if kept.startswith(".") else kept or "_"


def _is_directory(storage: StorageBody) -> bool:
    return urlsplit(storage.endpoint).scheme.lower() == "file"


def _path(storage: StorageBody, key: str) -> str:
    """The file of an object, in a storage that is a directory."""
    return os.path.join(unquote(urlsplit(storage.endpoint).path), storage.bucket.strip("/"), key)


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "wb") as file:
        file.write(data)
    os.replace(path + ".part", path)  # a reader never sees half a file


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


async def _put(storage: StorageBody, key: str, data: bytes) -> str:
    """Write an object; returns a link to it, signed where that is possible."""
    if _is_directory(storage):
        await asyncio.to_thread(_write, _path(storage, key), data)
        return f"file://{quote(_path(storage, key))}"
    import obstore  # noqa: PLC0415 - 5.6 MB of native code that most runs never need

    store = _s3(storage)
    await obstore.put_async(store, key, data)
    return await obstore.sign_async(store, "GET", key, timedelta(seconds=LINK_SECONDS))


async def _get(storage: StorageBody, key: str) -> bytes:
    """Read an object."""
    if _is_directory(storage):
        return await asyncio.to_thread(_read, _path(storage, key))
    import obstore  # noqa: PLC0415 - see `_put`

    return bytes(await (await obstore.get_async(_s3(storage), key)).bytes_async())


def _s3(storage: StorageBody) -> S3Store:
    from obstore.store import S3Store  # noqa: PLC0415 - see `_put`

    return S3Store(
        storage.bucket,
        endpoint=storage.endpoint,
        access_key_id=storage.access_key_id,
        secret_access_key=storage.secret_access_key,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=20)},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )
