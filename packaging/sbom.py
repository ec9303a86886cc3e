"""Writes what the runtime directory consists of (CycloneDX JSON), and collects the licences of all of it.

Runs in the build stage. Two kinds of parts: Debian's packages that the interpreter and the libraries come from, and the
locked Python packages, whose metadata pip left beside them.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"  # built from the source package of that name
Component = dict[str, Any]
# What the copied libraries do not tell: where the certificates are from, and the static libraries that were linked in.
LINKED_IN = ("ca-certificates", "libffi-dev", "libssl-dev", "musl-dev", "zlib1g-dev", PYTHON)
COPYRIGHT = "/usr/share/doc/{}/copyright"


def packages_of(origins: list[str]) -> list[str]:
    """Returns the Debian packages that own the given files, each once."""
    owners: set[str] = set()
    for origin in origins:
        # Debian merged /lib into /usr/lib; dpkg may know a file by its old name only.
        for name in (origin, origin.removeprefix("/usr")):
            found = subprocess.run(["dpkg", "-S", name], check=False, capture_output=True, text=True)
            if found.returncode == 0:
                owners.add(found.stdout.split(": ")[0].split(",")[0])
                break
        else:
            raise SystemExit(f"cannot find the Debian package that {origin} comes from")
    return sorted(owners)


def debian_component(package: str) -> Component:
    """Describes one installed Debian package by name, version, architecture and source package."""
    fields = ("${Package}", "${Version}", "${Architecture}", "${source:Package}")
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "\t".join(fields), package], check=True, capture_output=True, text=True
    )
    name, version, architecture, source = shown.stdout.split("\t")
    return {
        "type": "library",
        "bom-ref": f"deb/{name}",
        "name": name,
        "version": version,
        "purl": f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}&distro=debian-13",
        "properties": [{"name": "debian:source", "value": source}],
    }


def python_component(metadata: Path) -> Component:
    """Describes one Python package by what its metadata says."""
    fields = HeaderParser().parsestr(metadata.read_text(encoding="utf-8"))
    name = re.sub(r"[-_.]+", "-", fields["Name"]).lower()
    component: Component = {
        "type": "library",
        "bom-ref": f"pypi/{name}",
        "name": name,
        "version": fields["Version"],
        "purl": f"pkg:pypi/{name}@{fields['Version']}",
    }
    classified = [
        line.rpartition(" :: ")[2] for line in fields.get_all("Classifier", []) if line.startswith("License :: ")
    ]
    if expression := fields["License-Expression"]:
        component["licenses"] = [{"expression": expression}]
    elif named := [*classified, *([fields["License"]] if fields["License"] else [])]:
        component["licenses"] = [{"license": {"name": named[0].splitlines()[0]}}]
    if crates := [crate for path in sorted(metadata.parent.glob("sboms/*.json")) for crate in _compiled_in(path)]:
        component["components"] = crates
    return component


def _compiled_in(path: Path) -> Iterator[Component]:
    """Yields what a wheel's own bill of materials (PEP 770) says was compiled into it, without the edges."""
    for part in json.loads(path.read_text(encoding="utf-8")).get("components", []):
        yield {field: part[field] for field in ("type", "name", "version", "purl", "licenses") if field in part}


def copy_crate_licences(metadata: Path, texts: Path, target: Path) -> set[str]:
    """Writes which crates are in a wheel and under what, and returns the licences whose texts have to be there.

    Of alternatives (`MIT OR Apache-2.0`) the first one whose text is here is taken.

    Args:
        metadata: the package's `METADATA`, beside which its bills of materials lie.
        texts: directory of `SPDX-ID.txt`.
        target: where `crates.txt` goes.
    """
    needed: set[str] = set()
    lines = []
    for crate in (part for path in sorted(metadata.parent.glob("sboms/*.json")) for part in _compiled_in(path)):
        stated = [entry.get("expression") or entry["license"].get("id") for entry in crate.get("licenses", [])]
        chosen = _choose(" AND ".join(f"({each})" for each in stated if each), texts)
        if chosen is None:
            raise SystemExit(f"cannot find the text of a licence of {crate['name']} {crate.get('version')}: {stated}")
        needed |= chosen
        lines.append(f"{crate['name']} {crate.get('version', '')}: {' AND '.join(sorted(chosen)) or 'as the package'}")
    if lines:
        target.mkdir(parents=True, exist_ok=True)
        header = "Compiled into this package; the texts are in ../spdx.\n\n"
        (target / "crates.txt").write_text(header + "\n".join(sorted(lines)) + "\n", encoding="utf-8")
    return needed


def _choose(expression: str, texts: Path) -> set[str] | None:
    """The licences that an SPDX expression asks for, by the texts that are here; None where one is missing."""
    words = re.findall(r"\(|\)|[^\s()]+", expression)

    def alternatives(at: int) -> tuple[set[str] | None, int]:
        found, at = all_of(at)
        while at < len(words) and words[at] == "OR":
            other, at = all_of(at + 1)
            found = found if found is not None else other
        return found, at

    def all_of(at: int) -> tuple[set[str] | None, int]:
        found, at = one(at)
        while at < len(words) and words[at] == "AND":
            other, at = one(at + 1)
            found = found | other if found is not None and other is not None else None
        return found, at

    def one(at: int) -> tuple[set[str] | None, int]:
        if words[at] == "(":
            found, at = alternatives(at + 1)
            return found, at + 1
        name, at = words[at], at + 1
        if words[at : at + 1] == ["WITH"]:  # an exception only permits more
            at += 2
        return ({name} if (texts / f"{name}.txt").is_file() else None), at

    return alternatives(0)[0] if words else set()


