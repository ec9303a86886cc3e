"""`make audit`: known vulnerabilities and licences of what is locked. Says so where advisories cannot be reached."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata

from engines import ROOT

# Of the locked runtime dependencies; anything else is for a person to look at, and then for this list.
ACCEPTED = re.compile(
    r"\b(MIT|BSD|Apache|PSF|Python Software Foundation|ISC|MPL|Mozilla Public|Unlicense|0BSD|HPND)", re.IGNORECASE
)


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
             "--format=json", "--requirement", str(ROOT / lock)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        try:
            packages = json.loads(done.stdout)["dependencies"]
        except ValueError:
            reason = done.stderr.strip().splitlines()[-1:] or ["no answer"]
            print(f"{lock}: NOT AUDITED, the advisories cannot be reached from here ({reason[0]})")
            continue
        # An index without the advisories answers that it does not know the package.
        asked = [package for package in packages if "skip_reason" not in package]
        if len(asked) < len(packages):
            print(
                f"{lock}: NOT AUDITED for {len(packages) - len(asked)} of {len(packages)} packages: no advisories here"
            )
        for package in asked:
            for found in package["vulns"]:
                failed = 1
                print(
                    f"{lock}: {package['name']} {package['version']}: {found['id']}, mended in {found['fix_versions']}"
                )
        if asked and not failed:
            print(f"{lock}: no known vulnerabilities in {len(asked)} packages")
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
