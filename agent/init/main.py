"""From `arbitrium-agent run` to a running game. Standard library only, nothing heavy.

In this order: read the few settings that spawning needs, listen for signals, bind the sockets, start the capture, spawn
the game. Then the rest of the agent is imported (`agent.runtime.app`), which takes ten times as long, beside a game
that runs already.
"""

import os
import signal
import time

from agent import log
from agent.config import parsers
from agent.config.names import option, variable
from agent.errors import EXIT_BAD_SETTINGS, LEAVING, CannotStartError, Problem, SettingsError
from agent.game.cgroup import CgroupReading, read_cgroup
from agent.game.reaper import Reaper, adopt_orphans, keep_memory_private
from agent.game.signals import kill_all, signal_group
from agent.game.spawn import Game, spawn
from agent.game.stdin import StdinPipe
from agent.init.prepare import prepare, secrets
from agent.init.sockets import Port, UnixSocket
from agent.logs.capture import Capture
from agent.logs.redact import Redactor
from agent.logs.spool import Spool

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself takes 5 ms
    from collections.abc import Callable
    from typing import TypeVar

    from agent.compat.prepare import Prepared
    from agent.game.user import User

    T = TypeVar("T")
    D = TypeVar("D")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Sent on to the game as they are: all but those that stop, those of the kernel about the process itself, those that
# cannot be caught, and SIGCHLD, which is the agent's own business.
_NOT_FORWARDED = {
    *STOP_SIGNALS,
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGSYS,
    signal.SIGXFSZ,
}
FORWARDED = tuple(number for number in signal.valid_signals() if number not in _NOT_FORWARDED)
# A process group whose parents are all in other sessions is orphaned, and the kernel never suspends it for these (man 7
# credentials, "orphaned process group"): SIGSTOP does what was meant.
_SUSPENDING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
# What is left of the grace when everything is closed.
_MARGIN = 0.1


class Boot:
    """What exists by the time the heavy imports begin; handed to `agent.runtime.app`.

    Attributes:
        command: the game's program and arguments.
        options: options of `run`, by setting name.
        environ: the container's environment.
        began: when the agent began, in seconds of the monotonic clock.
        control, metrics: listening sockets, or None where there can be none.
        unix, notify: the Unix sockets for control and for sd_notify, or None.
        substitute_token: what the game has in place of the delete token, or None.
        game_env: the game's environment.
        secrets: the values that must be in no log.
        redactor, spool, capture: the log rooms, running; no capture with AGENT_CAPTURE=off.
        user: whom the game runs as, or None.
        compat: what was prepared for games of other hosts, or None.
        stdin: the game's stdin, where a stop method writes to it; else None, and the game has the container's.
        reaper: the only one that waits.
        cgroup: what the container's cgroup had counted when the game was started.
        game: the running game, or None where it could not be started: then `failure` says why.
        signals: stop signals that came so far, each with its moment.
        problems: what is wrong with the settings that boot reads.
        ignored: signals that were ignored when the agent was started (`nohup`): the game has to find them so.
        blocked: signals that were blocked then, likewise; the agent has to hear them.
    """

    def __init__(self, command: "list[str]", options: "dict[str, str]", environ: "dict[str, str]") -> None:
        """Does nothing yet."""
        self.command = command
        self.options = options
        self.environ = environ
        self.began = time.monotonic()
        self.control: Port | None = None
        self.metrics: Port | None = None
        self.unix: UnixSocket | None = None
        self.notify: UnixSocket | None = None
        self.substitute_token: str | None = None
        self.game_env: dict[str, str] = {}
        self.workdir: str | None = None
        self.secrets = secrets(environ, self.raw("log_url"))
        self.redactor = Redactor()  # the real one is made when the settings are read
        self.spool: Spool | None = None
        self.capture: Capture | None = None
        self.user: User | None = None
        self.compat: Prepared | None = None
        self.stdin: StdinPipe | None = None
        self.reaper = Reaper()
        self.cgroup: CgroupReading | None = None
        self.game: Game | None = None
        self.failure: CannotStartError | None = None
        self.signals: list[tuple[int, float]] = []
        self.problems: list[Problem] = []
        self.ignored: list[int] = []
        self.blocked: set[int] = set()

    # Settings ------------------------------------------------------------------------------------------------------

    def raw(self, name: str) -> "str | None":
        """The text of a setting, or None where it is not set."""
        return self.options.get(name) or self.environ.get(variable(name)) or None

    def setting(self, name: str, check: "Callable[[str], T]", default: "D") -> "T | D":
        """The value of a setting; a wrong one is noted and the default taken, since nothing starts then anyway."""
        text = self.raw(name)
        if text is None:
            return default
        try:
            return check(text)
        except ValueError as wrong:
            self.wrong(name, str(wrong))
            return default

    @property
    def grace(self) -> float:
        """AGENT_GRACE_SECONDS, for what has to know it also where the settings are wrong: then the default."""
        try:
            return parsers.duration(self.raw("grace_seconds") or "5")
        except ValueError:
            return 5.0

    def at_most(self, seconds: float) -> float:
        """The moment that is so many seconds away, or the end of the grace, with a margin, where that is sooner."""
        until = time.monotonic() + seconds
        return min(until, self.signals[0][1] + self.grace - _MARGIN) if self.signals else until

    def wrong(self, name: str, takes: str) -> None:
        """Notes a problem with a setting."""
        spelt = option(name) if self.options.get(name) else variable(name)
        self.problems.append(Problem(spelt, self.raw(name), takes))


