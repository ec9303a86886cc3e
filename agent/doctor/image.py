"""`doctor --image`: what will fail when a container of this image starts.

It belongs at build time, in a `RUN` after the last `USER`: it sees then what the game will see.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent.doctor import programs
from agent.doctor.dockerfile import SHELL, Start
from agent.doctor.findings import Finding, error, note, ok, warning

# Where the images of the usual distributions have their certificates.
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)
RUNTIME = "/opt/arbitrium-agent"
ENTRYPOINT = f'ENTRYPOINT ["{RUNTIME}/entrypoint.sh"]'
_BEGINNING = 1024 * 1024  # of a file; the program headers of an ELF file and whole scripts are in it
_DEPTH = 3  # a shell that calls a start script that calls the server


@dataclass(frozen=True)
class Image:
    """What the checks look at.

    Attributes:
        environ: the variables that the container will have.
        uid: the user that will run it.
        machine: what it will run on, as `uname -m` has it.
        root: where the image's files are.
        workdir: where relative paths begin.
    """

    environ: Mapping[str, str]
    uid: int
    machine: str
    root: str = "/"
    workdir: str = "/"
    seen: set[str] = field(default_factory=set)  # programs that were looked at already

    @classmethod
    def current(cls, user: str | None = None) -> Image:
        """The image that this process runs in.

        Args:
            user: who will run it, by name or number (USER of a Dockerfile); the current user by default.
        """
        uid = os.getuid()
        if user:
            with contextlib.suppress(KeyError):  # a name that is not in the image: the engine will say so
                uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        return cls(dict(os.environ), uid, os.uname().machine, workdir=os.getcwd())

    def path(self, name: str) -> str:
        """Where a file of the image is to be found from here."""
        return os.path.join(self.root, os.path.join(self.workdir, name).lstrip("/"))

    def has(self, name: str) -> bool:
        """Whether the image has a file, or a link to one."""
        return os.path.isfile(self.path(name))

    def find(self, program: str) -> str | None:
        """Looks a program up as `execvp` does; None if there is none."""
        if "/" in program:
            return program if os.path.exists(self.path(program)) else None
        for folder in self.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
            if self.has(os.path.join(folder, program)):
                return os.path.join(folder, program)
        return None

    def beginning(self, name: str) -> bytes:
        """The first bytes of a file."""
        with open(self.path(name), "rb") as file:
            return file.read(_BEGINNING)


def check_image(image: Image, command: list[str], start: Start | None = None) -> list[Finding]:
    """Runs every check.

    Args:
        image: where to look.
        command: the game's command (CMD); empty where it was not given.
        start: what the Dockerfile says, if it was given.
    """
    findings: list[Finding] = []
    if start is not None:
        findings += check_start(start)
        command = command or (start.command or [])
    if command:
        findings += check_command(image, command)
    else:
        findings.append(
            note(
                "command", "the game's command was not given", "add it: arbitrium-agent doctor --image -- COMMAND ARGS"
            )
        )
    findings += check_certificates(image)
    findings += check_folders(image)
    findings += check_runtime(image)
    return findings


# What is started ------------------------------------------------------------------------------------------------------


def check_start(start: Start) -> Iterator[Finding]:
    """ENTRYPOINT and CMD of the Dockerfile."""
    if start.entrypoint is None or not programs.starts_agent(" ".join(start.entrypoint)):
        yield error(
            "entrypoint", "the agent is not started: the last stage has no ENTRYPOINT with it", f"add {ENTRYPOINT}"
        )
    elif start.shell_form:
        yield _shell_form(f"ENTRYPOINT {start.entrypoint[-1]}")
    elif start.entrypoint[0].endswith("/bin/arbitrium-agent") and "run" not in start.entrypoint:
        yield error(
            "entrypoint",
            "cannot start the game: ENTRYPOINT calls the agent without a command",
            f'write ENTRYPOINT ["{RUNTIME}/bin/arbitrium-agent", "run", "--"]',
        )
    else:
        yield ok("entrypoint", "ENTRYPOINT starts the agent")
    if start.command is None and start.entrypoint and start.entrypoint[-1].endswith("/entrypoint.sh"):
        yield error("command", "cannot start the game: there is no CMD in the last stage", 'add CMD ["/game/server"]')


def _shell_form(what: str) -> Finding:
    return error(
        "entrypoint",
        f"{what} is in shell form: CMD is ignored then, and SIGTERM goes to the shell instead of the agent",
        f"write it as a list: {ENTRYPOINT}",
    )


def check_command(image: Image, command: list[str]) -> Iterator[Finding]:
    """The game's command: its program, what that needs, and what a shell in it would run."""
    shell = programs.read_shell(command)
    if shell is not None and shell.line is not None and programs.starts_agent(shell.line):
        yield _shell_form(f"`{' '.join(command)}`: ENTRYPOINT")
        return
    yield from check_program(image, command[0])
    if shell is None:
        return
    if shell.line is not None:
        yield from _check_line(image, shell.line, "the command", depth=1)
    elif shell.script is not None:
        yield from check_program(image, shell.script, executed=False)
    else:
        yield warning(
            "command",
            f"`{' '.join(command)}` is a shell with nothing to run",
            "name the game's program or start script",
        )


