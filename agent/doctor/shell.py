"""Analyses a shell script without running it: which commands it executes, in which directory, and how sure that is.

This is not a shell: what it cannot follow is unknown (None), and not guessed. It follows variables, `cd`, `exec`,
quotes, `"$(dirname "$0")"`, functions that are called, files that are sourced, and the usual compound commands (POSIX
"Shell Command Language", 2.9 and 2.10; of bash: arrays, `[[`, `((`, `&>`, process substitution). Pure: what it knows of
files comes from the `Files` that it is given.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.doctor.shell_words import REDIRECTIONS, NotUnderstoodError, Token, end_of_part, tokens

Value = str | None  # None: cannot be told
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)(\+?)=(.*)", re.DOTALL)
_MOST_COMMANDS = 1000  # of one script; a longer one is not followed to its end
_DEEPEST = 12  # functions in functions, sourced files in sourced files
# Simple commands that are looked at: functions that call each other twice double them at each level.
_MOST_STEPS = 20_000
_MOST_WORDS = 10_000  # of one command or array: `set -- $@ $@` doubles them
_LONGEST_VALUE = 8192  # characters; a longer value is unknown: `x=$x$x` doubles it
# Commands whose success nobody doubts: what stands behind `&&` is reached.
_SUCCEEDS = frozenset(
    {":", "true", "cd", "pushd", "export", "echo", "printf", "mkdir", "chmod", "chown", "set", "ulimit", "umask"}
)
# Commands that start no other program and make no file.
BUILTINS = frozenset(
    [
        ":",
        ".",
        "alias",
        "bg",
        "break",
        "builtin",
        "cd",
        "command",
        "continue",
        "declare",
        "dirs",
        "echo",
        "eval",
        "exit",
        "export",
        "false",
        "fg",
        "getopts",
        "hash",
        "jobs",
        "kill",
        "let",
        "local",
        "popd",
        "printf",
        "pushd",
        "pwd",
        "read",
        "readonly",
        "return",
        "set",
        "shift",
        "shopt",
        "source",
        "test",
        "times",
        "trap",
        "true",
        "type",
        "typeset",
        "ulimit",
        "umask",
        "unalias",
        "unset",
        "wait",
        "[",
        "[[",
        "((",
        "exec",
    ]
)


@dataclass(frozen=True)
class Files:
    """What the reader may ask of the image's files.

    Attributes:
        real: a path with its symbolic links followed.
        read: the text of a file, or None.
    """

    real: Callable[[str], str] = os.path.normpath
    read: Callable[[str], str | None] = lambda _path: None


@dataclass
class Command:
    """A simple command that the script comes to.

    Attributes:
        words: program and arguments; None where a word cannot be told.
        text: the program as it is written, for messages.
        assigned: variables in front of it.
        exported: variables that the script has set by then.
        directory: where it runs; None where that cannot be told.
        sure: whether it runs each time; false in a branch, or behind something that may fail.
        background: whether the shell goes on at once.
        replaces: whether it takes the shell's place (`exec`).
        loop: whether it stands in a loop without an end.
        output: where its stdout goes: `out`, `pipe`, `file` or `captured`.
        line: where in the script, from 1.
        written: the whole command, as written.
        following: the commands behind it in a pipe.
    """

    words: list[Value]
    text: str
    assigned: dict[str, Value]
    exported: dict[str, Value]
    directory: Value
    sure: bool
    background: bool = False
    replaces: bool = False
    loop: bool = False
    output: str = "out"
    line: int = 1
    written: str = ""
    following: list[Command] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The program's name without its directory, or ""."""
        return os.path.basename(self.words[0] or "") if self.words else ""

    def arguments(self) -> list[str]:
        """The words that are known, without the program."""
        return [word for word in self.words[1:] if word is not None]


@dataclass
class Reading:
    """What was found in a script.

    Attributes:
        commands: in the order in which the shell comes to them.
        traps: signal name (`TERM`, `INT`, `EXIT`) to what it does, the text of the trap's action; None for a text that
            cannot be told.
        trapped_at: how many commands came before that trap.
        functions: the commands of each function that a trap names, as if it was called at the end.
        complete: false where the text was not understood to its end.
        sourced: files that are read in but were not found.
        traced: whether the shell prints each command (`set -x`).
    """

    commands: list[Command] = field(default_factory=list)
    traps: dict[str, Value] = field(default_factory=dict)
    trapped_at: dict[str, int] = field(default_factory=dict)
    functions: dict[str, list[Command]] = field(default_factory=dict)
    complete: bool = True
    sourced: list[str] = field(default_factory=list)
    traced: bool = False


