"""Names the files in which two tarballs of a release differ: `compare.py A.tar.gz B.tar.gz`; exits 1 if any do."""

from __future__ import annotations

import hashlib
import sys
import tarfile


def contents(path: str) -> dict[str, str]:
    """What each entry is, without its date."""
    found = {}
    with tarfile.open(path) as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isreg() else None
            data = hashlib.sha256(file.read()).hexdigest() if file else entry.linkname
            found[entry.name] = f"{entry.type!r} {entry.mode:o} {entry.uid}:{entry.gid} {data}"
    return found


def main() -> int:
    """Prints the names; returns the exit code."""
    first, second = (contents(path) for path in sys.argv[1:3])
    differ = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    for name in differ:
        print(name)
    print(f"{len(differ)} of {len({*first, *second})} entries differ")
    return 1 if differ else 0


if __name__ == "__main__":
    raise SystemExit(main())
