"""The versions file: initial applications, versions and storages; errors are reported with their lines."""

from __future__ import annotations

import difflib
import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from agent.emulator.models import ApplicationBody, StorageBody, Strict, VersionBody
from agent.emulator.reading import inner_model, where
from agent.emulator.toml_lines import Path, line_of, value_lines


class FileVersion(VersionBody):
    """A version as the file has it: without an image where its game is a process."""

    docker_repository: str = ""
    docker_image: str = ""
    docker_tag: str = ""


class FileApplication(ApplicationBody):
    """`[[applications]]`."""

    is_active: bool = True
    image: str = ""
    versions: list[FileVersion] = Field(default_factory=list)


class VersionsFile(Strict):
    """The whole file."""

    applications: list[FileApplication] = Field(default_factory=list)
    storages: list[StorageBody] = Field(default_factory=list)


@dataclass(frozen=True, order=True)
class Finding:
    """One thing about a file."""

    line: int
    message: str
    error: bool = True
    """False for what is allowed and probably not meant."""

    def shown(self, path: str) -> str:
        """As compilers write it, so that editors can follow it."""
        return f"{path}:{self.line}: {'' if self.error else 'perhaps: '}{self.message}"


def load(path: str) -> VersionsFile:
    """Read a versions file.

    Raises:
        ValueError: it has mistakes; the message has every one of them, with its line.
    """
    findings, parsed = examine(path)
    if parsed is None:
        errors = [finding.shown(path) for finding in findings if finding.error]
        raise ValueError("cannot use the versions file:\n" + "\n".join(errors))
    return parsed


def examine(path: str) -> tuple[list[Finding], VersionsFile | None]:
    """Everything about a versions file, by line; the file itself when it can be used."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        return [Finding(1, f"cannot read the file: {error.strerror}; check its name")], None
    except UnicodeDecodeError:
        return [Finding(1, "cannot read the file: it is not UTF-8; save it as UTF-8")], None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+)", str(error))
        return [
            Finding(int(place[1]) if place else text.rstrip().count("\n") + 1, f"cannot read this as TOML: {error}")
        ], None
    lines = value_lines(text)
    wrong = [*_unknown(document, VersionsFile, ()), *_twice(document, ())]
    findings = [Finding(line_of(lines, place), message) for place, message in wrong]
    try:
        parsed = VersionsFile.model_validate(document)
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            message = fault["msg"].removeprefix("Value error, ")
            got = "" if _unsaid(fault) else f" (got {fault['input']!r})"
            findings.append(Finding(line_of(lines, fault["loc"]), f"{where(fault['loc'])}: {message}{got}"))
        return sorted(findings), None
    if findings:
        return sorted(findings), None
    findings += [Finding(line_of(lines, place), message, error=False) for place, message in _doubts(parsed)]
    return sorted(findings), parsed


def _unsaid(fault: ErrorDetails) -> bool:
    """Whether the value at fault had better not be repeated: there is none, it is long, or it is a secret."""
    secret = bool({"secret_access_key", "private_token", "value"} & set(fault["loc"]))
    return secret or fault["type"] == "missing" or isinstance(fault["input"], dict | list)


def _unknown(value: Any, model: type[BaseModel], path: Path) -> list[tuple[Path, str]]:
    """Members that nobody reads: most often misspelt."""
    if not isinstance(value, dict):
        return []
    found: list[tuple[Path, str]] = []
    for name, member in value.items():
        place = (*path, name)
        if name not in model.model_fields:
            near = difflib.get_close_matches(name, model.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(model.model_fields)}"
            found.append((place, f"{where(place)}: there is no such setting; {hint}"))
            continue
        inner = inner_model(model, name)
        if inner is not None and isinstance(member, list):
            for index, each in enumerate(member):
                found += _unknown(each, inner, (*place, index))
    return found


def _twice(value: Any, path: Path) -> list[tuple[Path, str]]:
    """Applications, versions and storages that are there under one name twice."""
    found: list[tuple[Path, str]] = []
    for label in ("applications", "versions", "storages"):
        members = value.get(label) if isinstance(value, dict) else None
        names: list[Any] = []
        for index, each in enumerate(members if isinstance(members, list) else []):
            place = (*path, label, index)
            name = each.get("name") if isinstance(each, dict) else None
            if name is not None and name in names:
                found.append(((*place, "name"), f"{where(place)}.name: there is another {name}; choose another name"))
            names.append(name)
            found += _twice(each, place)
    return found


def _doubts(parsed: VersionsFile) -> list[tuple[Path, str]]:
    """What is allowed, and will probably not do what was meant."""
    found: list[tuple[Path, str]] = []
    if not parsed.applications:
        found.append(((), "there is no [[applications]]; nothing can be deployed"))
    storages = {each.name for each in parsed.storages}
    for number, application in enumerate(parsed.applications):
        for position, version in enumerate(application.versions):
            path: Path = ("applications", number, "versions", position)
            found += [(path + place, message) for place, message in _doubts_of(version, storages)]
    return found


def _doubts_of(version: FileVersion, storages: set[str]) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    if version.command:
        try:
            program = shlex.split(version.command)[0]
        except (ValueError, IndexError):
            found.append((("command",), f"command of {version.name} cannot be split into words; check its quotes"))
        else:
            if shutil.which(program) is None:
                found.append((("command",), f"command of {version.name}: {program} is not on this machine's PATH"))
    elif not version.docker_image:
        found.append(((), f"version {version.name} has neither a command nor a docker_image; it cannot run"))
    if version.endpoint_storage and version.endpoint_storage not in storages:
        found.append(
            (
                ("endpoint_storage",),
                f"endpoint_storage of {version.name}: this file has no storage {version.endpoint_storage}",
            )
        )
    if not version.ports:
        found.append(((), f"version {version.name} has no ports; players cannot reach it"))
    for index, port in enumerate(version.ports):
        if not port.name:
            found.append((("ports", index), f"port {port.port} of {version.name} has no name; it goes by its number"))
    return found
