"""Datagrams of sd_notify: whatever comes is read or left out, never an error."""

from hypothesis import given
from hypothesis import strategies as st

from agent.init.notify import parse


def test_assignments_are_read_line_by_line() -> None:
    """The value may hold an equals sign."""
    assert parse(b"READY=1\nSTATUS=a=b\n") == {"READY": "1", "STATUS": "a=b"}


@given(st.binary(max_size=200))
def test_any_datagram(datagram: bytes) -> None:
    """Names are capitals, digits and underscores."""
    assert all(name == name.upper() and "=" not in name for name in parse(datagram))
