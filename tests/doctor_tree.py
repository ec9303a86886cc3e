"""A small image under a directory, for what the doctor finds in one."""

from __future__ import annotations

from pathlib import Path

from agent.doctor import access
from agent.doctor.access import Person
from agent.doctor.dockerfile import read
from agent.doctor.findings import Finding, Level
from agent.doctor.image import Image, check_image

# What a base image of Debian has, as far as start scripts here ask for it.
TOOLS = [
    "awk",
    "bash",
    "cat",
    "chmod",
    "chown",
    "cp",
    "curl",
    "cut",
    "date",
    "dirname",
    "echo",
    "env",
    "find",
    "grep",
    "head",
    "id",
    "kill",
    "ls",
    "mkdir",
    "mkfifo",
    "mv",
    "nice",
    "nohup",
    "printenv",
    "ps",
    "readlink",
    "realpath",
    "rm",
    "sed",
    "setpriv",
    "sleep",
    "sort",
    "stdbuf",
    "tail",
    "tee",
    "timeout",
    "touch",
    "tr",
    "uname",
    "xargs",
]
LOADER = "/lib64/ld-linux-x86-64.so.2"


def program(machine: int = 0x3E, loader: str | None = LOADER) -> bytes:
    """The beginning of a program for a machine."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    header[18:20] = machine.to_bytes(2, "little")
    header[32:40] = (64).to_bytes(8, "little")
    header[54:56] = (56).to_bytes(2, "little")
    if loader is None:
        return bytes(header)
    header[56:58] = (1).to_bytes(2, "little")
    name = loader.encode() + b"\0"
    segment = bytearray(56)
    segment[0:4] = (3).to_bytes(4, "little")
    segment[8:16] = (120).to_bytes(8, "little")
    segment[32:40] = len(name).to_bytes(8, "little")
    return bytes(header + segment) + name


class Tree:
    """A small image under a directory."""

    def __init__(self, root: Path) -> None:
        """Makes what every base image has."""
        self.root = root
        self.add(LOADER, b"loader")
        self.add("/bin/sh", program())
        self.add("/etc/ssl/certs/ca-certificates.crt", b"certificates", mode=0o644)
        self.add("/etc/passwd", "root:x:0:0::/root:/bin/sh\ngame:x:1000:1000::/game:/bin/sh\n", mode=0o644)
        for name in TOOLS:
            self.add(f"/bin/{name}", program())
        self.add("/usr/bin/env", program())
        for folder in ("run", "tmp"):
            (root / folder).mkdir()

    def add(self, name: str, data: bytes | str, mode: int = 0o755) -> None:
        """Adds a file."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)

    def check(
        self,
        *command: str,
        uid: int = 1000,
        dockerfile: str | None = None,
        volumes: tuple[str, ...] = (),
        **environ: str,
    ) -> dict[str, list[Finding]]:
        """Runs all checks; returns what is no "ok", by check."""
        environ = {"PATH": "/usr/bin:/bin", **environ}
        person = access.find(environ.get("AGENT_GAME_USER", str(uid)), str(self.root)) or Person(uid)
        image = Image(environ, person, "x86_64", root=str(self.root), volumes=volumes)
        found: dict[str, list[Finding]] = {}
        for finding in check_image(image, list(command), read(dockerfile) if dockerfile else None):
            if finding.level is not Level.OK:
                found.setdefault(finding.check, []).append(finding)
        return found