def _check_line(image: Image, text: str, whose: str, depth: int) -> Iterator[Finding]:
    for program in programs.programs_of(text):
        # Only what a shell would find as it is written: a name built at run time cannot be judged here.
        if image.find(program) is None:
            yield warning("program", f"{whose} names {program}, which is not in the image", "check the path")
        elif depth < _DEPTH:
            yield from check_program(image, program, depth=depth + 1)


def check_program(image: Image, program: str, *, executed: bool = True, depth: int = 0) -> Iterator[Finding]:
    """One program or start script.

    Args:
        image: where to look.
        program: path, or a name to look up in PATH.
        executed: whether the kernel executes it; a script that is an argument of a shell is only read.
        depth: how many scripts led here.
    """
    found = image.find(program)
    if found is None:
        where = "" if "/" in program else " in PATH"
        yield error("program", f"cannot start {program}: there is no such file{where}", "check the path and the COPY")
        return
    if found in image.seen:
        return
    image.seen.add(found)
    if os.path.isdir(image.path(found)):
        yield error("program", f"cannot start {found}: it is a directory", "name the program in it")
        return
    if executed and not os.access(image.path(found), os.X_OK):
        yield error("program", f"cannot start {found}: it is not executable", f"add RUN chmod +x {found}")
    try:
        data = image.beginning(found)
    except OSError as problem:
        yield error(
            "program",
            f"cannot read {found} ({(problem.strerror or 'no reason given').lower()})",
            f"the user {image.uid} needs the right to: RUN chmod a+rx {found}",
        )
        return
    elf = programs.read_elf(data)
    if elf is not None:
        yield from _check_elf(image, found, elf)
    else:
        yield from _check_script(image, found, data, executed, depth)


def _check_elf(image: Image, found: str, elf: programs.Elf) -> Iterator[Finding]:
    if not programs.can_run(image.machine, elf.machine):
        yield error(
            "architecture",
            f"cannot run {found}: it is built for {elf.machine}, and the image is for {image.machine}",
            "build the server for Linux on this architecture, or the image with --platform",
        )
    elif elf.loader is not None and not image.has(elf.loader):
        yield error(
            "loader",
            f"cannot run {found}: it needs {elf.loader}, which is not in the image",
            "use a base image with the C library that it was built for (glibc: debian, ubuntu; musl: alpine)",
        )
    else:
        yield ok("program", f"{found} is a program for {elf.machine}")
    if programs.looks_unreal(found):
        yield from _check_root(image, found)


