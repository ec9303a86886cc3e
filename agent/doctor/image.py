"""`doctor --image`: what will fail when a container of this image starts.

To be used at build time, in a `RUN` after the last `USER`, so that it has the same view as the game.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from agent.doctor import access, elf, programs, scripts, shell
from agent.doctor.access import Person
from agent.doctor.dockerfile import SHELL, Start
from agent.doctor.dockerfile import check as check_start
from agent.doctor.elf import Elf
from agent.doctor.findings import Finding, Level, error, note, ok, warning
from agent.doctor.places import ENTRYPOINT, RUNTIME
from agent.doctor.wrappers import file_of, unwrap

# Where the images of the usual distributions have their certificates.
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)
_BEGINNING = 1024 * 1024  # of a file; whole scripts are in it
_DEPTH = 5  # a shell that calls a start script that calls the server
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # what an engine sets where the image does not


@dataclass(frozen=True)
class Image:
    """What the checks look at.

    Attributes:
        environ: the variables that the container will have.
        person: the user that will run the game.
        machine: what it will run on, as `uname -m` has it.
        root: where the image's files are.
        workdir: where relative paths begin.
        volumes: directories whose content comes at run time.
    """

    environ: Mapping[str, str]
    person: Person
    machine: str
    root: str = "/"
    workdir: str = "/"
    volumes: tuple[str, ...] = ()
    seen: set[tuple[str, str]] = field(default_factory=set)  # programs that were looked at already, and by whom

    @classmethod
    def current(cls, user: str | None = None, start: Start | None = None) -> Image:
        """The image that this process runs in.

        Args:
            user: who will run it, by name or number (USER of a Dockerfile); the current user by default.
            start: what the Dockerfile says, if it was given.
        """
        environ = dict(os.environ)
        wanted = environ.get("AGENT_GAME_USER") or user
        me = access.find(str(os.getuid())) or Person(os.getuid())
        if wanted is None:
            me = replace(me, groups=me.groups | {os.getgid(), *os.getgroups()})
        person = (access.find(wanted) if wanted else me) or me
        workdir = start.workdir if start is not None and start.workdir else os.getcwd()
        return cls(environ, person, os.uname().machine, workdir=workdir, volumes=start.volumes if start else ())

    def path(self, name: str) -> str:
        """Where a file of the image is to be found from here."""
        return os.path.join(self.root, os.path.join(self.workdir, name).lstrip("/"))

    def has(self, name: str) -> bool:
        """Whether the image has a file, or a link to one."""
        return os.path.isfile(self.path(name))

    def find(self, program: str, environ: Mapping[str, str] | None = None) -> str | None:
        """Looks a program up as `execvp` does; None if there is none."""
        if "/" in program:
            found = os.path.normpath(os.path.join(self.workdir, program))
            return found if os.path.exists(self.path(found)) else None
        for folder in (environ or self.environ).get("PATH", _PATH).split(":"):
            if self.has(os.path.join(folder or ".", program)):
                return os.path.join(folder or self.workdir, program)
        return None

    def barrier(self, name: str) -> str | None:
        """The directory above a path that the user may not enter, or None."""
        return access.barrier(os.path.join(self.workdir, name), self.person, self.root)

    def beginning(self, name: str) -> bytes:
        """The first bytes of a file."""
        with open(self.path(name), "rb") as file:
            return file.read(_BEGINNING)

    def elf(self, name: str) -> Elf | None:
        """A program or a library; None where there is none."""
        try:
            with open(self.path(name), "rb") as file:
                return elf.read_elf(file)
        except OSError:
            return None

    def real(self, name: str) -> str:
        """A path with its links followed, inside the image."""
        resolved = os.path.realpath(self.path(name))
        root = os.path.realpath(self.root)
        return resolved if root == "/" else "/" + os.path.relpath(resolved, root)

    def text(self, name: str) -> str | None:
        """A text file, or None."""
        try:
            script = programs.read_script(self.beginning(name))
        except OSError:
            return None
        return script.text if script is not None else None

    def comes_later(self, name: str, *, empty: bool = True) -> bool:
        """Whether a path lies where something is mounted at run time.

        Args:
            name: the path.
            empty: whether a directory that is empty counts as one, and not declared volumes alone.
        """
        if any(name == volume or name.startswith(volume.rstrip("/") + "/") for volume in self.volumes):
            return True
        folder = os.path.dirname(name)
        if not empty:
            return False
        try:
            return folder not in ("/", "") and not os.listdir(self.path(folder))
        except OSError:
            return False


def check_image(image: Image, command: list[str], start: Start | None = None) -> list[Finding]:
    """Runs every check.

    Args:
        image: where to look.
        command: the game's command (CMD); empty where it was not given.
        start: what the Dockerfile says, if it was given.
    """
    findings: list[Finding] = []
    if start is not None:
        findings += check_start(start, image.environ)
        command = command or (start.game or [])
        if start.needs_shell and not image.has("/bin/sh"):
            findings.append(_no_shell(error))
    if command:
        findings += check_command(image, command)
    elif start is None:
        findings.append(
            note(
                "command", "the game's command was not given", "add it: arbitrium-agent doctor --image -- COMMAND ARGS"
            )
        )
    findings += check_certificates(image)
    findings += check_folders(image)
    findings += check_runtime(image, start)
    return _each_once(findings)


def _each_once(findings: list[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))


# What is started ------------------------------------------------------------------------------------------------------


def shell_form_of(argv: list[str]) -> bool:
    """Whether a process is the shell of an ENTRYPOINT in shell form."""
    return argv[:2] == SHELL and len(argv) > 2 and programs.starts_agent(argv[2])


def check_command(image: Image, command: list[str]) -> Iterator[Finding]:
    """The game's command: its program, what that needs, and what a shell in it would run."""
    shell_of = programs.read_shell(command)
    if shell_of is not None and shell_of.line is not None and programs.starts_agent(shell_of.line):
        yield error(
            "entrypoint",
            f"`{' '.join(command)}`: ENTRYPOINT is in shell form: CMD is ignored then, and SIGTERM goes to the shell "
            "instead of the agent",
            f"write it as a list: {ENTRYPOINT}",
        )
        return
    yield from _Walk(image, dict(image.environ)).command(command, depth=0)


