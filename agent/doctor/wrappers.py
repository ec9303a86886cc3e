"""Looks behind programs that start another one: `tini --`, `env X=1`, `nice -n 5`, `gosu user`, `su -c`. Pure.

The options that take a value are those of each program's manual page.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from agent.doctor.programs import SHELLS, Shell, read_shell

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Wrapper:
    """How a program names the one that it starts.

    Attributes:
        values: options whose value is the next word.
        before: how many words stand before the program.
        assigns: whether `NAME=value` may stand before it.
        emulates: whether it runs programs that this machine cannot (wine, qemu).
        user: options that name the user it becomes; "" is the first word before the program.
    """

    values: frozenset[str] = frozenset()
    before: int = 0
    assigns: bool = False
    emulates: bool = False
    user: tuple[str, ...] = ()


def _takes(
    values: str = "", before: int = 0, *, assigns: bool = False, emulates: bool = False, user: tuple[str, ...] = ()
) -> Wrapper:
    return Wrapper(frozenset(values.split()), before, assigns, emulates, user)


WRAPPERS: dict[str, Wrapper] = {
    "tini": _takes("-p -e"),
    "tini-static": _takes("-p -e"),
    "docker-init": _takes("-p -e"),
    "catatonit": _takes(),
    "dumb-init": _takes("-r --rewrite"),
    "env": _takes("-u -C --unset --chdir", assigns=True),
    "nice": _takes("-n --adjustment"),
    "ionice": _takes("-c -n --class --classdata"),
    "chrt": _takes("-T -P -D", 1),
    "taskset": _takes("", 1),
    "numactl": _takes("-i -m -N -C -p --interleave --membind --cpunodebind --physcpubind --preferred"),
    "prlimit": _takes("-o --output"),
    "stdbuf": _takes("-i -o -e --input --output --error"),
    "nohup": _takes(),
    "setsid": _takes(),
    "time": _takes("-f -o --format --output"),
    "timeout": _takes("-s -k --signal --kill-after", 1),
    "gosu": _takes("", 1, user=("",)),
    "su-exec": _takes("", 1, user=("",)),
    "setuser": _takes("", 1, user=("",)),
    "s6-setuidgid": _takes("", 1, user=("",)),
    "chpst": _takes("-u -U -b -e -/ -n -l -m -d -o -p -f -c -r -t", user=("-u",)),
    "setpriv": _takes(
        "--reuid --regid --ruid --rgid --groups --inh-caps --ambient-caps --bounding-set --securebits --pdeathsig",
        user=("--reuid", "--ruid"),
    ),
    "sudo": _takes("-u -g -U -C -h -p -r -t --user --group --host --prompt", assigns=True, user=("-u", "--user")),
    "xvfb-run": _takes("-e -f -n -p -s -w --error-file --auth-file --server-num --server-args --xauth-protocol"),
    "unbuffer": _takes(),
    "catchsegv": _takes(),
    "valgrind": _takes(),
    "strace": _takes("-e -o -p -s -u -E -a -P"),
    "box64": _takes(emulates=True),
    "box86": _takes(emulates=True),
    "FEXBash": _takes(emulates=True),
    "qemu-x86_64-static": _takes(emulates=True),
    "qemu-x86_64": _takes(emulates=True),
    "wine": _takes(emulates=True),
    "wine64": _takes(emulates=True),
    "wineconsole": _takes(emulates=True),
}
# Programs that read another file and run it: options whose value is the next word, and whether the file must be there.
RUNNERS: dict[str, frozenset[str]] = {
    "mono": frozenset({"--config"}),
    "dotnet": frozenset({"--additionalprobingpath", "--fx-version", "--depsfile", "--runtimeconfig"}),
    "node": frozenset({"-r", "--require", "--import", "--loader"}),
    "python3": frozenset({"-W", "-X"}),
    "python": frozenset({"-W", "-X"}),
    "lua": frozenset({"-l"}),
    "perl": frozenset({"-I"}),
    "ruby": frozenset({"-I", "-r"}),
}
_SU_WITH_VALUE = frozenset({"-s", "-g", "-G", "-w", "--shell", "--group", "--supp-group", "-u", "--user"})


@dataclass
class Unwrapped:
    """What stands behind the wrappers.

    Attributes:
        command: program and arguments; empty where a wrapper has none.
        wrappers: the programs in front of it, in order.
        shell: a shell line or script that it is, or None.
        emulated: whether another machine's programs run there.
        user: who it runs as, as a wrapper names it; "" for who starts it.
    """

    command: list[str]
    wrappers: list[str] = field(default_factory=list)
    shell: Shell | None = None
    emulated: bool = False
    user: str = ""


def unwrap(command: list[str]) -> Unwrapped:
    """Takes the wrappers off a command."""
    found = Unwrapped(list(command))
    while found.command:
        name = os.path.basename(found.command[0])
        found.shell = read_shell(found.command) if name in SHELLS else None
        if found.shell is not None:
            return found
        if name in ("su", "runuser"):
            if not _user_switch(found):
                return found
            continue
        if name == "script":
            if not _recorded(found):
                return found
            continue
        wrapper = WRAPPERS.get(name)
        if wrapper is None:
            return found
        rest, user = _behind(wrapper, found.command[1:])
        if name == "env" and not rest:
            return found  # prints the environment
        found.wrappers.append(found.command[0])
        found.emulated = found.emulated or wrapper.emulates
        found.user = user or found.user
        found.command = rest
    return found


def _behind(wrapper: Wrapper, words: list[str]) -> tuple[list[str], str]:
    """The words behind a wrapper's own, and the user that it names."""
    rest = list(words)
    before, user, ended = wrapper.before, "", False
    while rest:
        word = rest.pop(0)
        if word == "--" and not ended:
            ended = True
        elif not ended and word.startswith("-") and word != "-":
            if word in ("-S", "--split-string") and wrapper.assigns and rest:  # env -S "program arguments"
                return [*rest[0].split(), *rest[1:]], user
            name, equals, value = word.partition("=")
            if word in wrapper.values and rest:
                value, equals = rest.pop(0), "="
            if name in wrapper.user and equals:
                user = value
        elif wrapper.assigns and _ASSIGNMENT.match(word):
            continue
        elif before:
            before -= 1
            user = word if "" in wrapper.user else user
        else:
            return [word, *rest], user
    return [], user