def run(argv: "list[str]") -> int:
    """`arbitrium-agent run`: starts the game, then becomes the whole agent.

    Args:
        argv: what follows `run` on the command line.

    Returns:
        The exit code, once everything is over.
    """
    boot = Boot(*parse(argv), _environment())
    try:
        log.hide(boot.secrets)
        log.configure(*_log_style(boot))
        _keep_standard_streams()
        listen_for_signals(boot)
        adopt_orphans()
        keep_memory_private()
        prepare(boot)
        if boot.problems:
            return _refuse(boot)
        start_game(boot)
        try:
            from agent.runtime import app  # noqa: PLC0415 - this import is what must not come before the game

            return app.run(boot)
        except SettingsError as wrong:
            _end_at_once(boot)
            log.error(str(wrong))
            return EXIT_BAD_SETTINGS
        except LEAVING:
            raise
        except BaseException as problem:
            import traceback  # noqa: PLC0415 - only on this way out

            log.error(
                f"cannot go on as the whole agent ({type(problem).__name__}: {problem}); the game goes on, without API,"
                f" metrics and shipping. Please report this:\n{traceback.format_exc()}"
            )
            from agent.init.fallback import supervise  # noqa: PLC0415 - likewise

            listen_for_signals(boot)
            return supervise(boot)
    finally:
        if boot.compat is not None:
            boot.compat.close()
        if boot.capture is not None:
            boot.capture.close(boot.at_most(1.0))
        if boot.spool is not None:
            boot.spool.close(boot.at_most(0.5))
        for unix in (boot.unix, boot.notify):
            if unix is not None:
                unix.close()


def parse(argv: "list[str]") -> "tuple[list[str], dict[str, str]]":
    """Splits `[--option value ...] [--] COMMAND ...`; everything after the first word that is no option is the game's.

    Raises:
        SettingsError: there is no command, or an option has no value.
    """
    options: dict[str, str] = {}
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            raise SettingsError([Problem(name, None, "is not an option; options of run are --name value")])
        if not equals:
            if not rest or rest[0] == "--":
                raise SettingsError([Problem(name, None, "takes a value")])
            value = rest.pop(0)
        options[name[2:].replace("-", "_")] = value
    if not rest or not rest[0]:
        raise SettingsError(
            [
                Problem(
                    "run",
                    None,
                    "takes the game's command: arbitrium-agent run [--option value ...] -- COMMAND [ARG ...]",
                )
            ]
        )
    return rest, options


