"""Reads the arguments of `arbitrium-agent platform`, and the files and variables named in them."""

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.edgegap import models, settings
from agent.errors import AgentError


class UsageError(AgentError):
    """The command line, or a file it names, is wrong; nothing was asked."""


def version(args: argparse.Namespace) -> models.Version:
    """Put a version together from `--file` and the options, which win.

    Raises:
        UsageError: something is wrong or missing.
    """
    body: dict[str, Any] = {}
    if args.file:
        try:
            body = json.loads(_read_text(args.file))
        except ValueError as error:
            raise UsageError(f"cannot read {args.file}: it is not JSON ({error}); correct it") from None
        if not isinstance(body, dict):
            raise UsageError(f"cannot read {args.file}: it holds no JSON object; write one version in it")
    given: dict[str, Any] = {
        "name": args.name,
        "req_cpu": args.cpu,
        "req_memory": args.memory,
        "restart_policy": args.restart_policy,
        "termination_grace_period_seconds": args.grace,
        "max_duration": args.max_duration,
        "time_to_deploy": args.time_to_deploy,
        "endpoint_storage": args.storage,
        "command": args.command,
        "arguments": args.arguments,
        "private_username": args.private_username,
        "private_token": _registry_token() if args.private_username else None,
        "verify_image": args.verify_image,
        "ports": [_port(text) for text in args.port] or None,
        "envs": [variable.model_dump() for variable in variables(args)] or None,
    }
    if args.image:
        given |= _image(args.image)
    body |= {key: value for key, value in given.items() if value is not None}
    try:
        made = models.Version.model_validate(body)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise UsageError(f"cannot create the version: {wrong}; correct it") from None
    missing = [
        option
        for option, value in (
            ("--image", made.docker_image),
            ("--cpu", made.req_cpu),
            ("--memory", made.req_memory),
        )
        if not value
    ]
    if missing:
        raise UsageError(f"cannot create the version without {', '.join(missing)}: give them, or a --file")
    return made


def _image(text: str) -> dict[str, str]:
    """Split an image as Docker does: the first part is a registry if it looks like a host."""
    head, slash, rest = text.partition("/")
    registry, name = (
        (head, rest) if slash and ("." in head or ":" in head or head == "localhost") else ("docker.io", text)
    )
    image, colon, tag = name.rpartition(":")
    if not colon or not image or not tag:
        raise UsageError(f"cannot use {text!r} as an image: it has no tag; write IMAGE:TAG")
    return {"docker_repository": registry, "docker_image": image, "docker_tag": tag}


def _port(text: str) -> dict[str, Any]:
    name, _, rest = text.rpartition(":")
    number, _, protocol = rest.partition("/")
    if not number.isdigit() or not protocol:
        raise UsageError(f"cannot use {text!r} as a port: write NAME:PORT/PROTOCOL, such as gameport:7777/UDP")
    return {"port": int(number), "protocol": protocol} | ({"name": name} if name else {})


def variables(args: argparse.Namespace) -> list[models.Variable]:
    """Read `--env` and `--hidden-env`; without a value, the variable is passed on from here.

    Raises:
        UsageError: it is not set here.
    """
    found = []
    for text, hidden in [(text, False) for text in args.env] + [(text, True) for text in args.hidden_env]:
        key, equals, value = text.partition("=")
        if not equals:
            value = os.environ.get(key, "")
        if not key or (not equals and key not in os.environ):
            raise UsageError(f"cannot pass on {key!r}: it is not set here; write KEY=VALUE")
        found.append(models.Variable(key=key, value=value, is_hidden=hidden))
    return found


def coordinates(text: str) -> tuple[float, float]:
    """Read LAT,LON in degrees.

    Raises:
        UsageError: it is no place on Earth.
    """
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError:
        latitude = longitude = float("nan")
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise UsageError(f"cannot use {text!r} as a place: write degrees as LAT,LON, such as --at=45.5,-73.6")
    return latitude, longitude


def moment(option: str, text: str | None) -> datetime | None:
    """Read a time in ISO 8601; UTC where it names no zone.

    Raises:
        UsageError: it cannot be read.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"cannot use {text!r} as {option}: write ISO 8601, such as 2026-04-01T12:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def read_file(path: str) -> bytes:
    """Read a file that the user named.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; name a file that can be read") from None


def _registry_token() -> str | None:
    token = settings.load().registry_token
    return token.get_secret_value() if token is not None else None


def _read_text(path: str) -> str:
    try:
        return read_file(path).decode()
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {path}: it is not UTF-8 text; name another file") from None


def storage_secret(args: argparse.Namespace) -> str:
    """Get the secret access key of a storage from a file, stdin or the environment."""
    if not args.secret_file:
        return settings.load().storage_secret.get_secret_value().strip()
    from_stdin = args.secret_file == "-"  # noqa: S105 - the name of a file, not a secret
    return (sys.stdin.read() if from_stdin else _read_text(args.secret_file)).strip()
