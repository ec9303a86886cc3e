"""`make image`: builds the image with whichever engine is there, and prints what came of it.

`EXTRAS=agones` makes `arbitrium-agent:agones` instead of `:latest`, with gRPC for games of Agones in it.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
import time
import zlib
from pathlib import Path

from engines import ROOT, base, build, copy_out, find
from sbom import version_of


def revision() -> str:
    """The commit of this checkout, "" outside of one."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def layer_size(directory: Path) -> int:
    """Bytes that a registry keeps of a directory: its tar, compressed as engines do."""
    compressor, size = zlib.compressobj(6, zlib.DEFLATED, 31), 0
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(directory, directory.name)
        file.seek(0)
        while block := file.read(1 << 20):
            size += len(compressor.compress(block))
    return size + len(compressor.flush())


def main() -> None:
    """Builds `arbitrium-agent:latest` and `arbitrium-agent:VERSION`, or the same with extras under their names."""
    engine, version, began = find(), version_of(ROOT / "agent"), time.monotonic()
    extras = os.environ.get("EXTRAS", "").split()
    if unknown := [extra for extra in extras if not (ROOT / f"requirements-{extra}.lock").is_file()]:
        raise SystemExit(f"cannot build with EXTRAS={unknown[0]}: there is agones; query is in every image")
    tag = "-".join([f"arbitrium-agent:{version}", *extras])
    moving = f"arbitrium-agent:{'-'.join(extras) or 'latest'}"
    build(engine, tag, version, revision(), f"--tag={moving}", f"--build-arg=EXTRAS={' '.join(extras)}")
    seconds = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder:
        copy_out(engine, tag, "/opt/arbitrium-agent", Path(folder))
        directory = Path(folder) / "arbitrium-agent"
        size = sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())
        layer = layer_size(directory)
    print(f"\n{tag} and {moving}, built by {engine} from {base()} in {seconds:.0f} s")
    print(f"  {size / 1e6:.1f} MB on disk, {layer / 1e6:.1f} MB as a layer")
    print("  next: the lines for a Dockerfile are in docs/image.md; to try it: make demo")


if __name__ == "__main__":
    main()
