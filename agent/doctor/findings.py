"""The result of a check: a level, a sentence, and what to do. Standard library only, as all of this package."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"  # worth knowing
    WARNING = "warning"  # may go wrong, or costs something when it does
    ERROR = "error"  # will fail


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, one word for programs.
        level: how bad it is.
        message: one sentence; from a warning on it says what cannot be done or goes wrong.
        remedy: what to do; empty where there is nothing to do.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self) | {"level": self.level.value}

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.level.value:<8} {self.message}" + (f"; {self.remedy}" if self.remedy else "")


def ok(check: str, message: str) -> Finding:
    """Something is as it should be."""
    return Finding(check, Level.OK, message)


def note(check: str, message: str, remedy: str = "") -> Finding:
    """Something is worth knowing."""
    return Finding(check, Level.NOTE, message, remedy)


def warning(check: str, message: str, remedy: str) -> Finding:
    """Something may go wrong."""
    return Finding(check, Level.WARNING, message, remedy)


def error(check: str, message: str, remedy: str) -> Finding:
    """Something will fail."""
    return Finding(check, Level.ERROR, message, remedy)


def failed(findings: list[Finding], *, strict: bool = False) -> bool:
    """Whether something will fail (or, if strict, may go wrong)."""
    bad = {Level.ERROR, Level.WARNING} if strict else {Level.ERROR}
    return any(finding.level in bad for finding in findings)