def _check_script(image: Image, found: str, data: bytes, executed: bool, depth: int) -> Iterator[Finding]:
    script = programs.read_script(data)
    kind = programs.foreign_kind(data)
    if kind is not None or script is None:
        what = kind or "no program for Linux and no script"
        yield error("architecture", f"cannot run {found}: it is {what}", "build the server for Linux")
        return
    if script.crlf:
        yield error(
            "line-endings",
            f"cannot run {found}: it has Windows line endings (CRLF)",
            f"add RUN sed -i 's/\\r$//' {found}, or save it with LF (.gitattributes: *.sh text eol=lf)",
        )
    if executed and not script.interpreter:
        yield error("interpreter", f"cannot start {found}: it has no #! line", "make #!/bin/sh its first line")
    elif script.interpreter and not (image.has(script.interpreter) and image.find(script.program)):
        missing = script.interpreter if not image.has(script.interpreter) else script.program
        level = error if executed else note
        yield level(
            "interpreter", f"cannot start {found}: {missing} is not in the image", "install it, or use #!/bin/sh"
        )
    elif not script.crlf:
        yield ok("program", f"{found} is a script for {script.program or 'a shell'}")
    if programs.traps_in_foreground(script.text):
        yield warning(
            "signals",
            f"{found} traps SIGTERM, but runs the game in its foreground: a shell runs a trap only when that has ended",
            "let it end with `exec` and the game's program; the agent tells the game and calls the self-stop itself",
        )
    if programs.prints_environment(script.text):
        yield warning(
            "secrets",
            f"{found} prints all variables, ARBITRIUM_DELETE_TOKEN among them, into the logs",
            "print the ones that you need by name",
        )
    if programs.looks_unreal(script.text) or programs.looks_unreal(found):
        yield from _check_root(image, found)
    text = programs.with_unreal_root(script.text, os.path.dirname(found))
    yield from _check_line(image, text, found, depth)


def _check_root(image: Image, found: str) -> Iterator[Finding]:
    if image.uid == 0 and not image.environ.get("AGENT_GAME_USER"):
        yield error(
            "user",
            f"cannot run {found} as root: an Unreal server refuses that",
            "add RUN useradd game, chown its directory, and USER game (and run this check after that line)",
        )


# What it needs --------------------------------------------------------------------------------------------------------


def check_certificates(image: Image) -> Iterator[Finding]:
    """CA certificates, for what the game itself calls by https."""
    named = [path for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if (path := image.environ.get(name))]
    for path in named:
        if not os.path.exists(image.path(path)):
            yield error(
                "certificates",
                f"cannot verify any server: SSL_CERT_FILE or SSL_CERT_DIR names {path}, which is not in the image",
                "correct the variable, or remove it: the agent brings certificates of its own",
            )
    if not named and not any(image.has(path) for path in CERTIFICATES):
        yield warning(
            "certificates",
            "the image has no CA certificates: the agent brings its own, but the game cannot verify any https server",
            "install the package ca-certificates if the game calls one",
        )
    elif not named:
        yield ok("certificates", "CA certificates are installed")


def check_folders(image: Image) -> Iterator[Finding]:
    """Where the agent writes; whether the root is read-only cannot be known at build time."""
    if not any(os.access(image.path(folder), os.W_OK) for folder in ("/run", "/tmp")):  # noqa: S108 - asked, not used
        yield note(
            "folders",
            f"user {image.uid} can write neither /run nor /tmp: no Unix socket, and logs are kept in memory only",
            "create one of them, or set AGENT_SOCKET_PATH and AGENT_SPOOL_DIR to a directory that can",
        )


def check_runtime(image: Image) -> Iterator[Finding]:
    """The agent's own directory, where this is it."""
    home = image.path(RUNTIME)
    if not os.path.isdir(home):
        return
    for name in ("entrypoint.sh", "bin/arbitrium-agent", "libexec/arbitrium-agent"):
        if not os.access(os.path.join(home, name), os.X_OK):
            yield error(
                "runtime",
                f"cannot start the agent: {RUNTIME}/{name} is missing or not executable",
                f"copy the whole directory: COPY --from=arbitrium-agent {RUNTIME} {RUNTIME}",
            )
    if not image.has("/bin/sh"):
        yield note(
            "runtime",
            "the image has no /bin/sh, which entrypoint.sh needs",
            f'write ENTRYPOINT ["{RUNTIME}/bin/arbitrium-agent", "run", "--"]',
        )


def shell_form_of(argv: list[str]) -> bool:
    """Whether a process is the shell of an ENTRYPOINT in shell form."""
    return argv[:2] == SHELL and len(argv) > 2 and programs.starts_agent(argv[2])
