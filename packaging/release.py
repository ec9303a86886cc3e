"""`make release`: everything of one version in dist/, from a git tag, the same bytes each time.

Wheel and sdist; for each processor an OCI archive, a tarball of the runtime directory and its bill of materials; what
all was made from (provenance.json); SHA256SUMS over all of it, which whoever releases it signs (docs/release.md).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engines import ROOT, EngineError, base, build, copy_out, find, output
from sbom import version_of

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def check_tree(version: str, *, untagged: bool) -> str:
    """Refuses what could not be released again, and returns the commit.

    Args:
        version: of the agent.
        untagged: whether a checkout without its tag, changes or a base without a digest are let through, for a trial.
    """
    wrong = []
    if f"## [{version}]" not in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
        wrong.append(f"CHANGELOG.md has no section ## [{version}]")
    tags = output("git", "-C", str(ROOT), "tag", "--points-at", "HEAD").split()
    if f"v{version}" not in tags:
        wrong.append(f"HEAD has no tag v{version}, which agent/__init__.py names (git tag v{version})")
    if output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"):
        wrong.append("there are changes that are not committed")
    if "@sha256:" not in base():
        wrong.append(f"the base image {base()} has no digest in packaging/bases.env (make bump)")
    if wrong and not untagged:
        raise SystemExit("cannot release: " + "; ".join(wrong) + "; for a trial: make release TRIAL=1")
    for each in wrong:
        print(f"a trial only: {each}", file=sys.stderr)
    return output("git", "-C", str(ROOT), "rev-parse", "HEAD")


def write_tarball(directory: Path, target: Path, epoch: int) -> None:
    """Writes a directory as /opt/arbitrium-agent; order, owners and dates do not depend on the machine."""
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", 9, file, epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in [directory, *sorted(directory.rglob("*"))]:
            name = "opt/arbitrium-agent" / path.relative_to(directory)
            archive.add(path, str(name), recursive=False, filter=lambda entry: _settled(entry, epoch))


def _settled(entry: tarfile.TarInfo, epoch: int) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = epoch
    entry.pax_headers = {}
    return entry


def settle_archive(path: Path, epoch: int) -> None:
    """Writes an OCI archive again as it would be on any machine.

    That is order, owners and dates of its files, and the image's history, where an engine notes what was in its cache.
    """
    with tarfile.open(path) as archive:
        files = {entry.name.removeprefix("./"): archive.extractfile(entry) for entry in archive if entry.isreg()}
        contents = {name: file.read() for name, file in files.items() if file is not None}
    again = path.with_suffix(".again")
    with tarfile.open(again, "w", format=tarfile.PAX_FORMAT) as target:
        for name, content in sorted(settled_image(contents, epoch).items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            target.addfile(_settled(entry, epoch), io.BytesIO(content))
    again.replace(path)


def settled_image(files: dict[str, bytes], epoch: int) -> dict[str, bytes]:
    """The files of an OCI layout, with each image's history dated and without what is the engine's own.

    Args:
        files: contents by name (`index.json`, `blobs/sha256/...`); only images of one manifest each are changed.
        epoch: seconds since 1970 to date the history.
    """
    files = dict(files)
    moved: dict[str, str] = {}

    def replace(old: dict[str, Any], document: dict[str, Any]) -> None:
        """Puts a document in the place of a blob, and its digest into what refers to it."""
        content = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
        del files[_blob(old["digest"])]
        new = f"sha256:{hashlib.sha256(content).hexdigest()}"
        moved[_blob(old["digest"])] = _blob(new)
        old["digest"], old["size"] = new, len(content)
        files[_blob(new)] = content

    index = json.loads(files["index.json"])
    for reference in index["manifests"]:
        manifest = json.loads(files[_blob(reference["digest"])])
        if "config" not in manifest:
            continue
        image = json.loads(files[_blob(manifest["config"]["digest"])])
        for step in image.get("history", []):
            step.pop("comment", None)
            step["created"] = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for name in [name for name in manifest.get("annotations", {}) if ".image.base." in name]:
            del manifest["annotations"][name]  # of the step before the last, which is not to be had elsewhere
        replace(manifest["config"], image)
        replace(reference, manifest)
    files["index.json"] = json.dumps(index, separators=(",", ":"), sort_keys=True).encode()
    if "manifest.json" in files:  # docker's own index, beside that of OCI
        text = files["manifest.json"].decode()
        for old, new in moved.items():
            text = text.replace(old, new)
        files["manifest.json"] = text.encode()
    return files


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def archive_image(engine: str, tag: str, target: Path) -> None:
    """Writes an image as an OCI archive."""
    if engine == "podman":
        output("podman", "save", "--quiet", "--format=oci-archive", f"--output={target}", tag)
    elif engine == "buildah":
        output("buildah", "push", "--quiet", tag, f"oci-archive:{target}:{tag}")
    else:
        output("docker", "save", f"--output={target}", tag)  # an OCI layout since Docker 25


def can_build(machine: str) -> bool:
    """Whether this machine runs programs of a processor, by itself or under emulation (binfmt_misc with qemu)."""
    return os.uname().machine == machine or Path(f"/proc/sys/fs/binfmt_misc/qemu-{machine}").exists()


def smoke_test(engine: str, tag: str, architecture: str, version: str) -> str:
    """Starts the agent of an image; returns `tested` or why it was not."""
    if engine == "buildah":
        return "untested: buildah runs no images"
    said = output(engine, "run", "--rm", "--network=none", f"--platform=linux/{architecture}", tag, "--version")
    if version not in said:
        raise EngineError(f"cannot release {tag}: its agent says it is {said!r}, not {version}")
    return "tested"


def digest(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def provenance(version: str, commit: str, epoch: int, dist: Path, images: dict[str, str]) -> dict[str, Any]:
    """What was made from what: an in-toto statement with SLSA's predicate (https://slsa.dev/provenance/v1)."""
    inputs = [
        "requirements.lock",
        "requirements-query.lock",
        "requirements-agones.lock",
        "requirements-build.lock",
        "packaging/sources.sha256",
    ]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": path.name, "digest": {"sha256": digest(path)}} for path in sorted(dist.iterdir()) if path.is_file()
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "make release",
                "externalParameters": {"version": version, "images": images},
                "internalParameters": {"SOURCE_DATE_EPOCH": epoch},
                "resolvedDependencies": [
                    {"name": "git", "digest": {"gitCommit": commit}},
                    {"name": "base image", "uri": base()},
                    *({"name": name, "digest": {"sha256": digest(ROOT / name)}} for name in inputs),
                ],
            },
            "runDetails": {"builder": {"id": "make release"}},
        },
    }


