"""Writes what the runtime directory consists of (CycloneDX JSON), and collects the licences of all of it.

Runs in the build stage. Two kinds of parts: Debian's packages that the interpreter and the libraries come from, and the
locked Python packages, whose metadata pip left beside them.
"""

import argparse
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
LINKED_IN = ("ca-certificates", "libffi-dev", "libssl-dev", "libzstd-dev", "musl-dev", "zlib1g-dev", PYTHON)
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


def version_of(agent: Path) -> str:
    """Returns the version that the package directory of the agent names."""
    found = re.search(r'^__version__ = "(.+)"$', (agent / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit("cannot find the agent's version in agent/__init__.py")
    return found[1]


def copy_licences(home: Path, debian: list[str], own: Path) -> None:
    """Puts the licence of every part under `share/licenses/NAME/`."""
    target = home / "share/licenses"
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
    parser.add_argument("--version", default="", help="the agent's version, where it is not the package's")
    parser.add_argument("--licence", type=Path, required=True, help="the agent's own licence")
    args = parser.parse_args()
    version = args.version or version_of(args.agent)
    debian = sorted({*packages_of(args.origins.read_text().split()), *LINKED_IN})
    metadata = sorted(args.home.glob("lib/python3*/site-packages/*.dist-info/METADATA"))
    components = [debian_component(package) for package in debian] + [python_component(path) for path in metadata]
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
    copy_licences(args.home, debian, args.licence)
    (args.home / "share/sbom.cdx.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{len(components)} parts in {args.home / 'share/sbom.cdx.json'}")


if __name__ == "__main__":
    main()
