"""The state that survives a restart: applications, versions and storages, in one JSON file."""

from __future__ import annotations

import json
import os
from typing import Any

from pydantic import ValidationError

from agent.emulator.platform import Platform
from agent.emulator.versions_file import VersionsFile, load


def use_versions_file(platform: Platform, path: str) -> None:
    """Take a versions file over what is there already.

    Raises:
        ValueError: it has mistakes.
    """
    _take(platform, load(path))


def keep_in(platform: Platform, path: str) -> None:
    """Read a state file, if there is one, and write it after every change from now on.

    Raises:
        ValueError: it is there and cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            _take(platform, VersionsFile.model_validate_json(file.read()))
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ValueError(f"cannot read the state file {path}: {reason}; move it away to begin anew") from None
    platform.catalogue.on_change(lambda: _write(platform, path))


def _take(platform: Platform, file: VersionsFile) -> None:
    for storage in file.storages:
        platform.catalogue.put_storage(storage)
    for application in file.applications:
        platform.catalogue.put_application(application, application.versions)


def _write(platform: Platform, path: str) -> None:
    """Replace the file as a whole; it holds secrets, so only its owner may read it."""
    document: dict[str, Any] = {
        "applications": [
            {
                **each.body.model_dump(exclude_none=True),
                "versions": [version.body.model_dump(exclude_none=True) for version in each.versions.values()],
            }
            for each in platform.catalogue.applications.values()
        ],
        "storages": [each.body.model_dump() for each in platform.catalogue.storages.values()],
    }
    part = f"{path}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    os.replace(part, path)
