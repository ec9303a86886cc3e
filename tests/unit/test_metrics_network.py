"""The network and the pressure of a container, from files as kernels write them."""

import socket
from pathlib import Path

import pytest

from agent.metrics.container import ContainerReader
from agent.metrics.network import NetworkReader, Port, game_ports

DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0
  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0
"""
SNMP = """Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 677 4 7 683 5 1 2 0 0
UdpLite: InDatagrams NoPorts
UdpLite: 1 1
"""
SNMP6 = "Ip6InReceives 1\nUdp6InDatagrams 3\nUdp6RcvbufErrors 2\n"
UDP_HEAD = (
    "  sl  local_address rem_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode ref pointer drops\n"
)


def udp_line(port: int, inode: int, receive: int, drops: int) -> str:
    """A socket as /proc/net/udp shows it."""
    return f"  1: 00000000:{port:04X} 00000000:0000 07 00000010:{receive:08X} 00:0 0 0 0 {inode} 2 0000 {drops}\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A directory like /proc/net."""
    (tmp_path / "dev").write_text(DEV)
    (tmp_path / "snmp").write_text(SNMP)
    (tmp_path / "snmp6").write_text(SNMP6)
    (tmp_path / "udp").write_text(UDP_HEAD + udp_line(7777, 11, 512, 3) + udp_line(53, 12, 9, 9))
    return tmp_path


def test_interfaces_and_udp_errors(proc: Path) -> None:
    """Loopback is no traffic of the container; both versions of IP count together; UDP-Lite is something else."""
    network = NetworkReader(root=str(proc)).read()
    assert set(network.devices) == {"eth0"}
    assert network.devices["eth0"] == (1000, 10, 1, 2, 2000, 20, 3, 4)
    assert (network.udp["InDatagrams"], network.udp["RcvbufErrors"], network.udp["InErrors"]) == (680, 7, 7)


def test_drops_of_a_port_never_go_back(proc: Path) -> None:
    """A socket takes its count with it when it is closed; another one on the same port begins at 0."""
    port = Port(7777, "udp")
    reader = NetworkReader([port], str(proc))
    assert reader.read().queues == {port: (512, 16, 3)}
    (proc / "udp").write_text(UDP_HEAD)
    assert reader.read().queues == {port: (0, 0, 3)}
    (proc / "udp").write_text(UDP_HEAD + udp_line(7777, 13, 0, 2))
    assert reader.read().queues[port].drops == 5


def test_what_is_not_there_is_not_shown(tmp_path: Path) -> None:
    """A sandbox without /proc/net."""
    network = NetworkReader([Port(1, "udp")], str(tmp_path)).read()
    assert (network.devices, network.udp) == ({}, {})


def test_the_queue_of_a_real_socket() -> None:
    """What a game has not read yet, on this machine."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as game,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it,
    ):
        game.bind(("127.0.0.1", 0))
        port = Port(game.getsockname()[1], "udp")
        reader = NetworkReader([port])
        assert reader.read().queues[port] == (0, 0, 0)
        it.sendto(b"x" * 1000, game.getsockname())
        assert reader.read().queues[port].receive_bytes >= 1000


def test_which_ports_are_watched() -> None:
    """By the platform's names of protocols; both where it is not known."""
    mapping = [(1, "UDP"), (2, "TCP"), (3, "TCP/UDP"), (4, "WS"), (5, None)]
    assert [(port.number, port.protocol) for port in game_ports(mapping)] == [
        (1, "udp"),
        (2, "tcp"),
        (3, "udp"),
        (3, "tcp"),
        (4, "tcp"),
        (5, "udp"),
        (5, "tcp"),
    ]


def test_pressure_tasks_and_cache_of_a_container(tmp_path: Path) -> None:
    """Cgroup v2: seconds that tasks waited, how many there are, and what of the memory is cache."""
    files = {
        "cgroup.controllers": "cpu memory",
        "memory.events": "oom_kill 0",
        "cpu.stat": "usage_usec 1",
        "memory.stat": "anon 5\ninactive_file 300\nactive_file 7",
        "pids.current": "42",
        "pids.max": "max",
        "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg300=0.00 total=0",
        "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull broken",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "membership").write_text("0::/\n")
    reading = ContainerReader(str(tmp_path), str(tmp_path / "membership")).read()
    assert reading.pressure == {("cpu", "some"): 2.5, ("cpu", "full"): 0.0, ("memory", "some"): 1e-06}
    assert (reading.inactive_file, reading.tasks, reading.task_limit) == (300, 42, None)
