"""Reads the network counters of the container: bytes, packets, drops, UDP errors, the queues of the game's sockets.

Lag is usually visible here first: datagrams that the kernel dropped because the game did not read in time
(`receive_buffer`, and `drops` of its socket), or a queue that does not get empty.

The files are those of this process's own network namespace, which every process of a container shares (man 5 proc,
`/proc/net`; fields: Linux Documentation/networking/proc_net_tcp.rst and include/uapi/linux/snmp.h).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from agent.metrics.kept_files import KeptFiles

#: Interfaces that are shown; a container has one or two.
_MOST_DEVICES = 16


class Device(NamedTuple):
    """The counters of a network interface, from `/proc/net/dev`."""

    received_bytes: int
    received_packets: int
    received_errors: int
    received_drops: int
    sent_bytes: int
    sent_packets: int
    sent_errors: int
    sent_drops: int


class Port(NamedTuple):
    """A port that the game listens on.

    Attributes:
        number: in the container.
        protocol: `udp` or `tcp`.
    """

    number: int
    protocol: str


class Queue(NamedTuple):
    """The sockets of one port together.

    Attributes:
        receive_bytes: bytes that have arrived and were not read by the game yet.
        send_bytes: bytes that the game has written and that were not sent (TCP: not acknowledged) yet.
        drops: datagrams dropped because the queue was full or the checksum wrong, since the first reading; None for
            TCP.
    """

    receive_bytes: int = 0
    send_bytes: int = 0
    drops: int | None = None


class Network(NamedTuple):
    """The network at one time.

    Attributes:
        devices: by name, the loopback interface left out.
        udp: the kernel's UDP counters, IPv4 and IPv6 together, by its own names (`InDatagrams`, `RcvbufErrors`, ...).
        queues: by port of the game.
    """

    devices: Mapping[str, Device] = MappingProxyType({})
    udp: Mapping[str, int] = MappingProxyType({})
    queues: Mapping[Port, Queue] = MappingProxyType({})


class NetworkReader:
    """Reads the network's counters. Must not be used by two threads at once."""

    def __init__(self, ports: Iterable[Port] = (), root: str = "/proc/net") -> None:
        """Takes the ports of the game, and where the kernel shows the network."""
        self._ports = frozenset(ports)
        self._root = root
        self._files = KeptFiles()
        # When a socket is closed, its count of drops is lost, so the last value of each socket is stored.
        self._open: dict[str, tuple[Port, int]] = {}
        self._closed: dict[Port, int] = {}

    def read(self) -> Network:
        """Reads everything once; values not provided by the kernel are missing."""
        return Network(self._devices(), self._udp(), self._queues())

    def _devices(self) -> dict[str, Device]:
        found: dict[str, Device] = {}
        for line in self._lines("dev")[2:]:
            name, _, rest = line.partition(":")
            name, fields = name.strip(), rest.split(None, 12)
            if name != "lo" and len(fields) >= 12 and len(found) < _MOST_DEVICES:
                found[name] = Device(*map(int, fields[0:4]), *map(int, fields[8:12]))
        return found

    def _udp(self) -> dict[str, int]:
        # Two lines a protocol in `snmp`: names, then numbers. One name and number a line in `snmp6`. Both have many
        # more lines than the few that count, so only these are cut up. The kernel gives each of them with one read.
        found: dict[str, int] = {}
        names, found_names, rest = f"\n{self._text('snmp')}".partition("\nUdp:")[2].partition("\nUdp:")
        if found_names:
            numbers = rest.partition("\n")[0].split()
            found = {name: int(text) for name, text in zip(names.split(), numbers, strict=False)}
        _, found_first, rest = self._text("snmp6").partition("Udp6")
        fields = f"{found_first}{rest}".partition("\nUdpLite6")[0].split()
        for name, text in zip(fields[::2], fields[1::2], strict=False):
            if name.startswith("Udp6"):
                found[name[4:]] = found.get(name[4:], 0) + int(text)
        return found

    def _queues(self) -> dict[Port, Queue]:
        if not self._ports:
            return {}
        found = {port: Queue() for port in self._ports}
        seen: dict[str, tuple[Port, int]] = {}
        for port, fields in self._sockets():
            send, _, receive = fields[4].partition(":")
            queue = found[port]
            found[port] = Queue(queue.receive_bytes + int(receive, 16), queue.send_bytes + int(send, 16))
            if port.protocol == "udp" and len(fields) > 12:
                seen[fields[9]] = (port, int(fields[12]))
        for inode, (port, drops) in self._open.items():
            if inode not in seen:
                self._closed[port] = self._closed.get(port, 0) + drops
        self._open = seen
        for port, queue in found.items():
            if port.protocol == "udp":
                drops = self._closed.get(port, 0) + sum(count for of, count in seen.values() if of == port)
                found[port] = queue._replace(drops=drops)
        return found

    def _sockets(self) -> Iterator[tuple[Port, list[str]]]:
        """The sockets of the game's ports, with the fields of their lines."""
        for protocol in sorted({port.protocol for port in self._ports}):
            for table in (protocol, f"{protocol}6"):
                for line in self._lines(table)[1:]:
                    fields = line.split()
                    port = Port(int(fields[1].rpartition(":")[2], 16), protocol)
                    # The two numbers of a listening socket count connections, not bytes.
                    if port in self._ports and not (protocol == "tcp" and fields[3] == _LISTEN):
                        yield port, fields

    def _lines(self, name: str) -> list[str]:
        return (self._files.whole_text(f"{self._root}/{name}") or "").splitlines()

    def _text(self, name: str) -> str:
        return self._files.text(f"{self._root}/{name}") or ""


_LISTEN = "0A"  # include/net/tcp_states.h


def game_ports(mapping: Iterable[tuple[int, str | None]]) -> list[Port]:
    """The ports of a deployment's port mapping as they are watched here.

    Args:
        mapping: internal port and the platform's protocol (`UDP`, `TCP`, `TCP/UDP`, `HTTP`, `HTTPS`, `WS`, `WSS`), or
            None where it is not known, which is taken for both.
    """
    found: list[Port] = []
    for number, protocol in mapping:
        words = (protocol or "TCP/UDP").upper()
        if "UDP" in words:
            found.append(Port(number, "udp"))
        if words != "UDP":
            found.append(Port(number, "tcp"))
    return found
