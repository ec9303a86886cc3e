"""Endpoint storages: where a deployment's logs go after its stop."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from urllib.parse import unquote, urlsplit

from agent.emulator.deployment import Deployment, KeptLogs
from agent.emulator.models import StorageBody

UPLOAD_SECONDS = 30.0
"""Longest that an upload holds a deployment in `TERMINATING`."""
LINK_SECONDS = 7 * 24 * 3600
"""How long the signed link of an S3 storage is valid: the longest that S3 signs for."""
SUFFIXES = {"TEXT": ".log", "NDJSON": ".ndjson"}


async def keep_logs(deployment: Deployment, storage: StorageBody) -> KeptLogs:
    """Write a deployment's logs, and those of its last crash, to a storage.

    The objects are `APPLICATION/VERSION/REQUEST_ID.log` and `….crash.log`, or `.ndjson`. An endpoint with the scheme
    `file` is a directory; its bucket is a folder in it.

    Raises:
        Exception: whatever the store says; the caller reports it, as nothing better can be done.
    """
    book, suffix = deployment.logbook, SUFFIXES[storage.output_format]
    ndjson = storage.output_format == "NDJSON"
    logs = book.ndjson() if ndjson else book.text()
    folder = f"{_safe(deployment.request.application)}/{_safe(deployment.request.version)}"
    objects = {f"{folder}/{deployment.id}{suffix}": logs}
    if deployment.crash_logs is not None:
        objects[f"{folder}/{deployment.id}.crash.log"] = deployment.crash_logs
    async with asyncio.timeout(UPLOAD_SECONDS):
        if urlsplit(storage.endpoint).scheme.lower() == "file":
            links = await asyncio.to_thread(_write, storage, objects)
        else:
            links = await _upload(storage, objects)
    crash_logs = deployment.crash_logs
    return KeptLogs(
        logs=logs.decode(errors="replace"),
        crash_logs=crash_logs.decode(errors="replace") if crash_logs is not None else None,
        link=links[0],
    )


def _safe(name: str) -> str:
    """A name as one part of a path: no separators, and neither `.` nor `..`."""
    kept = "".join(character if character.isalnum() or character in "-_.+ " else "_" for character in name)
    return "_" + kept[1:] if kept.startswith(".") else kept or "_"


def _write(storage: StorageBody, objects: dict[str, bytes]) -> list[str]:
    """Files below a directory; returns their `file://` URLs."""
    root = os.path.join(unquote(urlsplit(storage.endpoint).path), storage.bucket.strip("/"))
    links = []
    for key, data in objects.items():
        path = os.path.join(root, key)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".part", "wb") as file:
            file.write(data)
        os.replace(path + ".part", path)  # a reader never sees half a file
        links.append(f"file://{path}")
    return links


async def _upload(storage: StorageBody, objects: dict[str, bytes]) -> list[str]:
    """Objects of an S3-compatible bucket; returns signed links."""
    import obstore  # noqa: PLC0415 - 5.6 MB of native code that most runs never need
    from obstore.store import S3Store  # noqa: PLC0415 - likewise

    store = S3Store(
        storage.bucket,
        endpoint=storage.endpoint,
        access_key_id=storage.access_key_id,
        secret_access_key=storage.secret_access_key,
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=20)},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )
    links = []
    for key, data in objects.items():
        await obstore.put_async(store, key, data)
        links.append(await obstore.sign_async(store, "GET", key, timedelta(seconds=LINK_SECONDS)))
    return links
