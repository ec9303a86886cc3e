"""`make bump`: moves what a build is pinned to: the base image's digest, and the interpreter's source package."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from engines import HERE, base, find, output

# What packaging/python.sh does before it loads the source, without loading it.
SOURCES = """
for list in /etc/apt/sources.list.d/*.sources; do
  [ ! -e "$list" ] || sed -i 's/^Types: deb$/Types: deb deb-src/' "$list"
done
old=/etc/apt/sources.list
[ ! -e "$old" ] || sed -n 's/^deb /deb-src /p' "$old" >"$old.d/sources.list"
apt-get update -qq && apt-get source -qq --print-uris "$1"
"""
_PRINTED = re.compile(r"^'[^']*' (\S+) \d+ SHA256:([0-9a-f]{64})$", re.MULTILINE)


def digest_of(engine: str, image: str) -> str | None:
    """The digest that a registry has for an image today; None for one that comes from no registry."""
    if subprocess.run([engine, "pull", image], capture_output=True, check=False).returncode != 0:
        return None
    shown = json.loads(output(engine, "image", "inspect", image))
    digests = [str(each) for each in shown[0].get("RepoDigests") or []]
    return digests[0].partition("@")[2] if digests else None


def sources(printed: str) -> str:
    """The lines of sources.sha256 from what apt prints, signatures left out."""
    found = [(name, sha256) for name, sha256 in _PRINTED.findall(printed) if not name.endswith(".asc")]
    if not any(name.endswith(".dsc") for name, _ in found):
        raise SystemExit("cannot read the source package's hashes: apt printed none")
    return "".join(f"{sha256}  {name}\n" for name, sha256 in found)


def write(path: Path, text: str) -> None:
    """Writes a file and says whether that changed it."""
    changed = path.read_text(encoding="utf-8") != text
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {'changed; look at the difference and commit it' if changed else 'as it was'}")


def main() -> None:
    """Writes bases.env and sources.sha256."""
    engine, name = find(), base().partition("@")[0]
    digest = digest_of(engine, name)
    if digest is None:
        print(f"cannot find the digest of {name}: it comes from no registry here; packaging/bases.env stays as it is")
    else:
        text = (HERE / "bases.env").read_text(encoding="utf-8")
        write(HERE / "bases.env", re.sub(r"^BASE=.*$", f"BASE={name}@{digest}", text, flags=re.MULTILINE))
    package = re.search(r"(python3\.\d+)_", (HERE / "sources.sha256").read_text(encoding="utf-8"))
    assert package is not None
    printed = output(engine, "run", "--rm", name, "sh", "-c", SOURCES, "sh", package[1])
    write(HERE / "sources.sha256", sources(printed))


if __name__ == "__main__":
    main()