def read(
    text: str,
    *,
    name: str = "sh",
    arguments: list[str] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: str = "/",
    files: Files | None = None,
) -> Reading:
    """Reads a script or the line behind `-c`.

    Args:
        text: with LF line endings.
        name: `$0`.
        arguments: `$1` and on; None where they are not known.
        environ: variables that it starts with.
        directory: where it starts.
        files: how to look at files.
    """
    state = _State(
        variables=dict(environ or {}),
        directory=directory,
        name=name,
        arguments=None if arguments is None else list(arguments),
    )
    reader = _Reader(files or Files(), steps=itertools.count(1))
    reader.state = state
    reader.run(text)
    actions = " ".join(action or "" for action in reader.reading.traps.values())
    for function in list(reader.functions):
        if function in actions:
            reader.describe(function)
    return reader.reading


@dataclass
class _State:
    """What a (sub)shell knows at one point."""

    variables: dict[str, Value | list[Value]]
    directory: Value
    name: str
    arguments: list[str] | None
    sure: bool = True
    ended: bool = False
    loop: bool = False
    set_here: dict[str, Value | list[Value]] = field(default_factory=dict)
    output: str = "out"

    def copy(self) -> _State:
        return _State(
            dict(self.variables),
            self.directory,
            self.name,
            None if self.arguments is None else list(self.arguments),
            self.sure,
            self.ended,
            self.loop,
            dict(self.set_here),
            self.output,
        )


