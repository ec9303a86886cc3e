"""Finds the command that a stage of a Dockerfile starts, and checks it. Pure.

Docker's reference for ENTRYPOINT and CMD: https://docs.docker.com/reference/dockerfile/ (both forms, `SHELL`, how a
stage inherits, and that an ENTRYPOINT resets a CMD of the base image).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from agent.doctor import programs, shell
from agent.doctor.findings import Finding, error, note, ok, warning
from agent.doctor.places import ENTRYPOINT, RUNTIME
from agent.doctor.wrappers import unwrap

SHELL = ["/bin/sh", "-c"]
_VARIABLE = re.compile(r"\\\$|\$\{([A-Za-z_]\w*)(?:(:?[-+])([^}]*))?\}|\$([A-Za-z_]\w*)")
# Images whose own start is known: no ENTRYPOINT, and a CMD that is a shell.
_PLAIN = frozenset(
    [
        "scratch",
        "debian",
        "ubuntu",
        "alpine",
        "busybox",
        "fedora",
        "centos",
        "rockylinux",
        "almalinux",
        "amazonlinux",
        "archlinux",
        "opensuse",
        "oraclelinux",
        "photon",
        "steamrt",
    ]
)
# Images whose ENTRYPOINT is an init of their own that has to be PID 1 (s6-overlay, phusion's my_init).
_OWN_INIT = re.compile(r"/(?:init|sbin/my_init)$")
_AGENT_FILES = re.compile(rf"{RUNTIME}|arbitrium-agent")


@dataclass(frozen=True)
class Start:
    """How a container of a stage is started.

    Attributes:
        entrypoint: program and arguments; None where no stage that is seen has one. Shell form has the shell in front.
        shell_form: whether ENTRYPOINT is in shell form.
        command: of CMD, likewise.
        command_shell_form: whether CMD is in shell form.
        user: of USER with its group, or None.
        workdir: of WORKDIR, or None.
        environ: of ENV.
        ports: of EXPOSE: (number, "tcp" or "udp").
        volumes: of VOLUME.
        base: the image that the first of its stages begins with.
        copied: what COPY --from took the agent's directory from, or None.
        replaced: ENTRYPOINTs that a later one replaced, oldest first.
        command_own: whether CMD is this stage's own, and not one of the stage that it is made from.
        checked: whether `doctor` runs in it.
        checked_before_user: whether it does before the last USER.
        shell: of SHELL.
        found: whether the stage that was asked for is there.
    """

    entrypoint: list[str] | None = None
    shell_form: bool = False
    command: list[str] | None = None
    command_shell_form: bool = False
    user: str | None = None
    workdir: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[tuple[int, str], ...] = ()
    volumes: tuple[str, ...] = ()
    base: str = ""
    copied: str | None = None
    replaced: tuple[tuple[str, ...], ...] = ()
    command_own: bool = False
    checked: bool = False
    checked_before_user: bool = False
    shell: tuple[str, ...] = tuple(SHELL)
    found: bool = True

    @property
    def needs_shell(self) -> bool:
        """Whether ENTRYPOINT is the agent's script, which /bin/sh runs."""
        return any(word.endswith("/entrypoint.sh") and "arbitrium" in word for word in self.entrypoint or [])

    @property
    def agent(self) -> list[str] | None:
        """What of ENTRYPOINT starts the agent, without what is in front of it; None where nothing does."""
        if self.entrypoint is None:
            return None
        words = self.entrypoint
        if self.shell_form:
            words = next(
                (
                    [word or "?" for word in command.words]
                    for command in shell.read(words[-1]).commands
                    if any(word and programs.starts_agent(word) for word in command.words)
                ),
                words,
            )
        behind = unwrap(words).command
        return behind if behind and programs.starts_agent(behind[0]) else None

    @property
    def game(self) -> list[str] | None:
        """The game's command: what stands behind the agent in ENTRYPOINT, then CMD; None where there is none."""
        agent = self.agent
        if agent is None:
            return self.command if self.entrypoint is None else None
        rest = agent[1:]
        if agent[0].endswith("/bin/arbitrium-agent"):
            rest = rest[rest.index("--") + 1 :] if "--" in rest else []
        given = [] if self.shell_form else self.command or []
        return [*rest, *given] or None


