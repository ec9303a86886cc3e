"""The table of figures: what is compared with what, and what is said of aims and of what could not be measured."""

import importlib
import socket
import threading

import pytest

from benchmarks import Row, percentile, skipped, summary
from benchmarks.__main__ import machine, modules, table
from benchmarks._tools import Client


def cells(rows: list[Row]) -> list[list[str]]:
    """The table's lines without head and rule, by cell."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table(rows).splitlines()[2:]]


def test_a_percentile_is_a_value_that_occurred() -> None:
    """The smallest that so many do not exceed; also of one value."""
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert [percentile(values, percent) for percent in (0, 20, 21, 50, 99, 100)] == [1, 1, 2, 3, 5, 5]
    assert percentile([7.0], 50) == 7.0


def test_figures_are_compared_with_the_first_of_their_kind() -> None:
    """A ratio of 1 is the agent's own; other kinds begin anew."""
    rows = [
        summary("start", "agent", [20.0, 40.0, 60.0], "ms", at_most=50),
        summary("start", "peer", [4.0], "ms"),
        Row("memory", "agent", 46.04, "MB", at_most=46),
        Row("speed", "agent", 512.4, "MB/s", at_least=500),
    ]
    assert cells(rows) == [
        ["start", "agent", "40.0 ms", "20.0 to 60.0", "1.00", "≤ 50 ms: reached", "3", ""],
        ["", "peer", "4.00 ms", "4.00 to 4.00", "0.10", "", "1", ""],
        ["memory", "agent", "46.0 MB", "", "1.00", "≤ 46 MB: missed", "1", ""],
        ["speed", "agent", "512 MB/s", "", "1.00", "≥ 500 MB/s: reached", "1", ""],
    ]


def test_what_could_not_be_measured_is_in_the_table() -> None:
    """With the reason, and without breaking the comparison of others."""
    rows = [skipped("start", "agent", "ms", "no C compiler"), summary("start", "peer", [4.0], "ms")]
    assert cells(rows)[0] == ["start", "agent", "-", "", "", "", "", "skipped: no C compiler"]
    assert cells(rows)[1][4] == "", "there is nothing to compare with"


def test_every_module_that_takes_part_can_measure() -> None:
    """They are found by being there; ours come in the order of a life."""
    names = modules()
    assert names[:5] == ["start", "memory", "latency", "stop", "scrape"]
    for name in names:
        assert callable(importlib.import_module(f"benchmarks.{name}").measure)


def test_the_machine_is_described() -> None:
    """In one line, because a figure without it says little."""
    assert "CPU" in machine()
    assert "\n" not in machine()


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_the_client_reads_answers_however_they_come(pieces: int) -> None:
    """In one piece or in many; the status and the whole body."""
    answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 20\r\nX: y\r\n\r\n" + b"x" * 20
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(4096)
                step = -(-len(answer) // pieces)
                for start in range(0, len(answer), step):
                    connection.sendall(answer[start : start + step])

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(server.getsockname()[1]) as client:
            assert client.ask(client.request("GET", "/")) == (202, b"x" * 20)
        thread.join()
