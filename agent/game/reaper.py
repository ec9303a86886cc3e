"""The one place that waits for children. Standard library only.

Nothing else in the init calls any `wait`: a second caller would sometimes take an exit code (measured with
`asyncio.create_subprocess_exec` next to a reaper). For this reason `agent.game.spawn` prevents `Popen` objects from
waiting.
"""

import os

from agent.game.tree import all_descendants, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


class Reaper:
    """Reaps every child: the game, the agent's helpers, and orphans that were adopted."""

    __slots__ = ("_ended", "_helpers")

    def __init__(self) -> None:
        """Starts without helpers; all other children belong to the game."""
        self._helpers: set[int] = set()
        self._ended: dict[int, int] = {}  # reaped, and not returned yet

    @property
    def helpers(self) -> "frozenset[int]":
        """Processes that the agent started for itself (hooks): they are not the game."""
        return frozenset(self._helpers)

    def add_helper(self, pid: int) -> None:
        """Marks a child as the agent's own, right after it was started."""
        self._helpers.add(pid)

    def reap(self, names: "dict[int, str]", groups: "Iterable[int]" = ()) -> "tuple[dict[int, int], bool]":
        """Reaps all ended children, without blocking.

        Args:
            names: receives the names of those that did not end with code 0, except helpers.
            groups: the game's process groups: asked for where processes cannot be listed.

        Returns:
            The wait status of each process reaped now, by process id; and whether any child except helpers is left.
            If none is left, no process of the game exists any more, since every orphan becomes our child.
        """
        left = True
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if seen is None:
                    break
                if seen.si_status and seen.si_pid not in self._helpers:
                    names[seen.si_pid] = name_of(seen.si_pid)  # a zombie still has its name
                pid, status = os.waitpid(seen.si_pid, os.WNOHANG)
            except ChildProcessError:
                left = False
                break
            if pid == 0:
                break
            self._ended[pid] = status  # kept, should an error end this
            self._helpers.discard(pid)
        if left and self._helpers:
            try:
                left = bool(all_descendants(os.getpid(), self.helpers))
            except OSError:
                # Not seen is not gone: without a descriptor for /proc a game that runs must not be taken for one that
                # has ended.
                left = any(map(_is_there, groups))
        ended, self._ended = self._ended, {}
        return ended, left


def _is_there(group: int) -> bool:
    """Whether a process group has any process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it has one of another user's
    return True


def adopt_orphans() -> bool:
    """Makes this process adopt orphans below it, which PID 1 does anyway.

    Returns:
        Whether orphans are adopted. `PR_SET_CHILD_SUBREAPER` exists since Linux 3.4 (man 2 prctl).
    """
    return os.getpid() == 1 or _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def keep_memory_private() -> bool:
    """Makes this process not dumpable (man 2 prctl): a game of the same user cannot read its environment or its memory.

    The files of the process in /proc belong to root from then on; a game becomes dumpable again when it is executed.
    """
    return _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> bool:
    """Programs executed from now on gain no rights, for example by setuid (man 2 prctl, PR_SET_NO_NEW_PRIVS).

    Applies to this thread and all processes that it starts; root can still change to another user.
    """
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def name_process(name: str) -> bool:
    """Sets what `ps` and `top` show for this process, at most 15 bytes (man 2 prctl, PR_SET_NAME)."""
    return _prctl(_PR_SET_NAME, name.encode())


def die_with_parent() -> bool:
    """Has the kernel kill this process when the thread that forked it ends (man 2 prctl, PR_SET_PDEATHSIG)."""
    return _prctl(_PR_SET_PDEATHSIG, 9)


def _prctl(option: int, value: int | bytes) -> bool:
    try:
        # The function that `ctypes` itself calls; importing `ctypes` would take a quarter of the time until the game
        # starts. If this Python has another name for it, `ctypes` is used.
        import _ctypes  # noqa: PLC0415 - an interpreter may be built without it

        program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # the program itself, as ctypes.CDLL takes it
        return bool(_ctypes.call_cdeclfunction(_ctypes.dlsym(program, "prctl"), (option, value, 0, 0, 0)) == 0)
    except (AttributeError, TypeError):
        import ctypes  # noqa: PLC0415 - see above

        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (ImportError, OSError):
        return False
