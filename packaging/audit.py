"""`make audit`: known vulnerabilities and licences of what is locked. Advisories need a network; without one it says so."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

from engines import ROOT

# Of the locked runtime dependencies; anything else is for a person to look at, and then for this list.
ACCEPTED = re.compile(
    r"\b(MIT|BSD|Apache|PSF|Python Software Foundation|ISC|MPL|Mozilla Public|Unlicense|0BSD|HPND)", re.IGNORECASE
)
UNREACHABLE = re.compile(r"ConnectionError|NewConnectionError|NameResolution|Timeout|ProxyError|SSLError|MaxRetryError")


def locked(name: str) -> list[str]:
    """The names in a lock file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)


def licence_of(name: str) -> str:
    """What a package says it is under."""
    fields = metadata.metadata(name)
    stated = fields.get("License-Expression") or fields.get("License") or ""
    named = [line.rpartition(" :: ")[2] for line in fields.get_all("Classifier") or [] if line.startswith("License ::")]
    return stated.splitlines()[0] if stated.strip() else ", ".join(named)


def licences() -> list[str]:
    """The packages whose licence is not one of those accepted, or not known."""
    wrong = []
    for name in [*locked("requirements.lock"), *locked("requirements-query.lock")]:
        try:
            stated = licence_of(name)
        except metadata.PackageNotFoundError:
            continue  # locked for another platform
        if not ACCEPTED.search(stated):
            wrong.append(f"{name}: {stated or 'states no licence'}")
    return wrong


def advisories() -> int:
    """Asks for known vulnerabilities; 0 where there are none or nobody could be asked."""
    failed = 0
    for lock in ("requirements.lock", "requirements-query.lock"):
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner=off",
             "--requirement", str(ROOT / lock)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0 and UNREACHABLE.search(done.stderr):
            print(f"{lock}: NOT AUDITED, the advisories cannot be reached from here; run it where they can")
            continue
        print(f"{lock}: {(done.stdout + done.stderr).strip()}")
        failed = failed or done.returncode
    return failed


def main() -> int:
    """Prints both; returns the exit code."""
    wrong = licences()
    for line in wrong:
        print(f"cannot accept the licence of {line}; look at it, and add it to packaging/audit.py")
    if not wrong:
        print("licences: all of the locked packages are under accepted ones")
    return 1 if advisories() or wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
