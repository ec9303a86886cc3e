"""Finds mistakes in a start script, from the result of `shell.read`. Pure.

Facts about shells: a trap runs only after the command in the foreground has ended (POSIX, 2.11 "Signals and Error
Handling"); `exec` resets handlers to the default, and keeps ignored signals ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from agent.doctor import shell
from agent.doctor.findings import Finding, note, warning
from agent.doctor.shell import BUILTINS, Command, Reading
from agent.doctor.wrappers import unwrap

# Programs of start scripts that are no server: they end by themselves, or serve the server.
HELPERS = frozenset(
    """[ apk apt apt-get awk base64 basename cat chgrp chmod chown clear cmp cp curl cut date dd df diff dirname dmesg
    dos2unix du echo envsubst expr false file find flock free getent git grep egrep fgrep groupadd groupmod gzip
    gunzip head hostname id ifconfig install ip iptables jq kill killall ldconfig ldd less ln locale logger ls
    lsof lscpu md5sum mkdir mkfifo mktemp mount mv nc netstat nproc openssl paste pgrep ping pkill printenv
    printf ps pwd readlink realpath rev rm rmdir rsync sed seq sha256sum sleep sort ss stat steamcmd steamcmd.sh
    strings stty su-exec sync sysctl tac tail tar tee test timedatectl touch tput tr true tty ulimit umask uname
    uniq unlink unzip useradd usermod wc wget which whoami xargs xz yes yum zcat""".split()  # noqa: SIM905 - a hundred names in eight lines
)
# Of these, the ones that make no file that a later command could start.
_MAKES_NOTHING = BUILTINS | frozenset(
    """awk basename cat chgrp chmod chown clear cut date df dirname echo env expr false find free getent grep egrep
    head hostname id ifconfig ip jq kill ldd locale logger ls lsof mkdir nproc pgrep ping pkill printenv printf
    ps pwd readlink realpath rm rmdir seq sleep sort ss stat strings stty sync sysctl tail test touch tput tr
    true tty uname uniq wc which whoami""".split()  # noqa: SIM905 - as above
)
_TOKEN = "ARBITRIUM_DELETE_TOKEN"  # noqa: S105 - the name of the variable
_SAMPLES = (f"{_TOKEN}=0123456789abcdef0123456789abcdef", "ARBITRIUM_CONTEXT_TOKEN=0123456789abcdef0123456789abcdef")
_SHOWS_TOKEN = re.compile(r"\$\{?(ARBITRIUM_DELETE_TOKEN|ARBITRIUM_CONTEXT_TOKEN|ARBITRIUM_DELETE_URL)\b")
_USE_AGENT = "let it end with `exec` and the game's program; the agent tells the game and calls the self-stop itself"


def is_server(command: Command) -> bool:
    """Whether a command may be the game: no builtin, no everyday tool, and no output that is taken."""
    if command.output == "captured" or not command.words:
        return False
    words = [word if word is not None else "?" for word in command.words]
    behind = unwrap(words)
    if behind.shell is not None:
        return True
    name = os.path.basename(behind.command[0]) if behind.command else ""
    return bool(name) and name not in BUILTINS and name not in HELPERS and name != "env"


def makes_files(command: Command) -> bool:
    """Whether a later command could be something that this one has made."""
    return bool(command.words) and (command.name not in _MAKES_NOTHING or command.output == "file")


def judge(name: str, reading: Reading) -> Iterator[Finding]:
    """Everything that can be told of a script or a line.

    Args:
        name: for messages.
        reading: what was read.
    """
    yield from _signals(name, reading)
    yield from _ends(name, reading)
    yield from _secrets(name, reading)
    if not reading.complete:
        yield note("script", f"cannot tell all that {name} does: a part of it was not understood")


# Signals --------------------------------------------------------------------------------------------------------------


def _signals(name: str, reading: Reading) -> Iterator[Finding]:
    if "TERM" not in reading.traps:
        return
    action = reading.traps["TERM"]
    since = reading.trapped_at.get("TERM", 0)
    behind = [command for command in reading.commands[since:] if is_server(command)]
    if action == "":
        if behind:
            yield warning(
                "signals",
                f"{name} ignores SIGTERM, and so does what it starts, until that sets a handler of its own",
                "remove the trap: the agent decides who is told to stop",
            )
        return
    foreground = [command for command in behind if not command.background and not command.replaces]
    background = [command for command in reading.commands if command.background and is_server(command)]
    if foreground and not background:
        yield warning(
            "signals",
            f"{name} traps SIGTERM, but runs the game in its foreground (line {foreground[0].line}): a shell runs a "
            "trap only when that has ended",
            _USE_AGENT,
        )
    if action is not None and signals_itself(action, reading):
        yield warning(
            "signals",
            f"{name} sends SIGTERM to itself in its trap for SIGTERM: it runs again and again until SIGKILL",
            f"write `trap - TERM` first in the trap, or {_USE_AGENT}",
        )


def signals_itself(action: str, reading: Reading) -> bool:
    """Whether a trap's action sends the trapped signal to the shell, without taking the trap off before."""
    commands: list[Command] = []
    for command in shell.read(action).commands:
        commands += reading.functions.get(command.name, [command]) if command.words else []
    for command in commands:
        written = command.written
        if command.name == "trap" and re.search(r"trap\s+(--\s+)?(-|''|\"\")\s", written):
            return False
        if command.name == "kill" and re.search(r"(\s|-|\")(\$\$|\$BASHPID|0)(\s|\"|$)", written):
            other = re.search(r"-(s\s*)?(SIG)?([A-Z]{3,4}\d?|[1-9]\d?)\b", written)
            return other is None or other[3] in ("TERM", "15")
    return False


# Its end --------------------------------------------------------------------------------------------------------------


def _ends(name: str, reading: Reading) -> Iterator[Finding]:
    servers = [index for index, command in enumerate(reading.commands) if is_server(command)]
    if not servers:
        return
    last = reading.commands[servers[-1]]
    if last.replaces and last.sure:
        return
    rest = reading.commands[servers[-1] + 1 :]
    for command in rest:
        if _waits_for_ever(command) and command.sure and not _trap_waits(reading, command):
            yield warning(
                "end",
                f"{name} goes on with `{command.written}` when the game has ended: its crash is not noticed, and the "
                "deployment is billed on",
                f"remove that line; {_USE_AGENT}",
            )
            return
    if last.loop:
        yield note(
            "end",
            f"{name} starts the game again by itself when it ends: the agent sees no crash then",
            "let the script end with the game, and set AGENT_ON_CRASH=restart",
        )
    elif last.background and last.sure and not any(_keeps(command) for command in rest) and "EXIT" not in reading.traps:
        yield warning(
            "end",
            f"{name} ends while the game runs in its background (line {last.line}): the game is ended with it",
            "write `exec` in front of the game and no `&` behind it, or `wait` at the end",
        )


def _keeps(command: Command) -> bool:
    return command.name in ("wait", "fg", "sleep", "tail", "read", "inotifywait", "pgrep") or command.loop


def _waits_for_ever(command: Command) -> bool:
    if command.background:
        return False
    arguments = command.arguments()
    if command.name == "sleep":
        return any(word in ("infinity", "inf") or (word.isdigit() and int(word) >= 86400) for word in arguments) or (
            command.loop and not arguments
        )
    if command.name == "tail":
        return any(re.fullmatch(r"-[a-zA-Z0-9]*[fF]|--follow.*|-f", word) for word in arguments) and not any(
            word.startswith("--pid") for word in command.written.split()
        )
    return command.name == "cat" and not arguments and command.written.strip() == "cat"


def _trap_waits(reading: Reading, command: Command) -> bool:
    """Whether it stands in a loop that looks for the game (`while pgrep server; do sleep`)."""
    return command.loop and any(one.name in ("pgrep", "kill", "pidof") for one in reading.commands)


# Secrets --------------------------------------------------------------------------------------------------------------


def _secrets(name: str, reading: Reading) -> Iterator[Finding]:
    for command in reading.commands:
        if _prints_environment(command) and _reaches_the_log(command):
            yield warning(
                "secrets",
                f"{name} prints all variables, {_TOKEN} among them, into the logs (line {command.line})",
                "print the ones that you need by name",
            )
            return
        if command.name in ("echo", "printf") and _SHOWS_TOKEN.search(command.written) and command.output == "out":
            yield warning(
                "secrets",
                f"{name} prints a secret of the deployment into the logs (line {command.line})",
                "do not print it: who has it can stop the deployment",
            )
            return
        if reading.traced and _SHOWS_TOKEN.search(command.written):
            yield warning(
                "secrets",
                f"{name} is traced (`set -x`), which prints {_TOKEN} with the command of line {command.line}",
                "write `set +x` before it, or remove it: the agent calls the self-stop itself",
            )
            return


def _prints_environment(command: Command) -> bool:
    arguments = command.words[1:]
    match command.name:
        case "env":
            words = [word or "?" for word in command.words]
            return unwrap(words).command == words and all(
                word is not None and (word.startswith("-") or "=" in word) and word != "-i" for word in arguments
            )
        case "printenv":
            return not arguments or any(word in (_TOKEN, "-0") for word in arguments)
        case "set":
            return not arguments
        case "export" | "declare" | "typeset":
            return arguments in (["-p"], ["-x"], ["-px"], ["-xp"])
        case "cat" | "strings" | "tr" | "xargs" | "sed":
            return bool(re.search(r"/proc/(self|1|\$\$)/environ", command.written))
    return False


def _reaches_the_log(command: Command) -> bool:
    """Whether what a command prints about a secret is printed by the last one of its pipe too."""
    if command.output == "out":
        return True
    if command.output != "pipe":
        return False
    left = list(_SAMPLES)
    for following in command.following:
        words = following.arguments()
        match following.name:
            case "grep" | "egrep":
                left = _grep(words, left)
            case "sort" | "cat" | "tee" | "uniq" | "tr" | "less" | "head" | "column":
                pass
            case "cut":
                left = [line.split("=")[0] for line in left] if "-f1" in "".join(words) else left
            case _:
                left = [] if "TOKEN" in following.written or following.name not in ("sed", "awk", "nl") else left
        if following.output not in ("out", "pipe"):
            return False
    return any("0123456789abcdef" in line for line in left)


def _grep(words: list[str], lines: list[str]) -> list[str]:
    options = "".join(word[1:] for word in words if re.fullmatch(r"-[a-zA-Z]+", word))
    given = [word for word in words if not word.startswith("-")]
    if not given or "q" in options or "c" in options:
        return [] if given else lines
    pattern = given[0] if "E" in options else re.sub(r"\\([|(){}+?])", r"\1", given[0])
    try:
        wanted = re.compile(pattern, re.IGNORECASE if "i" in options else 0)
    except re.error:
        return []
    return [line for line in lines if bool(wanted.search(line)) != ("v" in options)]
