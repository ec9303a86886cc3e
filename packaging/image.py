"""`make image`: builds the image with whichever engine is there, and prints what came of it."""

from __future__ import annotations

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
    """Builds `arbitrium-agent:latest` and `arbitrium-agent:VERSION`."""
    engine, version, began = find(), version_of(ROOT / "agent"), time.monotonic()
    tag = f"arbitrium-agent:{version}"
    build(engine, tag, version, revision(), "--tag=arbitrium-agent:latest")
    seconds = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder:
        copy_out(engine, tag, "/opt/arbitrium-agent", Path(folder))
        directory = Path(folder) / "arbitrium-agent"
        size = sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())
        layer = layer_size(directory)
    print(f"\n{tag} and arbitrium-agent:latest, built by {engine} from {base()} in {seconds:.0f} s")
    print(f"  {size / 1e6:.1f} MB on disk, {layer / 1e6:.1f} MB as a layer")
    print("  next: the lines for a Dockerfile are in docs/image.md; to try it: make demo")


if __name__ == "__main__":
    main()
