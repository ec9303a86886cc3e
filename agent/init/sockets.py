"""Binds the agent's listening sockets, before the game is spawned. Standard library only.

From then on the kernel accepts connections, which wait in the backlog until the server is up: the game's first call may
take a moment, but is never refused.
"""

import errno
import os
import stat
import sys

from agent.config.homes import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import socket as _socket

    from agent.compat.prepare import Prepared
else:
    import _socket  # the C part of `socket`, which would make enumerations of its constants: an interpreter's start

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel takes net.core.somaxconn at most. Where they are too many, it
drops the next client's first packet, which is sent again after a second."""
SO_PASSRIGHTS = 83
"""Socket option: whether descriptors may be received (asm-generic/socket.h). Python has no name for it yet."""
# A file system or sandbox without flock(): a socket that is there is taken for one that was left over, and replaced.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_UCRED_SIZE = 12  # three integers (man 7 unix)
RUN_DIR = "/run/arbitrium-agent"


class TakenError(Exception):
    """An address that cannot be used; `str()` is the rest of a sentence that begins with the setting's name."""


class Bound:
    """A bound socket that does not block."""

    __slots__ = ("_plain", "_sock")

    def __init__(self, plain: "_socket.socket") -> None:
        """Takes the socket of the C module."""
        self._plain = plain
        self._sock: socket.socket | None = None

    @property
    def sock(self) -> "socket.socket":
        """The socket as everybody else knows sockets. Not asked for before the game is started: that is an import."""
        if self._sock is None:
            import socket  # noqa: PLC0415 - see above

            self._sock = socket.socket(fileno=self._plain.detach())
            self._sock.setblocking(False)
        return self._sock

    def close(self) -> None:
        """Closes it."""
        if self._sock is not None:
            self._sock.close()
        self._plain.close()  # nothing where it was detached


class Port(Bound):
    """A bound and listening TCP socket.

    Attributes:
        host: the address that it listens on.
        number: its port.
        instead_of: the default port that was taken, or None.
    """

    __slots__ = ("host", "instead_of", "number")

    def __init__(self, plain: "_socket.socket", instead_of: "int | None" = None) -> None:
        """Takes a bound socket."""
        super().__init__(plain)
        self.host: str
        self.number: int
        self.host, self.number = plain.getsockname()[:2]
        self.instead_of = instead_of


def listen_tcp(host: str, port: int, *, explicit: bool) -> Port:
    """Binds a TCP port.

    Args:
        host: address to listen on.
        port: the port; 0 takes any free one.
        explicit: whether the user chose this port. If the default port is taken, any free one is used instead.

    Raises:
        TakenError: an explicit port is taken, or the address cannot be used at all.
    """
    try:
        return Port(_bind(host, port))
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE and not explicit:
            return Port(_bind(host, 0), instead_of=port)
        raise TakenError(_why(problem, port)) from None


def _bind(host: str, port: int) -> "_socket.socket":
    sock = _socket.socket(_socket.AF_INET6 if ":" in host else _socket.AF_INET, _socket.SOCK_STREAM)
    try:
        # Without it, a port with connections in TIME_WAIT could not be bound again after a restart.
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _why(problem: OSError, port: int) -> str:
    match problem.errno:
        case errno.EADDRINUSE:
            return f"takes a free port, and {port} is taken by another program"
        case errno.EACCES:
            return f"takes a port that this user may use, and {port} is not one (below 1024 needs root)"
        case errno.EADDRNOTAVAIL:
            return "takes an address of this machine"
        case _:
            return f"cannot be used: {os.strerror(problem.errno or 0).lower()}"


class UnixSocket(Bound):
    """The control socket: bound and listening, mode 0660.

    Attributes:
        path: where it is.
        instead_of: the default path, if another agent uses it, or None.
    """

    __slots__ = ("_lock", "instead_of", "path")

    def __init__(self, plain: "_socket.socket", path: str, lock: int, instead_of: "str | None" = None) -> None:
        """Takes a bound socket and the lock that marks it as in use."""
        super().__init__(plain)
        self.path = path
        self.instead_of = instead_of
        self._lock = lock

    def close(self) -> None:
        """Closes the socket and removes its files."""
        if self.sock.type == _socket.SOCK_DGRAM:
            # Closing descriptors that came with a datagram nobody has read can block (man 7 socket, SO_LINGER), but not
            # at the end of a process, which follows.
            self.sock.detach()
        super().close()
        for leftover in (self.path, self.path + ".lock"):
            try:  # noqa: SIM105 - contextlib is not imported before the game is started
                os.unlink(leftover)
            except OSError:
                pass
        os.close(self._lock)


def listen_notify(beside: "UnixSocket") -> "tuple[UnixSocket | None, str]":
    """Binds the datagram socket for sd_notify, beside the control socket.

    Returns:
        The socket or None, and why there is none (or "").
    """
    try:
        bound = _bind_unix(_notify_path(beside.path), _socket.SOCK_DGRAM, credentials=True)
    except OSError as problem:
        return None, problem.strerror or str(problem)
    return bound, ""