def start_game(boot: Boot) -> None:
    """Spawns the game and connects its output; a failure is kept in `boot.failure` for the lifecycle to deal with."""
    again = boot.game is not None
    boot.failure = None
    boot.cgroup = read_cgroup()
    # What is ignored stays ignored through exec, and what has a handler does not; the mask stays as it is.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in boot.ignored}
    signal.pthread_sigmask(signal.SIG_BLOCK, boot.blocked)
    try:
        if boot.stdin is not None and again:
            boot.stdin.renew()
        boot.game = spawn(
            boot.command,
            boot.game_env,
            cwd=boot.workdir,
            capture=boot.capture is not None,
            stdin=boot.stdin.read_end if boot.stdin is not None else None,
            user=boot.user,
        )
    except CannotStartError as failure:
        boot.game = None
        boot.failure = failure
        return
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, boot.blocked)
    if boot.capture is not None:
        take = boot.capture.attach if again else boot.capture.start
        take(boot.game.streams)


# The pieces ----------------------------------------------------------------------------------------------------------


def _environment() -> "dict[str, str]":
    """The container's environment, without what Python itself put there.

    In the C locale Python sets LC_CTYPE for itself (PEP 538); a game must not find it. What the process was given at
    its start stands in /proc/self/environ.
    """
    environ = dict(os.environ)
    if "LC_CTYPE" in environ:
        try:
            with open("/proc/self/environ", "rb") as given:
                if not any(line.startswith(b"LC_CTYPE=") for line in given.read().split(b"\0")):
                    del environ["LC_CTYPE"]
        except OSError:
            pass
    return environ


def _log_style(boot: Boot) -> "tuple[str, str]":
    level = (boot.raw("log_level") or "info").lower()
    style = (boot.raw("log_format") or "text").lower()
    return (level if level in log.LEVELS else "info"), ("json" if style == "json" else "text")


def _keep_standard_streams() -> None:
    """Where 0, 1 or 2 is closed, puts /dev/null there: the next pipe would take the number and become the game's."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest free number, which is this one


def listen_for_signals(boot: Boot) -> None:
    """Until the event loop takes over: stop signals are kept with their moment, all others go on to the game."""

    def keep(number: int, _frame: object) -> None:
        boot.signals.append((number, time.monotonic()))

    def forward(number: int, _frame: object) -> None:
        forward_signal(boot, number)

    for number in (*STOP_SIGNALS, *FORWARDED):
        try:
            before = signal.signal(number, keep if number in STOP_SIGNALS else forward)
        except OSError:
            continue  # two real-time signals belong to the C library
        if before is signal.SIG_IGN and number not in boot.ignored:
            boot.ignored.append(number)
    # Ignored by a parent, it would let the kernel reap the children, and their exit codes with them.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if boot.game is None:  # later on, what is blocked was blocked by `agent.runtime.app`, on its way out
        boot.blocked |= blocked


def forward_signal(boot: Boot, number: int) -> None:
    """Sends a signal on to the game's group; ones that suspend become SIGSTOP."""
    for group in boot.game.groups() if boot.game is not None else ():
        signal_group(group, signal.SIGSTOP if number in _SUSPENDING else number)


def _refuse(boot: Boot) -> int:
    """Reports everything that is wrong with the settings: what boot found, and what the model finds beside it."""
    from agent.config import model  # noqa: PLC0415 - heavy, and nothing is started any more

    problems = list(boot.problems)
    try:
        model.load(boot.options)
    except SettingsError as wrong:
        seen = {problem.name for problem in problems}
        problems += [problem for problem in wrong.problems if problem.name not in seen]
    log.error(str(SettingsError(problems)))
    return EXIT_BAD_SETTINGS


def _end_at_once(boot: Boot) -> None:
    if boot.game is None:
        return
    deadline = time.monotonic() + 2
    while boot.reaper.reap()[1] and time.monotonic() < deadline:
        kill_all(boot.game.pid, boot.reaper)
        time.sleep(0.005)
    if boot.capture is not None:
        boot.capture.drain(time.monotonic() + 0.2)


def main(argv: "list[str]") -> int:
    """`run`, with wrong usage said in one sentence."""
    try:
        return run(argv)
    except SettingsError as wrong:
        log.error(str(wrong))
        return EXIT_BAD_SETTINGS