@dataclass(frozen=True)
class _Walk:
    """One place in the chain of scripts and wrappers that leads to the game.

    Attributes:
        image: with the directory and the user of this place.
        environ: the variables of this place.
        sure: whether the chain comes here each time.
        unknown: variables that this place has, with values that cannot be told.
    """

    image: Image
    environ: dict[str, str]
    sure: bool = True
    unknown: frozenset[str] = frozenset()

    def command(self, words: list[str], depth: int, *, game: bool = True, made: bool = False) -> Iterator[Finding]:
        """A program with its arguments, whatever is in front of it.

        Args:
            words: program and arguments; `?` is what cannot be told.
            depth: how many scripts led here.
            game: whether this is the game, and not a helper of its script.
            made: whether a command before it may have made the program.
        """
        behind = unwrap(words)
        for wrapper in behind.wrappers:
            if self.image.find(wrapper, self.environ) is None:
                yield from self._missing(wrapper, game=game, made=made, depth=depth)
        walk = self
        if behind.user and (person := access.find(behind.user, self.image.root)) is not None:
            walk = replace(self, image=replace(self.image, person=person))
        if behind.shell is not None:
            yield from walk.program(behind.command[0], [], depth, game=game, made=made)
            yield from walk._shell(behind.shell, behind.command, depth, game=game, made=made)
        elif behind.command[:1] == ["?"]:
            return
        elif behind.command:
            yield from walk.program(
                behind.command[0], behind.command[1:], depth, game=game, made=made, emulated=behind.emulated
            )
            named = file_of(behind.command)
            if named and "?" not in named and self.image.find(os.path.join(".", named)) is None:
                yield from walk._missing(os.path.join(self.image.workdir, named), game=game, made=made, depth=depth)
        elif behind.wrappers:
            yield warning(
                "command", f"`{' '.join(words)}` has nothing to start", "name the game's program or start script"
            )

    def _shell(
        self, called: programs.Shell, command: list[str], depth: int, *, game: bool, made: bool
    ) -> Iterator[Finding]:
        if called.line is not None:
            name = "the command" if depth == 0 else f"`{called.line}`"
            rest = command[command.index(called.line) + 1 :] if called.line in command else []
            yield from self._text(name, called.line, rest[0] if rest else command[0], rest[1:], depth)
        elif called.script is not None:
            at = command.index(called.script)
            script = called.script if "/" in called.script else os.path.join(self.image.workdir, called.script)
            yield from self.program(script, command[at + 1 :], depth, game=game, made=made, executed=False)
        elif depth == 0:
            yield warning(
                "command",
                f"`{' '.join(command)}` is a shell with nothing to run",
                "name the game's program or start script",
            )

    def _missing(self, program: str, *, game: bool, made: bool, depth: int) -> Iterator[Finding]:
        path = os.path.normpath(os.path.join(self.image.workdir, program)) if "/" in program else program
        where = "" if "/" in program else " in PATH"
        barrier = self.image.barrier(path) if "/" in program else None
        if barrier is not None:
            yield self._as_sure(
                error(
                    "permission",
                    f"cannot start {path}: the user {self.image.person} may not enter {barrier} (permission)",
                    f"add RUN chmod a+x {barrier}, or COPY --chown={self.image.person}",
                )
            )
            return
        if (
            made
            or "?" in program
            or ("PATH" in self.unknown and where)
            or ("/" in path and self.image.comes_later(path, empty=depth > 0))
        ):
            yield note(
                "program",
                f"cannot tell whether {path} starts: it is not in the image{where}, and may come at run time "
                "(a volume, a download, a variable)",
            )
            return
        found = error("program", f"cannot start {path}: there is no such file{where}", "check the path and the COPY")
        if depth and not game:
            found = replace(found, level=Level.WARNING)
        yield self._as_sure(found)

    def _as_sure(self, finding: Finding) -> Finding:
        """In a branch that may not be taken, nothing is more than worth knowing."""
        return finding if self.sure or finding.level is Level.OK else replace(finding, level=Level.NOTE)

    def program(
        self,
        program: str,
        arguments: list[str],
        depth: int,
        *,
        game: bool = True,
        made: bool = False,
        executed: bool = True,
        emulated: bool = False,
    ) -> Iterator[Finding]:
        """One program or start script.

        Args:
            program: path, or a name to look up in PATH.
            arguments: its arguments.
            depth: how many scripts led here.
            game: whether this is the game, and not a helper of its script.
            made: whether a command before it may have made it.
            executed: whether the kernel executes it; a script that is an argument of a shell is only read.
            emulated: whether another machine's programs run here.
        """
        image = self.image
        found = image.find(program, self.environ)
        if found is None or ("/" in program and image.barrier(found) is not None):
            yield from self._missing(program, game=game, made=made, depth=depth)
            return
        if (found, str(image.person)) in image.seen:
            return
        image.seen.add((found, str(image.person)))
        for finding in self._file(found, arguments, depth, executed=executed, emulated=emulated, made=made):
            yield self._as_sure(finding)

    def _file(
        self, found: str, arguments: list[str], depth: int, *, executed: bool, emulated: bool, made: bool
    ) -> Iterator[Finding]:
        image = self.image
        path = image.path(found)
        if os.path.isdir(path):
            yield error("program", f"cannot start {found}: it is a directory", "name the program in it")
            return
        if executed and not emulated and not access.allowed(path, image.person, access.EXECUTE):
            if os.stat(path).st_mode & 0o111:
                yield error(
                    "permission",
                    f"cannot start {found}: the user {image.person} may not execute it (permission)",
                    f"add RUN chmod a+rx {found}, or COPY --chown={image.person}",
                )
            elif made:
                yield note("program", f"cannot tell whether {found} is executable: the script may see to that")
            else:
                yield error("program", f"cannot start {found}: it is not executable", f"add RUN chmod +x {found}")
        try:
            data = image.beginning(found)
        except OSError:
            yield note("program", f"cannot tell what {found} is: this user may not read it", "run the check as root")
            return
        program = image.elf(found)
        if program is not None:
            yield from self._elf(found, program, emulated=emulated)
        elif not emulated:
            yield from self._script(found, data, arguments, depth, executed=executed)

    def _elf(self, found: str, program: Elf, *, emulated: bool) -> Iterator[Finding]:
        image = self.image
        if emulated:
            yield ok("program", f"{found} is a program for {program.machine}")
            return
        if not elf.can_run(image.machine, program.machine):
            yield error(
                "architecture",
                f"cannot run {found}: it is built for {program.machine}, and the image is for {image.machine}",
                "build the server for Linux on this architecture, or the image with --platform",
            )
        elif program.loader is not None and not image.has(program.loader):
            yield error(
                "loader",
                f"cannot run {found}: it needs {program.loader}, which is not in the image",
                "use a base image with the C library that it was built for (glibc: debian, ubuntu; musl: alpine)",
            )
        else:
            missing = list(self._libraries(found, program))
            yield from missing or [ok("program", f"{found} is a program for {program.machine}")]
        if programs.looks_unreal(found) and image.person.uid == 0:
            yield error(
                "user",
                f"cannot run {found} as root: an Unreal server refuses that",
                "add RUN useradd game, chown its directory, and USER game (and run this check after that line)",
            )

    def _libraries(self, found: str, program: Elf) -> Iterator[Finding]:
        image = self.image
        preferred = [
            os.path.normpath(os.path.join(image.workdir, folder)) if folder else image.workdir
            for folder in self.environ.get("LD_LIBRARY_PATH", "").split(":")
        ]
        missing = elf.missing_libraries(
            found,
            program,
            open_elf=image.elf,
            configured=_configured(image),
            preferred=preferred if self.environ.get("LD_LIBRARY_PATH") else [],
        )
        level = note if "LD_LIBRARY_PATH" in self.unknown else error
        absent = [one for one in missing if not one.version]
        if absent:
            names = ", ".join(dict.fromkeys(one.library for one in absent))
            by = "" if all(one.of == found for one in absent) else f" (needed by {absent[0].of})"
            yield level(
                "libraries",
                f"cannot run {found}: the image lacks {names}{by}",
                "install the packages that have them, or set LD_LIBRARY_PATH to the directory that does",
            )
        old: dict[str, elf.Missing] = {}
        for one in missing:
            if one.version:
                old[one.library] = max(old.get(one.library, one), one, key=lambda each: _numbers(each.version))
        for library, one in old.items():
            has = f" and the image has {one.newest}" if one.newest else ""
            what = "C library" if library.startswith("libc.so") else library
            yield level(
                "libraries",
                f"cannot run {found}: the {what} of the image is too old: {one.of} needs {one.version}{has}",
                "use a newer base image, or build the server on an older one",
            )

    def _script(
        self, found: str, data: bytes, arguments: list[str], depth: int, *, executed: bool
    ) -> Iterator[Finding]:
        image = self.image
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
        name = os.path.basename(script.program)
        if (not name or name in programs.SHELLS or name == "with-contenv") and depth < _DEPTH:
            text = script.text
            if "x" in script.argument.partition("-")[2].split(" ")[0] and name in programs.SHELLS:
                text = text.replace("\n", "\nset -x\n", 1)
            yield from self._text(found, text, found, arguments, depth)

    def _text(self, name: str, text: str, zero: str, arguments: list[str], depth: int) -> Iterator[Finding]:
        """What a script or a line does."""
        image = self.image
        reading = shell.read(
            text,
            name=zero,
            arguments=None if "?" in arguments else arguments,
            environ={
                "LD_LIBRARY_PATH": "",
                **{key: value for key, value in self.environ.items() if not key.startswith("ARBITRIUM_")},
            },
            directory=image.workdir,
            files=shell.Files(image.real, image.text),
        )
        yield from scripts.judge(name, reading)
        servers = [command for command in reading.commands if scripts.is_server(command)]
        made = False
        told = False
        for command in reading.commands:
            # eval with something that cannot be told is as good as a program that cannot.
            known = command.words and command.words[0] is not None and command.name != "eval"
            if command.name in ("cd", "pushd") and command.sure and not made:
                yield from self._directory(name, command)
            if known and command.name not in shell.BUILTINS:
                words = [word if word is not None else "?" for word in command.words]
                if command.directory is not None or words[0].startswith("/") or "/" not in words[0]:
                    yield from self._inside(command).command(
                        words, depth + 1, game=command is (servers[-1] if servers else None), made=made
                    )
            elif not known and command.sure and not told:
                told = True
                yield note("program", f"cannot tell what `{command.text}` in {name} starts: only the shell knows")
            made = made or scripts.makes_files(command) or command.name in (".", "source", "eval")

    def _inside(self, command: shell.Command) -> _Walk:
        """This place as a command of a script has it."""
        changed = {**command.exported, **command.assigned}
        environ = {**self.environ, **{name: value for name, value in changed.items() if value is not None}}
        unknown = self.unknown | {name for name, value in changed.items() if value is None}
        where = command.directory if command.directory is not None else self.image.workdir
        return _Walk(replace(self.image, workdir=where), environ, self.sure and command.sure, frozenset(unknown))

    def _directory(self, name: str, command: shell.Command) -> Iterator[Finding]:
        target = command.arguments()[0] if command.arguments() else ""
        if not target or target.startswith("-") or command.directory is None:
            return
        where = os.path.normpath(os.path.join(command.directory, target))
        there = os.path.isdir(self.image.path(where)) or self.image.barrier(where + "/x") is not None
        if not there and not self.image.comes_later(where):
            yield self._as_sure(
                warning("program", f"{name} goes to {where}, which is not in the image", "check the path")
            )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.rpartition("_")[2].split(".") if part.isdigit()]