def read(text: str, target: str | None = None) -> Start:
    """Reads a stage, and those that it is made from.

    Args:
        text: the whole Dockerfile; variables of ARG with a default are replaced.
        target: name or number of the stage, as `--target` takes it; the last one by default.
    """
    stages: dict[str, Start] = {}
    arguments: dict[str, str] = {}
    start, name, count = Start(), "", 0
    for instruction, rest in instructions(text):
        if instruction == "FROM":
            if target is not None and count and target.lower() in (name, str(count - 1)):
                return start
            words = [word for word in rest.split() if not word.startswith("--")]
            base = _replaced(words[0] if words else "", arguments)
            stages[name] = start
            name = words[2].lower() if len(words) >= 3 and words[1].lower() == "as" else ""
            # Of a stage that is seen everything is inherited; of an image that is not, nothing is known.
            start = Start(base=base)
            if base.lower() in stages:
                inherited = stages[base.lower()]
                start = replace(inherited, command_own=False, checked=False, checked_before_user=False)
            count += 1
        elif instruction == "ARG" and not count:
            key, _, value = rest.partition("=")
            arguments[key.strip()] = value.strip().strip("\"'")
        else:
            start = _apply(start, instruction, rest, arguments)
    if target is not None and target.lower() not in (name, str(count - 1)):
        return replace(start, found=False)
    return start


def _apply(  # noqa: C901, PLR0911 - one branch an instruction
    start: Start, instruction: str, rest: str, arguments: dict[str, str]
) -> Start:
    variables = {**arguments, **start.environ}
    match instruction:
        case "ARG":
            key, _, value = rest.partition("=")
            arguments.setdefault(key.strip(), value.strip().strip("\"'"))
        case "ENV":
            return replace(start, environ={**start.environ, **_pairs(rest, variables)})
        case "USER":
            return replace(start, user=_replaced(rest.strip(), variables), checked_before_user=start.checked)
        case "WORKDIR":
            where = _replaced(rest.strip().strip("\"'"), variables)
            return replace(start, workdir=os.path.normpath(os.path.join(start.workdir or "/", where)))
        case "EXPOSE":
            return replace(start, ports=(*start.ports, *_ports(_replaced(rest, variables))))
        case "VOLUME":
            words, shell_form = _words(rest, [])
            return replace(start, volumes=(*start.volumes, *(rest.split() if shell_form else words)))
        case "SHELL":
            words, shell_form = _words(rest, [])
            return start if shell_form else replace(start, shell=tuple(words))
        case "COPY" | "ADD" if _AGENT_FILES.search(rest):
            source = re.search(r"--from=(\S+)", rest)
            return replace(start, copied=_replaced(source[1], variables) if source else start.copied or "")
        case "RUN" if "doctor" in rest and "--image" in rest and "--user" not in rest and "--dockerfile" not in rest:
            return replace(start, checked=True)
        case "ENTRYPOINT":
            # A new ENTRYPOINT takes away a CMD that came with the base image, not one of this Dockerfile.
            words, shell_form = _words(rest, [*start.shell])
            gone = (*start.replaced, tuple(start.entrypoint)) if start.entrypoint else start.replaced
            start = start if start.command_own else replace(start, command=None, command_shell_form=False)
            return replace(start, entrypoint=words or None, shell_form=shell_form, replaced=gone)
        case "CMD":
            words, shell_form = _words(rest, [*start.shell])
            return replace(start, command=words, command_shell_form=shell_form, command_own=True)
    return start


def _pairs(rest: str, variables: Mapping[str, str]) -> dict[str, str]:
    if "=" not in rest.split(" ", 1)[0]:  # the old form: ENV NAME the whole rest
        name, _, value = rest.partition(" ")
        return {name: _replaced(value.strip(), variables)}
    found = {}
    for match in re.finditer(r"(\w+)=(\"(?:\\.|[^\"])*\"|'[^']*'|(?:\\.|\S)*)", rest):
        value = match[2]
        quoted = value[:1] in ("'", '"') and len(value) > 1
        plain = value[1:-1] if quoted else value
        found[match[1]] = plain if value.startswith("'") else _replaced(plain, variables)
    return found