def hashes_of(packages: Path, wheels: Path) -> dict[str, str]:
    """SHA-256 by purl-like name: `deb/NAME VERSION` from apt's lists, `pypi/NAME VERSION` from the wheels."""
    found: dict[str, str] = {}
    for entry in packages.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line)
        if "SHA256" in fields:
            found[f"deb/{fields['Package']} {fields['Version']}"] = fields["SHA256"]
    for wheel in sorted(wheels.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        normal = re.sub(r"[-_.]+", "-", name).lower()
        found[f"pypi/{normal} {version}"] = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return found


def version_of(agent: Path) -> str:
    """Returns the version that the package directory of the agent names."""
    found = re.search(r'^__version__ = "(.+)"$', (agent / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit("cannot find the agent's version in agent/__init__.py")
    return found[1]


def copy_licences(home: Path, debian: list[str], own: Path, texts: Path) -> None:
    """Puts the licence of every part under `share/licenses/NAME/`, and the texts for crates under `spdx/` there."""
    target = home / "share/licenses"
    needed: set[str] = set()
    for metadata in sorted(home.glob("lib/python3*/site-packages/*.dist-info/METADATA")):
        needed |= copy_crate_licences(metadata, texts, target / metadata.parent.name.split("-")[0].lower())
    for name in sorted(needed):
        (target / "spdx").mkdir(parents=True, exist_ok=True)
        shutil.copy2(texts / f"{name}.txt", target / "spdx")
    for package in debian:
        name = package.split(":")[0]
        (target / name).mkdir(parents=True)
        shutil.copy2(COPYRIGHT.format(name), target / name / "copyright")
    for metadata in sorted(home.glob("lib/python3*/site-packages/*.dist-info")):
        shutil.rmtree(metadata / "sboms", ignore_errors=True)
        found = list(_licence_files(metadata))
        if not found:  # psutil and others keep the text in the wheel's root or say it in the metadata only
            continue
        folder = target / metadata.name.split("-")[0].lower()
        folder.mkdir(parents=True, exist_ok=True)
        for file in found:
            shutil.move(file, folder / file.name)
        shutil.rmtree(metadata / "licenses", ignore_errors=True)
    (target / "arbitrium-agent").mkdir()
    shutil.copy2(own, target / "arbitrium-agent" / own.name)


def _licence_files(metadata: Path) -> Iterator[Path]:
    """Yields the licence texts of one package, wherever its builder put them."""
    for path in sorted(metadata.rglob("*")):
        if path.is_file() and path.name != "METADATA":
            yield path


def main() -> None:
    """Writes the bill of materials and the licences into the runtime directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="the runtime directory")
    parser.add_argument("--origins", type=Path, required=True, help="the paths that libraries were copied from")
    parser.add_argument("--agent", type=Path, required=True, help="the package directory of the agent")
    parser.add_argument("--version", default="", help="what the version is expected to be")
    parser.add_argument("--licences", type=Path, required=True, help="directory of SPDX-ID.txt, for crates in wheels")
    parser.add_argument("--packages", type=Path, required=True, help="what apt-cache shows of the installed packages")
    parser.add_argument("--wheels", type=Path, required=True, help="directory of the wheels that were installed")
    parser.add_argument("--licence", type=Path, required=True, help="the agent's own licence")
    args = parser.parse_args()
    version = version_of(args.agent)
    if args.version not in ("", version):
        raise SystemExit(
            f"cannot build version {args.version}: agent/__init__.py says {version}, and VERSION only confirms it"
        )
    debian = sorted({*packages_of(args.origins.read_text().split()), *LINKED_IN})
    metadata = sorted(args.home.glob("lib/python3*/site-packages/*.dist-info/METADATA"))
    components = [debian_component(package) for package in debian] + [python_component(path) for path in metadata]
    hashes = hashes_of(args.packages, args.wheels)
    for component in components:
        if sha256 := hashes.get(f"{component['bom-ref']} {component['version']}"):
            component["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    agent = {
        "type": "application",
        "bom-ref": "arbitrium-agent",
        "name": "arbitrium-agent",
        "version": version,
        "purl": f"pkg:pypi/arbitrium-agent@{version}",
        "licenses": [{"expression": "Apache-2.0"}],
    }
    # The serial number follows from the parts, so that the same parts give the same document.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([agent, components], sort_keys=True))
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": agent},
        "components": components,
        "dependencies": [{"ref": "arbitrium-agent", "dependsOn": [part["bom-ref"] for part in components]}],
    }
    copy_licences(args.home, debian, args.licence, args.licences)
    (args.home / "share/sbom.cdx.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{len(components)} parts in {args.home / 'share/sbom.cdx.json'}")


if __name__ == "__main__":
    main()