def _configured(image: Image) -> list[str]:
    """The directories of /etc/ld.so.conf and what it includes, and of musl's own file."""
    found: list[str] = []
    files = ["/etc/ld.so.conf"]
    with contextlib.suppress(OSError):
        files += sorted(f"/etc/ld.so.conf.d/{name}" for name in os.listdir(image.path("/etc/ld.so.conf.d")))
    files.append(f"/etc/ld-musl-{image.machine}.path")
    for file in files:
        lines = (image.text(file) or "").replace(":", "\n").splitlines()
        found.extend(line.strip() for line in lines if line.startswith("/"))
    return found


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
            f"user {image.person} can write neither /run nor /tmp: no Unix socket, and logs are kept in memory only",
            "create one of them, or set AGENT_SOCKET_PATH and AGENT_SPOOL_DIR to a directory that can",
        )


def _no_shell(level: Callable[[str, str, str], Finding]) -> Finding:
    return level(
        "runtime",
        "cannot start the agent with entrypoint.sh: the image has no /bin/sh"
        if level is error
        else "the image has no /bin/sh, which entrypoint.sh needs",
        f'write ENTRYPOINT ["{RUNTIME}/bin/arbitrium-agent", "run", "--"]',
    )


def check_runtime(image: Image, start: Start | None = None) -> Iterator[Finding]:
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
    if start is None and not image.has("/bin/sh"):
        # Which ENTRYPOINT the image has is not known here: with entrypoint.sh no container would start.
        yield _no_shell(warning)
