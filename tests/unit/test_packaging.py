"""What a release is made with: reproducible archives, one version, licences and hashes that are complete."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder

import agent

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of packaging/, which is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "packaging"))
    return importlib.import_module


def test_a_tarball_does_not_depend_on_the_machine(tool: Any, tmp_path: Path) -> None:
    """Neither on dates, nor on the order in which files were made."""
    made = []
    for number, names in enumerate((["a", "b/c"], ["b/c", "a"])):
        home = tmp_path / f"{number}/arbitrium-agent"
        for name in names:
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(name)
            os.utime(home / name, (number, number))
        (home / "link").symlink_to("a")
        target = tmp_path / f"{number}.tar.gz"
        tool("release").write_tarball(home, target, 1_700_000_000)
        made.append(target)
    assert made[0].read_bytes() == made[1].read_bytes()
    compare = [sys.executable, str(ROOT / "packaging/compare.py"), str(made[0])]
    assert subprocess.run([*compare, str(made[1])], check=False, capture_output=True).returncode == 0


def saved(path: Path, made: int) -> None:
    """An OCI archive as an engine saves it, with the day and the cache of one build."""

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        files[f"blobs/sha256/{digest}"] = content
        return {"digest": f"sha256:{digest}", "size": len(content)}

    files = {"oci-layout": b"{}"}
    history = [{"created": f"2026-11-2{made}T00:00:00Z", "created_by": "COPY", "comment": f"FROM {made}"}]
    manifest: dict[str, Any] = {
        "config": blob(json.dumps({"os": "linux", "history": history}).encode()),
        "layers": [blob(b"layer")],
        "annotations": {"org.opencontainers.image.base.digest": f"sha256:{made}", "org.example.kept": "yes"},
    }
    reference = blob(json.dumps(manifest).encode())
    files["index.json"] = json.dumps({"manifests": [reference]}).encode()
    files["manifest.json"] = json.dumps(
        [{"Config": manifest["config"]["digest"].replace("sha256:", "blobs/sha256/")}]
    ).encode()
    with tarfile.open(path, "w") as archive:
        for name in sorted(files, reverse=made % 2 == 1):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(files[name]), made
            archive.addfile(entry, io.BytesIO(files[name]))


def test_an_image_does_not_depend_on_the_cache_it_was_built_with(tool: Any, tmp_path: Path) -> None:
    """The same bytes, in which every digest and size is that of what it refers to, and the rest is kept."""
    for number in (0, 1):
        saved(tmp_path / f"{number}.tar", number)
        tool("release").settle_archive(tmp_path / f"{number}.tar", 1_700_000_000)
    assert (tmp_path / "0.tar").read_bytes() == (tmp_path / "1.tar").read_bytes()
    with tarfile.open(tmp_path / "0.tar") as archive:
        files = {name: file.read() for name in archive.getnames() if (file := archive.extractfile(name))}

    def found(reference: dict[str, Any]) -> Any:
        content = files[reference["digest"].replace("sha256:", "blobs/sha256/")]
        assert (f"sha256:{hashlib.sha256(content).hexdigest()}", len(content)) == (
            reference["digest"],
            reference["size"],
        )
        return content

    manifest = json.loads(found(json.loads(files["index.json"])["manifests"][0]))
    assert manifest["annotations"] == {"org.example.kept": "yes"}
    assert found(manifest["layers"][0]) == b"layer"
    image = json.loads(found(manifest["config"]))
    assert image == {"os": "linux", "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "COPY"}]}
    assert json.loads(files["manifest.json"])[0]["Config"] in files
    assert len(files) == 6, "nothing is left of what was replaced"


@pytest.mark.slow
def test_the_wheel_is_the_same_twice(tmp_path: Path) -> None:
    """And is named after the version that the agent says."""
    built = []
    for folder in ("one", "two"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / folder)]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True)
        (wheel,) = (tmp_path / folder).iterdir()
        built.append(wheel)
    assert built[0].read_bytes() == built[1].read_bytes()
    assert built[0].name.startswith(f"arbitrium_agent-{agent.__version__}-")


def test_the_sdist_has_what_the_checkout_has() -> None:
    """An image can be built from it, and its tests run."""
    there = {file.distribution_path.split("/")[0] for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {line.split("/")[0] for line in tracked.splitlines()} - {".ci", ".gitignore", "pyproject.toml"} <= there, (
        "hatchling adds pyproject.toml"
    )


def test_a_release_is_refused_without_what_makes_it_one(tool: Any) -> None:
    """All of it at once, and what to do."""
    release = tool("release")
    with pytest.raises(SystemExit, match=r"CHANGELOG.md has no section ## \[99.0.0\]; HEAD has no tag v99.0.0"):
        release.check_tree("99.0.0", untagged=False)


@pytest.mark.parametrize(
    ("expression", "licences"),
    [
        ("MIT OR Apache-2.0", {"MIT"}),
        ("(LGPL-2.1-or-later OR MIT) AND Unicode-3.0", {"MIT", "Unicode-3.0"}),
        ("Apache-2.0 WITH LLVM-exception", {"Apache-2.0"}),
        ("GPL-3.0-only", None),
        ("GPL-3.0-only AND MIT", None),
        ("", set()),
    ],
)
def test_a_licence_is_chosen_by_the_texts_that_are_here(tool: Any, expression: str, licences: set[str] | None) -> None:
    """A crate whose text is missing must stop the build."""
    assert tool("sbom")._choose(expression, ROOT / "packaging/licenses") == licences


def test_the_version_of_a_build_only_confirms(tool: Any) -> None:
    """It stands in one place; the changelog has a section for it."""
    assert tool("sbom").version_of(ROOT / "agent") == agent.__version__
    assert re.search(rf"^## \[{re.escape(agent.__version__)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_source_package_is_pinned(tool: Any) -> None:
    """What apt prints becomes the file that the build checks; a signature is no source."""
    printed = (
        "'pool/p/python3.13_1.dsc' python3.13_1.dsc 42 SHA256:" + "a" * 64 + "\n"
        "'pool/p/python3.13_1.orig.tar.xz.asc' python3.13_1.orig.tar.xz.asc 9 SHA256:" + "b" * 64 + "\n"
    )
    assert tool("bump").sources(printed) == "a" * 64 + "  python3.13_1.dsc\n"
    with pytest.raises(SystemExit, match="cannot read"):
        tool("bump").sources("nothing")
    pinned = (ROOT / "packaging/sources.sha256").read_text().splitlines()
    assert all(re.fullmatch(r"[0-9a-f]{64}  python3\.13_\S+", line) for line in pinned)