def _user_switch(found: Unwrapped) -> bool:
    """`su USER -c LINE`, `runuser -u USER -- COMMAND`; false where it starts only a shell."""
    by_option, user = False, ""
    rest = list(found.command[1:])
    while rest:
        word = rest.pop(0)
        if word in ("-c", "--command") and rest:
            found.wrappers.append(found.command[0])
            line = rest.pop(0)
            found.user = user or next((one for one in rest if not one.startswith("-")), "root")
            found.command = ["sh", "-c", line]
            return True
        if word in _SU_WITH_VALUE and rest:
            value = rest.pop(0)
            if word in ("-u", "--user"):
                by_option, user = True, value
        elif word == "--" and by_option:
            break
        elif by_option and not word.startswith("-"):
            rest.insert(0, word)
            break
        elif not word.startswith("-"):
            user = word
    if not by_option or not rest:
        return False
    found.wrappers.append(found.command[0])
    found.user = user
    found.command = rest
    return True


def _recorded(found: Unwrapped) -> bool:
    """`script -qefc LINE FILE`."""
    for index, word in enumerate(found.command[1:], 1):
        if re.fullmatch(r"-[a-z]*c", word) and index + 1 < len(found.command):
            found.wrappers.append(found.command[0])
            found.command = ["sh", "-c", found.command[index + 1]]
            return True
    return False


def file_of(command: list[str]) -> str | None:
    """The file that an interpreter is told to run (`java -jar X`, `dotnet X.dll`, `node X.js`), or None."""
    if not command:
        return None
    name = re.sub(r"[\d.]+$", "", os.path.basename(command[0])) or command[0]
    words = command[1:]
    if name == "java":
        return words[words.index("-jar") + 1] if "-jar" in words[:-1] else None
    options = RUNNERS.get(os.path.basename(command[0]), RUNNERS.get(name))
    if options is None:
        return None
    while words:
        word = words[0]
        if word in ("-m", "-c", "-e", "-p", "-", "exec", "run", "--eval", "--version"):
            return None
        if not word.startswith("-"):
            return word
        words = words[2:] if word in options else words[1:]
    return None