class _Reader:
    """Goes through the tokens as the shell would."""

    def __init__(self, files: Files, depth: int = 0, *, steps: Iterator[int]) -> None:
        self.files = files
        self.depth = depth
        self._steps = steps  # shared by the readers of one script
        self.reading = Reading()
        self.functions: dict[str, list[Token]] = {}
        self.state = _State({}, "/", "sh", None)
        self._tokens: list[Token] = []
        self._at = 0
        self._text = ""
        self._called: list[str] = []

    # Reading ----------------------------------------------------------------------------------------------------------

    def run(self, text: str) -> None:
        """Reads a text in the present state."""
        self._run(text, None)

    def _run(self, text: str, given: list[Token] | None) -> None:
        if self.depth >= _DEEPEST:
            self.reading.complete = False
            return
        before = self._tokens, self._at, self._text
        self.depth += 1
        try:
            self._text = text
            self._tokens, self._at = given if given is not None else tokens(text), 0
            self._list(())
            if self._peek().kind != "end":
                raise NotUnderstoodError(self._peek().text)
        except (NotUnderstoodError, IndexError, RecursionError):
            self.reading.complete = False
        finally:
            self._tokens, self._at, self._text = before
            self.depth -= 1

    def describe(self, function: str) -> None:
        """Reads a function's body apart, for traps that call it."""
        apart = _Reader(self.files, self.depth + 1, steps=self._steps)
        apart.functions = {name: body for name, body in self.functions.items() if name != function}
        apart.state = self.state.copy()
        apart.state.ended, apart.state.sure, apart.state.arguments = False, True, None
        apart._run(self._text, self.functions[function])
        self.reading.functions[function] = apart.reading.commands

    def _peek(self) -> Token:
        return self._tokens[self._at]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _is(self, *texts: str) -> bool:
        token = self._peek()
        return token.text in texts and token.kind != "end"

    def _expect(self, text: str) -> None:
        if self._next().text != text:
            raise NotUnderstoodError(f"{text} is missing")

    def _newlines(self) -> None:
        while self._is("\n"):
            self._at += 1

    def _list(self, until: tuple[str, ...]) -> None:
        """Reads commands up to one of some words, which is left there."""
        while True:
            while self._is("\n", ";"):
                self._at += 1
            if self._peek().kind == "end" or self._is(*until):
                return
            first = len(self.reading.commands)
            before = self.state.copy()
            self._and_or()
            if self._is("&"):
                self._at += 1
                for command in self.reading.commands[first:]:
                    command.background = True
                    command.replaces = False
                # A background list has a shell of its own.
                self.state.directory, self.state.ended = before.directory, before.ended
            elif not self._is("\n", ";", *until) and self._peek().kind != "end":
                raise NotUnderstoodError(self._peek().text)

    def _and_or(self) -> None:
        sure = self.state.sure
        succeeded = self._pipeline()
        while self._is("&&", "||"):
            operator = self._next().text
            self._newlines()
            succeeded = self._guarded(self._pipeline) if operator == "||" or not succeeded else self._pipeline()
        self.state.sure = sure

    def _guarded(self, what: Callable[[], bool]) -> bool:
        """Reads what the shell may not come to: what it changes is unknown afterwards."""
        before = self.state.copy()
        self.state.sure = False
        result = what()
        self._merge(before)
        return result

    def _merge(self, before: _State) -> None:
        after = self.state
        for name in {*before.variables, *after.variables}:
            if before.variables.get(name, _UNSET) != after.variables.get(name, _UNSET):
                after.variables[name] = None
                if name in after.set_here:
                    after.set_here[name] = None
        if after.directory != before.directory:
            after.directory = None
        after.ended = before.ended
        after.sure = before.sure
        after.loop = before.loop
        if after.arguments != before.arguments:
            after.arguments = None

    def _pipeline(self) -> bool:
        while self._is("!", "time"):
            self._at += 1
            if self._is("-p"):
                self._at += 1
        first = len(self.reading.commands)
        start = self.state.copy()
        stages: list[list[Command]] = []
        succeeded = self._command()
        piped = False
        while self._is("|", "|&"):
            stages.append(self.reading.commands[first:])
            first = len(self.reading.commands)
            self._at += 1
            self._newlines()
            piped = True
            self.state.directory, self.state.ended = start.directory, start.ended
            succeeded = self._command()
        stages.append(self.reading.commands[first:])
        if piped:
            for index, stage in enumerate(stages[:-1]):
                for command in stage:
                    command.replaces = False
                    if command.output == "out":
                        command.output = "pipe"
                        command.following = [one for later in stages[index + 1 :] for one in later]
            self.state.directory, self.state.ended = start.directory, start.ended
        return succeeded and not piped

    # Compound commands --------------------------------------------------------------------------------------------

    def _command(self) -> bool:  # noqa: C901 - one branch a construct of the language
        token = self._peek()
        if token.kind == "op":
            if token.text == "(":
                return self._subshell()
            if token.text not in REDIRECTIONS:
                raise NotUnderstoodError(token.text)
        match token.text if token.kind == "word" else "":
            case "{":
                self._at += 1
                self._list(("}",))
                self._expect("}")
            case "if":
                self._if()
            case "while" | "until":
                self._while()
            case "for" | "select":
                self._for()
            case "case":
                self._case()
            case "function":
                self._at += 1
                self._function(self._next().text)
                return True
            case _:
                following = self._tokens[self._at + 1 : self._at + 3]
                if token.kind == "word" and [one.text for one in following] == ["(", ")"]:
                    self._function(self._next().text)
                    return True
                return self._simple()
        self._redirections()
        return False

    def _subshell(self) -> bool:
        self._at += 1
        before = self.state.copy()
        first = len(self.reading.commands)
        self._list((")",))
        self._expect(")")
        self.state = before
        for command in self.reading.commands[first:]:
            command.replaces = False
        self._redirections()
        return False

    def _if(self) -> None:
        self._at += 1
        self._guarded_list("then")
        self._expect("then")
        self._guarded_list("elif", "else", "fi")
        while self._is("elif", "else"):
            if self._next().text == "elif":
                self._guarded_list("then")
                self._expect("then")
            self._guarded_list("elif", "else", "fi")
        self._expect("fi")

    def _guarded_list(self, *until: str) -> None:
        def read_list() -> bool:
            self._list(until)
            return False

        self._guarded(read_list)

    def _while(self) -> None:
        word = self._next().text
        condition = self._at
        self._guarded_list("do")
        said = [token.text for token in self._tokens[condition : self._at] if token.text not in ("\n", ";")]
        endless = said in (["true"], [":"], ["1"], ["[", "1", "]"], ["[["], ["(("]) and word == "while"
        endless = endless or (word == "until" and said == ["false"])
        self._expect("do")
        before = self.state.copy()
        if endless:
            self.state.loop = True
            self._list(("done",))
            self._merge(before)
            self.state.ended = before.ended or self.state.ended
        else:
            self._guarded_list("done")
        self._expect("done")

    def _for(self) -> None:
        self._at += 1
        name = self._next().text
        self._newlines()
        words: list[Value] = []
        if self._is("in"):
            self._at += 1
            while self._peek().kind == "word":
                words += self._expand(self._next().text)
        while self._is(";", "\n"):
            self._at += 1
        closing = "done" if self._is("do") else "}"
        if not self._is("do", "{"):
            raise NotUnderstoodError("for without do")
        self._at += 1
        if name != "((":
            self._set(name, words[0] if len(words) == 1 else None)
        self._guarded_list(closing)
        self._expect(closing)

    def _case(self) -> None:
        self._at += 2  # and the word
        self._newlines()
        self._expect("in")
        self._newlines()
        before = self.state.copy()
        while not self._is("esac"):
            if self._is("("):
                self._at += 1
            while not self._is(")"):
                if self._next().kind == "end":
                    raise NotUnderstoodError("case without esac")
            self._at += 1
            self.state.sure = False
            self._list((";;", ";&", ";;&", "esac"))
            self._merge(before)
            if self._is(";;", ";&", ";;&"):
                self._at += 1
            self._newlines()
        self._at += 1

    def _function(self, name: str) -> None:
        if self._is("("):
            self._at += 2
        self._newlines()
        first = self._at
        before, kept = self.state.copy(), self.reading
        self.reading = Reading()  # only to find its end
        self._command()
        self.state, self.reading = before, kept
        body = self._tokens[first : self._at]
        self.functions[name] = [*body, Token("end", "", 0, 0)]

    def _redirections(self) -> str | None:
        """Reads what may follow a command; returns where stdout goes if that is changed."""
        output = None
        while True:
            if self._peek().kind == "word" and self._peek().text.isdigit() and self._tokens[self._at + 1].kind == "op":
                following = self._tokens[self._at + 1]
                if following.text in REDIRECTIONS and following.start == self._peek().start + len(self._peek().text):
                    number = self._next().text
                    operator = self._next().text
                    self._target(operator)
                    if number == "1" and operator.startswith(">"):
                        output = "file"
                    continue
            if not (self._peek().kind == "op" and self._peek().text in REDIRECTIONS):
                return output
            operator = self._next().text
            target = self._target(operator)
            if operator in (">", ">>", ">|", "&>", "&>>"):
                output = "out" if target in ("/dev/stdout", "/dev/stderr", "/proc/1/fd/1") else "file"
                output = "out" if target.startswith(">(") else output

    def _target(self, operator: str) -> str:
        token = self._next()
        if token.kind != "word":
            raise NotUnderstoodError(f"nothing behind {operator}")
        return token.text

    # Simple commands --------------------------------------------------------------------------------------------------

    def _simple(self) -> bool:
        if next(self._steps) > _MOST_STEPS:
            raise NotUnderstoodError("too much")
        first = self._peek()
        assigned: dict[str, Value | list[Value]] = {}
        words: list[Value] = []
        raw: list[str] = []
        output: str | None = None
        while True:
            changed = self._redirections()
            output = changed or output
            token = self._peek()
            if token.kind != "word":
                break
            self._at += 1
            match = _ASSIGNMENT.fullmatch(token.text) if not raw else None
            if match:
                assigned[match[1]] = self._assigned(match)
                continue
            raw.append(token.text)
            words += self._expand(token.text)
            if len(words) > _MOST_WORDS:
                raise NotUnderstoodError("too much")
        if not raw:
            for name, value in assigned.items():
                self._set(name, value)
            return True
        end = self._tokens[self._at - 1]
        written = self._text[first.start : end.start + len(end.text)] if self._text else " ".join(raw)
        return self._execute(words, raw, assigned, output, first.line, written)

    def _assigned(self, match: re.Match[str]) -> Value | list[Value]:
        name, plus, text = match[1], match[2], match[3]
        if text.startswith("(") and text.endswith(")"):
            values: list[Value] = []
            for token in tokens(text[1:-1]):
                if token.kind == "word":
                    values += self._expand(token.text)
            old = self.state.variables.get(name)
            return [*old, *values] if plus and isinstance(old, list) else values
        value = self._one(text)
        old = self.state.variables.get(name)
        if plus:
            return old + value if isinstance(old, str) and value is not None else None
        return value

    def _set(self, name: str, value: Value | list[Value]) -> None:
        if value is not None and len(value) > (_MOST_WORDS if isinstance(value, list) else _LONGEST_VALUE):
            value = None
        self.state.variables[name] = value
        self.state.set_here[name] = value

    def _execute(
        self,
        words: list[Value],
        raw: list[str],
        assigned: dict[str, Value | list[Value]],
        output: str | None,
        line: int,
        written: str,
    ) -> bool:
        replaces = False
        while words and words[0] in ("exec", "command", "builtin") and len(words) > 1:
            if words[0] == "command" and words[1] in ("-v", "-V"):
                break
            replaces = replaces or words[0] == "exec"
            words = words[1:]
            if words[0] == "-a":
                words = words[2:]
            while words and words[0] in ("-c", "-l", "-p", "--"):
                words = words[1:]
        if not words or self.state.ended:
            return True
        name = words[0]
        if name == "exec":  # redirections only
            self.state.output = output or self.state.output
            return True
        if name in self.functions and not replaces:
            self._call(name, words[1:])
            return False
        command = Command(
            words=words,
            text=next((one for one in raw if one not in ("exec", "command", "builtin")), raw[0]),
            assigned={name: value if not isinstance(value, list) else None for name, value in assigned.items()},
            exported={name: value for name, value in self.state.set_here.items() if not isinstance(value, list)},
            directory=self.state.directory,
            sure=self.state.sure,
            replaces=replaces,
            loop=self.state.loop,
            output=output or self.state.output,
            line=line,
            written=written,
        )
        if len(self.reading.commands) >= _MOST_COMMANDS:
            raise NotUnderstoodError("too long")
        self.reading.commands.append(command)
        self._effect(command)
        if replaces and self.state.sure:
            self.state.ended = True
        return name in _SUCCEEDS

    def _call(self, name: str, arguments: list[Value]) -> None:
        if name in self._called:  # it calls itself: once through is all there is to be seen
            return
        body, kept = self.functions[name], self.state.arguments
        self._called.append(name)
        self.state.arguments = None if None in arguments else [word for word in arguments if word is not None]
        text = self._text
        self._run(text, body)
        self._called.pop()
        self.state.arguments = kept

    def _effect(self, command: Command) -> None:  # noqa: C901, PLR0912 - one branch a builtin
        """What a builtin changes for those that follow."""
        arguments = command.words[1:]
        match command.words[0]:
            case "cd" | "pushd":
                where = [word for word in arguments if word not in ("-P", "-L", "--")]
                target: Value = where[0] if where else self._text_of("HOME")
                self.state.directory = self._join(target) if target != "-" else None
                self._set("PWD", self.state.directory)
            case "popd":
                self.state.directory = None
            case "exit" | "return":
                if self.state.sure:
                    self.state.ended = command.words[0] == "exit" or self.depth == 1
            case "export" | "declare" | "typeset" | "local" | "readonly":
                for word in arguments:
                    if word is None:
                        continue
                    match = _ASSIGNMENT.fullmatch(word)
                    if match:
                        self._set(match[1], match[3])
            case "unset" | "read":
                for word in arguments:
                    if word is not None and not word.startswith("-"):
                        self._set(word, None)
            case "shift":
                count = arguments[0] if arguments else "1"
                known = self.state.arguments is not None and self.state.sure and count is not None and count.isdigit()
                self.state.arguments = (self.state.arguments or [])[int(count or 0) :] if known else None
            case "set":
                self._options(arguments)
            case "trap":
                self._trap(arguments)
            case "." | "source":
                self._source(arguments)
            case "eval":
                if None not in arguments:
                    self.reading.commands.pop()
                    self._run(" ".join(word or "" for word in arguments), None)

    def _options(self, arguments: list[Value]) -> None:
        for index, word in enumerate(arguments):
            if word == "--":
                rest = arguments[index + 1 :]
                self.state.arguments = None if None in rest else [one for one in rest if one is not None]
                return
            if word is not None and re.fullmatch(r"-[a-z]*x[a-z]*", word):
                self.reading.traced = True
            if word is not None and re.fullmatch(r"\+[a-z]*x[a-z]*", word):
                self.reading.traced = False

    def _trap(self, arguments: list[Value]) -> None:
        words = [word for word in arguments if word != "--"]
        if len(words) < 2:
            return
        for word in words[1:]:
            if word is not None:
                signal = {"15": "TERM", "2": "INT", "0": "EXIT", "1": "HUP"}.get(word, word.upper().removeprefix("SIG"))
                if words[0] == "-":
                    self.reading.traps.pop(signal, None)
                else:
                    self.reading.traps[signal] = words[0]
                    self.reading.trapped_at[signal] = len(self.reading.commands)

    def _source(self, arguments: list[Value]) -> None:
        path = self._join(arguments[0]) if arguments else None
        text = self.files.read(path) if path else None
        if text is None:
            self.reading.sourced.append(path or "?")
        else:
            self._run(text, None)

    def _join(self, path: Value) -> Value:
        if path is None or (self.state.directory is None and not path.startswith("/")):
            return None
        return os.path.normpath(os.path.join(self.state.directory or "/", path))

    # Expansion --------------------------------------------------------------------------------------------------------

    def _text_of(self, name: str) -> Value:
        value = self.state.variables.get(name)
        if isinstance(value, list):
            return value[0] if value else ""
        return value

    def _one(self, word: str) -> Value:
        """The value of a word where no splitting happens, such as behind `=`."""
        value = self._parts(word, split=False)
        return value[0] if len(value) == 1 else ("" if not value else None)

    def _expand(self, word: str) -> list[Value]:
        return self._parts(word, split=True)

    def _parts(self, word: str, *, split: bool) -> list[Value]:  # noqa: C901 - one pass over all kinds of parts
        """Expands a word into fields."""
        fields: list[Value] = []
        current: Value = ""
        begun = False
        position = 0
        quoted = False
        nothing = False  # "$@" without arguments is no word at all
        while position < len(word):
            character = word[position]
            if character == '"':
                quoted, begun = not quoted, True
                position += 1
                continue
            end = end_of_part(word, position) if character in ("\\`$" if quoted else "\\'`$<>") else position + 1
            part = word[position:end]
            position = end
            several = self._several(part)
            if several is not None:
                if several == [None] or not several:
                    current, begun = (None, True) if several else (current, begun)
                    nothing = nothing or not several
                    continue
                for index, one in enumerate(several):
                    if index:
                        fields.append(current)
                        current = ""
                    current = None if one is None or current is None else current + one
                    begun = True
                continue
            value = self._part(part, quoted)
            if value is not None and part[0] in "$`" and not quoted and split:
                pieces = value.split()
                if value[:1].isspace() and begun and current:
                    fields.append(current)
                    current = ""
                for index, piece in enumerate(pieces):
                    if index:
                        fields.append(current)
                        current = ""
                    current = None if current is None else current + piece
                    begun = True
                continue
            glob = part in ("*", "?", "[") and not quoted and split
            current = None if value is None or current is None or (glob and word not in ("[", "?")) else current + value
            begun = True
        if begun and not (nothing and not fields and current == ""):
            fields.append(current)
        if len(fields) == 1 and word.startswith("~/") and fields[0] is not None:
            home = self._text_of("HOME")
            fields[0] = None if home is None else home + fields[0][1:]
        return [one if one is None or len(one) <= _LONGEST_VALUE else None for one in fields]

    def _several(self, part: str) -> list[Value] | None:
        """The words of `$@`, `$*` or of an array; None for any other part."""
        if part in ("$@", "$*", "${@}", "${*}"):
            return [None] if self.state.arguments is None else list(self.state.arguments)
        match = re.fullmatch(r"\$\{([A-Za-z_]\w*)\[[@*]\]\}", part)
        if match:
            value = self.state.variables.get(match[1])
            return list(value) if isinstance(value, list) else [None]
        return None

    def _part(self, part: str, quoted: bool) -> Value:  # noqa: PLR0911 - one answer a kind of part
        character = part[0]
        if character == "\\":
            if part == "\\\n":
                return ""
            return part if quoted and part[1:2] not in '$`"\\\n' else part[1:]
        if character == "'" and not quoted:
            return part[1:-1]
        if character == "`":
            return self._substitute(part[1:-1].replace("\\`", "`"))
        if character in "<>" and part[1:2] == "(":
            return None
        if character != "$" or len(part) == 1:
            return part
        if part.startswith("$(("):
            return None
        if part.startswith("$("):
            return self._substitute(part[2:-1])
        if part.startswith("$'"):
            return part[2:-1]
        return self._parameter(part[2:-1] if part.startswith("${") else part[1:])

    def _parameter(self, text: str) -> Value:  # noqa: PLR0911 - one answer an operator
        match = re.match(r"(BASH_SOURCE(?:\[0\])?|[A-Za-z_]\w*|[0-9]+|[@*#?$!-])(.*)", text, re.DOTALL)
        if match is None:
            return None
        name, rest = match[1], match[2]
        value = self._named(name)
        if not rest:
            return value
        operator = re.match(r":?[-=?+]|%%?|##?", rest)
        if operator is None:
            return None
        word = rest[operator.end() :]
        match operator[0].lstrip(":"):
            case "-" | "=":
                return value or self._one(word)
            case "?":
                return value
            case "+":
                return self._one(word) if value else ("" if name in self.state.variables else None)
            case _:
                return _without(value, operator[0], word)

    def _named(self, name: str) -> Value:
        if name == "0" or name.startswith("BASH_SOURCE"):
            return self.state.name
        if name == "PWD":
            return self.state.directory
        if name.isdigit():
            given = self.state.arguments
            return None if given is None else (given[int(name) - 1] if int(name) <= len(given) else "")
        if name in ("@", "*", "#", "?", "$", "!", "-"):
            return None
        return self._text_of(name)

    def _substitute(self, text: str) -> Value:
        """The output of a command substitution, for the few commands whose output is known."""
        inner = _Reader(self.files, self.depth + 1, steps=self._steps)
        inner.functions = self.functions
        inner.state = self.state.copy()
        inner.state.output = "out"
        inner.run(text)
        for command in inner.reading.commands:
            if command.words and command.words[0] not in BUILTINS:
                command.output = "pipe" if command.output == "pipe" else "captured"
                command.sure = command.sure and self.state.sure
        output: Value = None
        piped = False
        for command in inner.reading.commands:
            if command.name in ("cd", "pushd", "set", "export", "true", ":") or command.output == "file":
                continue
            if piped and command.name == "xargs" and output is not None:
                # As in the start script of Unreal's packager: $(echo "$0" | xargs readlink -f).
                try:
                    command.words = [*command.words[1:], *shlex.split(output)]
                except ValueError:  # a quote in it does not end
                    return None
            elif output is not None:
                return None
            output = self._output(command, inner)
            piped = command.output == "pipe"
            if output is None:
                return None
        return None if piped else output

    def _output(self, command: Command, inner: _Reader) -> Value:  # noqa: PLR0911 - one answer a command
        if None in command.words[1:]:
            return None
        arguments = [word for word in command.arguments() if not re.fullmatch(r"-[a-zA-Z-]+", word)]
        first = arguments[0] if arguments else ""
        match command.name:
            case "pwd":
                return command.directory
            case "echo":
                return " ".join(arguments)
            case "printf":
                return arguments[1] if arguments[:1] in (["%s"], ["%s\\n"]) and len(arguments) == 2 else None
            case "dirname":
                return os.path.dirname(first) or "."
            case "basename":
                base = os.path.basename(first.rstrip("/"))
                return base.removesuffix(arguments[1]) if len(arguments) > 1 else base
            case "readlink" | "realpath":
                path = inner._join(first)
                return None if path is None else self.files.real(path)
        return None


_UNSET = object()


def _without(value: Value, operator: str, pattern: str) -> Value:
    """`${x%pattern}` and its like (POSIX 2.6.2)."""
    if value is None or "$" in pattern or "`" in pattern:
        return None
    pattern = pattern.replace('"', "").replace("'", "")
    places: Iterable[int] = range(len(value) + 1)
    if operator in ("%", "##"):
        places = reversed(list(places))
    for place in places:
        tail, head = value[place:], value[:place]
        if operator.startswith("%") and fnmatch.fnmatchcase(tail, pattern):
            return head
        if operator.startswith("#") and fnmatch.fnmatchcase(head, pattern):
            return tail
    return value