def listen_statsd(where: "int | str") -> "tuple[socket.socket, UnixSocket | None]":
    """Binds the datagram socket for StatsD.

    Args:
        where: a UDP port on 127.0.0.1, or the path of a Unix socket.

    Returns:
        The socket, and its files where it has a path.

    Raises:
        TakenError: the port or path cannot be used.
    """
    if isinstance(where, str):
        try:
            bound = _bind_unix(where, _socket.SOCK_DGRAM, refuse=True)
        except OSError as problem:
            raise TakenError(_why_not(problem)) from None
        return bound.sock, bound
    import socket  # noqa: PLC0415 - most games send no StatsD

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind(("127.0.0.1", where))
        sock.setblocking(False)
    except OSError as problem:
        sock.close()
        raise TakenError(_why(problem, where)) from None
    return sock, None


def _notify_path(path: str) -> str:
    base, dot, end = path.rpartition(".")
    return f"{base}-notify.{end}" if dot and "/" not in end else f"{path}-notify"


def default_socket_paths() -> "list[str]":
    """Default paths of the socket, in order of preference; the commands look for it in the same order."""
    return [f"{RUN_DIR}/agent.sock", f"{home(os.getuid())}/agent.sock"]


def listen_unix(path: "str | None") -> "tuple[UnixSocket | None, str]":
    """Binds the Unix socket.

    Args:
        path: an explicit path; "" for no socket; None for the first default path that can be used.

    Returns:
        The socket or None, and why there is none (or "").

    Raises:
        TakenError: the explicit path cannot be used.
    """
    if path == "":
        return None, ""
    if path is not None:
        try:
            return _bind_unix(path), ""
        except OSError as problem:
            raise TakenError(_why_not(problem)) from None
    why = ""
    for default in default_socket_paths():
        directory = os.path.dirname(default)
        try:
            _own_directory(directory)
            try:
                return _bind_unix(default), ""
            except BlockingIOError:
                # Another agent runs here: it keeps its socket, and this one is found through AGENT_SOCKET.
                own = _bind_unix(os.path.join(directory, f"agent-{os.getpid()}.sock"))
                own.instead_of = default
                return own, ""
        except OSError as problem:
            why = f"{directory}: {os.strerror(problem.errno or 0).lower()}"
    return None, why


def _own_directory(path: str) -> None:
    """Creates a directory owned by this user, so that nobody else can put a socket there and answer for the agent."""
    try:
        # Others may enter: the game may run as another user, and the socket has its own permissions.
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)  # noqa: S103 - whatever the umask is, see above
    except FileExistsError:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.getuid(), 0):
            raise PermissionError(errno.EPERM, "somebody else's", path) from None
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable", path) from None


def peer_credentials(connection: "socket.socket") -> "tuple[int, int, int]":
    """Process, user and group at the other end of a Unix socket, as they were when it connected (SO_PEERCRED).

    Raises `OSError` where the connection is gone.
    """
    found = connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _UCRED_SIZE)
    pid, uid, gid = (int.from_bytes(found[at : at + 4], sys.byteorder) for at in range(0, _UCRED_SIZE, 4))
    return pid, uid, gid


def _lock(fd: int) -> None:
    import fcntl  # noqa: PLC0415 - this is the only use

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        if problem.errno not in _NO_LOCKS:
            raise


def _bind_unix(
    path: str, kind: int = _socket.SOCK_STREAM, *, credentials: bool = False, refuse: bool = False
) -> UnixSocket:
    # The lock tells whether an agent is running; a socket file alone may be left over from an ended process.
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(lock)
        if not os.path.samestat(os.fstat(lock), os.stat(path + ".lock")):
            raise BlockingIOError  # removed by its owner after the open: another agent creates a new one
        try:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        except FileNotFoundError:
            pass
        sock = _socket.socket(_socket.AF_UNIX, kind)
        try:
            before = os.umask(0o117)
            try:
                sock.bind(path)
            finally:
                os.umask(before)
            if credentials:
                # Before anybody sends: those of a datagram are kept only where they are wanted when it is sent.
                sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            if refuse or kind == _socket.SOCK_STREAM:
                _refuse_descriptors(sock)
            if kind == _socket.SOCK_STREAM:
                sock.listen(BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except BaseException:
        os.close(lock)
        raise
    return UnixSocket(sock, path, lock)


def _refuse_descriptors(sock: "_socket.socket") -> None:
    """Has the kernel refuse descriptors sent to this socket and to accepted connections (since Linux 6.16).

    The socket for sd_notify accepts them: BARRIER=1 is sent with one.
    """
    try:  # noqa: SIM105 - contextlib is not imported before the game is started
        sock.setsockopt(_socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError:
        pass


def _why_not(problem: OSError) -> str:
    if isinstance(problem, BlockingIOError):
        return "takes a path that no other agent listens on"
    if problem.errno == errno.EADDRINUSE:
        return "takes a path where a socket can be made, and there is another file"
    return f"takes a path where a socket can be made: {os.strerror(problem.errno or 0).lower()}"


class Sockets:
    """The bound sockets of one agent, None for those not in use; `compat` holds those of other hosts' SDKs."""

    def __init__(self) -> None:
        """None is bound yet."""
        self.control: Port | None = None
        self.metrics: Port | None = None
        self.unix: UnixSocket | None = None
        self.notify: UnixSocket | None = None
        self.statsd: socket.socket | None = None
        self.statsd_path: UnixSocket | None = None
        self.compat: Prepared | None = None

    def close(self) -> None:
        """Closes them and removes their files."""
        if self.compat is not None:
            self.compat.close()
        for port in (self.control, self.metrics):
            if port is not None:
                port.close()
        if self.statsd is not None:
            self.statsd.close()
        for unix in (self.unix, self.notify, self.statsd_path):
            if unix is not None:
                unix.close()