def _replaced(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[0] == "\\$":
            return "$"
        known = variables.get(match[1] or match[4])
        if match[2] and "-" in match[2]:
            return known or match[3]
        return match[0] if known is None else known

    return _VARIABLE.sub(value, text)


def _ports(text: str) -> Iterator[tuple[int, str]]:
    for word in text.split():
        numbers, _, protocol = word.partition("/")
        first, _, last = numbers.partition("-")
        if first.isdigit() and (last or first).isdigit() and int(last or first) - int(first) < 1000:
            for number in range(int(first), int(last or first) + 1):
                yield number, protocol.lower() or "tcp"


def instructions(text: str) -> list[tuple[str, str]]:
    """Splits a Dockerfile into instructions with what follows them; comments and here-documents are left out."""
    directive = re.match(r"(?:\s*#[^\n]*\n)*?\s*#\s*escape\s*=\s*([`\\])", text, re.IGNORECASE)
    escape = directive[1] if directive else "\\"
    found = []
    joined = ""
    documents: list[str] = []
    for raw in text.lstrip("\ufeff").splitlines():
        line = raw.rstrip()
        if documents:  # inside a here-document
            if line.lstrip("\t") == documents[0]:
                documents.pop(0)
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        joined += line.strip() if not joined else " " + line.strip()
        if joined.endswith(escape):
            joined = joined[:-1].rstrip()
            continue
        name, _, rest = joined.replace("\t", " ").partition(" ")
        found.append((name.upper(), rest.strip()))
        if name.upper() in {"RUN", "COPY", "ADD"}:
            documents = re.findall(r"(?<!<)<<-?[\"']?([A-Za-z_]\w*)", rest)
        joined = ""
    return found


def _words(rest: str, prefix: list[str]) -> tuple[list[str], bool]:
    try:
        words = json.loads(rest)
    except ValueError:
        words = None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return words, False
    return [*prefix, rest], True


# What is wrong with it ------------------------------------------------------------------------------------------------


def check(start: Start, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """ENTRYPOINT, CMD, USER, EXPOSE and the bases of a Dockerfile.

    Args:
        start: what was read.
        environ: variables of the build, where the mapping of ports may be.
    """
    if start.entrypoint is None:
        yield from _no_entrypoint(start)
    elif start.agent is None:
        yield from _without_agent(start)
    else:
        yield from _with_agent(start)
        yield from _command(start)
    yield from _versions(start)
    if start.checked_before_user and start.user not in (None, "root", "0"):
        yield note(
            "user",
            f"`doctor --image` runs before USER {start.user}: it judges for another user than the one of the container",
            "move the RUN behind the last USER, or add --user",
        )
    yield from check_exposed(start, {**start.environ, **(environ or {})})


def _base_name(base: str) -> str:
    return base.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()


def _no_entrypoint(start: Start) -> Iterator[Finding]:
    if start.copied is not None or _base_name(start.base) in _PLAIN:
        what = "the agent is not started: the last stage has no ENTRYPOINT with it"
        if start.copied is None:
            yield error("entrypoint", what, f"add COPY --from=arbitrium-agent {RUNTIME} {RUNTIME} and {ENTRYPOINT}")
        else:
            yield error("entrypoint", what, f"add {ENTRYPOINT}")
    else:
        base = start.base or "its base"
        yield note(
            "entrypoint",
            f"cannot tell whether the agent is started: there is no ENTRYPOINT, and {base} cannot be seen here",
            f"look at its ENTRYPOINT (docker inspect {base}), or add {ENTRYPOINT}",
        )


def _text_of(words: list[str] | tuple[str, ...]) -> str:
    return json.dumps(list(words))


def _without_agent(start: Start) -> Iterator[Finding]:
    assert start.entrypoint is not None
    line = start.entrypoint[-1]
    if start.shell_form and line.lstrip().startswith("[") and programs.starts_agent(line):
        yield error(
            "entrypoint",
            f"ENTRYPOINT {line} is no list: an engine takes what is no JSON (double quotes, no comma at the end) for a "
            "shell line",
            f"write {ENTRYPOINT}",
        )
        return
    if _OWN_INIT.search(start.entrypoint[0]) and programs.starts_agent(" ".join(start.command or [])):
        yield ok("entrypoint", f"{start.entrypoint[0]} is PID 1, and starts the agent")
        return
    lost = next((words for words in reversed(start.replaced) if programs.starts_agent(" ".join(words))), None)
    if lost is not None:
        yield error(
            "entrypoint",
            f"the agent is not started: a later ENTRYPOINT replaces {_text_of(lost)}",
            "keep the agent's ENTRYPOINT as the last one, and write what the other one starts into CMD",
        )
    elif start.copied is None and _base_name(start.base) not in _PLAIN:
        yield note("entrypoint", "the agent is in no line of this Dockerfile, and not in its ENTRYPOINT")
    elif start.shell_form:
        yield error(
            "entrypoint",
            f"the agent is not started: ENTRYPOINT is `{line}`",
            f"write {ENTRYPOINT} and CMD {line}",
        )
    else:
        yield error(
            "entrypoint",
            f"the agent is not started: ENTRYPOINT is {_text_of(start.entrypoint)}",
            f"write {ENTRYPOINT} and make CMD {_text_of([*start.entrypoint, *(start.command or [])])}",
        )


def _with_agent(start: Start) -> Iterator[Finding]:
    assert start.entrypoint is not None
    agent = start.agent or []
    if start.shell_form:
        yield from _shell_form(start)
    elif agent[0].endswith("/bin/arbitrium-agent") and "run" not in agent:
        yield error(
            "entrypoint",
            "cannot start the game: ENTRYPOINT calls the agent without a command",
            f'write ENTRYPOINT ["{RUNTIME}/bin/arbitrium-agent", "run", "--"]',
        )
    elif agent[0].endswith("/bin/arbitrium-agent") and "--" not in agent:
        yield error(
            "entrypoint",
            "cannot start the game: options of CMD would be the agent's, since ENTRYPOINT has no `--`",
            f'write ENTRYPOINT ["{RUNTIME}/bin/arbitrium-agent", "run", "--"]',
        )
    elif len(agent) < len(start.entrypoint):
        yield note(
            "entrypoint",
            f"{start.entrypoint[0]} is PID 1 and starts the agent: it works if SIGTERM is passed on, and is not needed",
            f"write {ENTRYPOINT}",
        )
    else:
        yield ok("entrypoint", "ENTRYPOINT starts the agent")
    own = [words for words in start.replaced if not programs.starts_agent(" ".join(words))]
    if own and not any(word in (start.game or []) for word in own[-1]):
        yield note(
            "entrypoint",
            f"ENTRYPOINT {_text_of(own[-1])} of an earlier stage is replaced by the agent's, and is not called",
            "put it in front of CMD if the game needs it",
        )


def _shell_form(start: Start) -> Iterator[Finding]:
    assert start.entrypoint is not None
    line = start.entrypoint[-1]
    executed = re.match(r"\s*(\w+=\S*\s+)*exec\s", line)
    if start.game is None:
        yield error(
            "entrypoint",
            f"ENTRYPOINT {line} is in shell form: CMD is ignored then, and SIGTERM goes to the shell, not to the agent",
            f"write it as a list: {ENTRYPOINT}",
        )
    elif executed:
        yield ok("entrypoint", "ENTRYPOINT starts the agent in place of its shell")
    else:
        yield warning(
            "entrypoint",
            f"ENTRYPOINT {line} is in shell form: SIGTERM goes to the shell, which passes none on, and CMD is ignored",
            f"write it as a list, {ENTRYPOINT}, or begin it with `exec`",
        )


def _command(start: Start) -> Iterator[Finding]:
    if start.game is None:
        if not start.shell_form:
            yield error(
                "command", "cannot start the game: there is no CMD in the last stage", 'add CMD ["/game/server"]'
            )
        return
    if start.shell_form and start.command is not None:
        yield note("command", "CMD has no effect: an ENTRYPOINT in shell form ignores it", "remove one of the two")
    game = start.game
    if not start.command_shell_form and not start.shell_form and programs.read_shell(game) is None:
        named = next((word for word in game if re.search(r"(?<!\\)\$\{?[A-Za-z_]", word)), None)
        if named is not None:
            yield warning(
                "command",
                f"CMD gives the game {named} as it is: in a list no variable is replaced",
                'write CMD without brackets, or ["/bin/sh", "-c", "exec ..."]',
            )
    line = game[-1] if start.command_shell_form else ""
    if line.lstrip().startswith("[") and re.match(r"\s*\[\s*['\"/]", line):
        yield error(
            "command",
            f"CMD {line} is no list: an engine takes what is no JSON (double quotes, no comma at the end) for a "
            "shell line",
            "write it with double quotes and without a comma at the end",
        )
    if _OWN_INIT.search(game[0]):
        yield error(
            "command",
            f"{game[0]} has to be PID 1, which the agent is",
            'let the init start the agent: docs/image.md, "An init that insists on PID 1"',
        )


def _versions(start: Start) -> Iterator[Finding]:
    for image, what in ((start.copied, "the agent"), (start.base, "the base image")):
        if not image or "@" in image or image.startswith("$") or image == "scratch":
            continue
        last = image.rpartition("/")[2]
        if ":" not in last and what == "the agent" and not last.startswith("arbitrium-agent"):
            continue  # a stage, or a name given with --build-context
        if ":" not in last or last.endswith(":latest"):
            yield note(
                "versions",
                f"{what} is {image}: whatever that is on the day of the build",
                "name a version or a digest, so that a rebuild gives the same",
            )


def check_exposed(start: Start, environ: Mapping[str, str]) -> Iterator[Finding]:
    """EXPOSE against the mapping of the platform, where the build knows it (ARBITRIUM_PORTS_MAPPING)."""
    try:
        ports = json.loads(environ.get("ARBITRIUM_PORTS_MAPPING", ""))["ports"].values()
        wanted = [(int(port["internal"]), str(port.get("protocol", "")).upper()) for port in ports]
    except (ValueError, TypeError, KeyError, AttributeError):
        return
    if not start.ports:
        return
    for number, protocol in wanted:
        kinds = [kind for kind in ("tcp", "udp") if kind.upper() in protocol] or ["tcp"]
        for kind in kinds:
            if (number, kind) not in start.ports:
                shown = ", ".join(f"{port}/{each}" for port, each in start.ports)
                yield warning(
                    "ports",
                    f"the mapping leads to port {number}/{kind}, which EXPOSE ({shown}) does not name",
                    "correct the version's ports, or EXPOSE",
                )