def main() -> None:
    """Writes dist/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trial", action="store_true", help="let through what a release must not have")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="the directory to write")
    args = parser.parse_args()
    version = version_of(ROOT / "agent")
    commit = check_tree(version, untagged=args.trial)
    epoch = int(output("git", "-C", str(ROOT), "log", "-1", "--format=%ct"))
    dist: Path = args.dist
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(dist)], cwd=ROOT, env=environ, check=True)
    engine, images = find(), {}
    for machine, architecture in MACHINES.items():
        if not can_build(machine):
            images[architecture] = "not built: this machine cannot run it; docs/release.md has the command"
            continue
        tag = f"arbitrium-agent:{version}-{architecture}"
        build(engine, tag, version, commit, f"--platform=linux/{architecture}", epoch=epoch)
        images[architecture] = smoke_test(engine, tag, architecture, version)
        archive = dist / f"arbitrium-agent-{version}-linux-{architecture}.oci.tar"
        archive_image(engine, tag, archive)
        settle_archive(archive, epoch)
        with tempfile.TemporaryDirectory() as folder:
            copy_out(engine, tag, "/opt/arbitrium-agent", Path(folder))
            directory = Path(folder) / "arbitrium-agent"
            write_tarball(directory, dist / f"arbitrium-agent-{version}-linux-{architecture}.tar.gz", epoch)
            shutil.copy(
                directory / "share/sbom.cdx.json", dist / f"arbitrium-agent-{version}-linux-{architecture}.cdx.json"
            )
    if not images or all(state.startswith("not built") for state in images.values()):
        raise SystemExit("cannot release: no image was built")
    statement = provenance(version, commit, epoch, dist, images)
    (dist / "provenance.json").write_text(json.dumps(statement, indent=1) + "\n", encoding="utf-8")
    lines = [f"{digest(path)}  {path.name}" for path in sorted(dist.iterdir()) if re.match(r"[^.]", path.name)]
    (dist / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in sorted(dist.iterdir()):
        print(f"{path.stat().st_size:>12,}  {path.name}")
    for architecture, state in images.items():
        print(f"linux/{architecture}: {state}")


if __name__ == "__main__":
    main()
