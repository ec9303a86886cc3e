"""Frames become lines, and nothing is lost on the way: long lines, binary bytes, no line break at the end."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.logs import frames, objects


def segment(*reads: tuple[str, bytes], ts: int = 1_700_000_000_123_456_789) -> bytes:
    """A segment as the spool writes it: one frame a read."""
    numbers: dict[str, int] = {}
    out = b""
    for stream, data in reads:
        if stream not in numbers:
            numbers[stream] = len(numbers) + 1
            name = stream.encode()
            out += frames.header(frames.NAME, numbers[stream], len(name), ts) + name
        out += frames.header(frames.DATA, numbers[stream], len(data), ts) + data
        ts += 1_000_000
    return out


def parsed(data: bytes, dropped: int = 0, *, begins: bool = False) -> list[dict[str, object]]:
    """What the lines of a segment say."""
    text = b"".join(objects.ndjson([data], dropped, "why", begins=begins)).decode()
    return [json.loads(line) for line in text.splitlines()]


def reassembled(found: list[dict[str, object]], stream: str) -> bytes:
    """The bytes of one stream, put together again as the documentation says."""
    out = b""
    for item in found:
        if item["stream"] == stream:
            exact = item.get("base64")
            out += base64.b64decode(str(exact)) if exact is not None else str(item["line"]).encode()
            out += b"" if item.get("partial") else b"\n"
    return out


reads = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(min_size=1, max_size=40)), max_size=12)


@given(reads)
def test_all_bytes_can_be_put_together_again(what: list[tuple[str, bytes]]) -> None:
    """For any bytes, cut into reads anywhere, of two interleaved streams."""
    found = parsed(segment(*what))
    for stream in ("stdout", "stderr"):
        assert reassembled(found, stream) == b"".join(data for name, data in what if name == stream)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_utf_16_is_decoded(order: str, mark: str) -> None:
    """What a game under Wine prints, cut anywhere, with the exact bytes beside; also where others write UTF-8 there."""
    text = f"{mark}server läuft\r\n日本語です\n\nready\nplayer 日\n日 left\n"
    data = text.encode(order)
    for cut in range(1, len(data)):
        found = parsed(segment(("stdout", data[:cut]), ("stdout", data[cut:]), ("stderr", b"plain\n")), begins=True)
        lines = [item["line"] for item in found if item["stream"] == "stdout" and not item.get("partial")]
        assert lines == ["server läuft\r", "日本語です", "", "ready", "player 日", "日 left"], cut
        assert reassembled(found, "stdout") == data
    mixed = "started\n".encode("utf-16-le")[:-1] + b"wine: fixme\n"
    assert [item["line"] for item in parsed(segment(("stdout", mixed)))] == ["started", "wine: fixme"]


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf_16_in_the_middle_of_a_stream(order: str) -> None:
    """Segments begin behind the byte 0x0A, which is the end of a line or the middle of its break."""
    later = "a\nready\nplayer 日\n日 left\n".encode(order)
    found = parsed(segment(("stdout", later[later.index(b"\n") + 1 :])))
    assert [item["line"] for item in found if not item.get("partial")] == ["ready", "player 日", "日 left"]


@given(reads, st.integers(0, 500), st.integers(1, 30))
def test_a_segment_that_was_cut_off_gives_what_is_whole(what: list[tuple[str, bytes]], cut: int, size: int) -> None:
    """The agent was killed while it wrote; and a file is read in pieces of any size."""
    data = segment(*what)[:cut]

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    whole = [(kind, name, body) for kind, _, name, body in frames.parse(pieces())]
    assert whole == [(frames.DATA, name, body) for name, body in what][: len(whole)]
    complete = 0
    end = 0
    seen: set[str] = set()
    for name, body in what:
        end += frames.HEADER.size + len(body) + (0 if name in seen else frames.HEADER.size + len(name))
        seen.add(name)
        complete += end <= cut
    assert len(whole) == complete


def test_what_follows_a_damaged_frame_is_a_gap() -> None:
    """Zeros, as a machine that lost power leaves them, are not taken for log, and what is lost is said."""
    rest = b"\0" * 64 + segment(("stdout", b"two\n"))
    first, gap = parsed(segment(("stdout", b"one\n")) + rest)
    assert first["line"] == "one"
    assert gap["dropped_bytes"] == len(rest)


@given(reads, st.data())
def test_one_flipped_bit_makes_no_segment_unreadable(what: list[tuple[str, bytes]], data: st.DataObject) -> None:
    """Whatever it hits: lengths, kinds, names, times."""
    damaged = bytearray(segment(("stdout", b"begin\n"), *what))
    place = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[place // 8] ^= 1 << place % 8
    parsed(bytes(damaged))
    b"".join(objects.verbatim([bytes(damaged)]))


def test_a_line_carries_the_time_of_its_first_byte() -> None:
    """A line that came in two reads began with the first."""
    found = parsed(segment(("stdout", b"a\nbegun "), ("stdout", b"ended\nc\n")))
    assert [(item["line"], item["ts"]) for item in found] == [
        ("a", "2023-11-14T22:13:20.123456Z"),
        ("begun ended", "2023-11-14T22:13:20.123456Z"),
        ("c", "2023-11-14T22:13:20.124456Z"),
    ]


def test_a_very_long_line_is_given_in_parts() -> None:
    """Memory is bounded, and the parts say that they go on."""
    data = b"x" * 100_000
    found = parsed(segment(*[("stdout", data)] * 10, ("stdout", b"end\n")))
    assert len(found) > 2
    assert all(item.get("partial") for item in found[:-1])
    assert reassembled(found, "stdout") == data * 10 + b"end\n"


def test_a_very_long_line_of_utf_16_is_text_in_each_part() -> None:
    """Where the stream was seen to be UTF-16 before."""
    data = "läuft".encode("utf-16-le") * 10_000
    found = parsed(segment(("stdout", "begun\n".encode("utf-16-le")), *[("stdout", data)] * 6, ("stdout", b"\n\0")))
    assert [bool(item.get("partial")) for item in found] == [False, True, True, False, True]
    assert "".join(str(item["line"]) for item in found[1:]) == "läuft" * 60_000
    assert reassembled(found, "stdout") == "begun\n".encode("utf-16-le") + data * 6 + b"\n\0"


def test_bytes_that_are_no_text_are_kept_exactly() -> None:
    """`line` is for people, `base64` for programs."""
    [item] = parsed(segment(("stderr", b"caf\xc3\xa9 \xff\n")))
    assert item["line"] == "café \ufffd"
    assert base64.b64decode(str(item["base64"])) == b"caf\xc3\xa9 \xff"


def test_what_is_missing_is_said_at_its_place() -> None:
    """Before the segment, and inside it."""
    data = segment(("stdout", b"one\n")) + frames.gap(77, "the disk was slow", 0) + segment(("stdout", b"two\n"))
    found = parsed(data, dropped=1234)
    assert [item.get("dropped_bytes") for item in found] == [1234, None, 77, None]
    assert "1234 bytes of log are missing here: why" in str(found[0]["line"])
    text = b"".join(objects.verbatim([data], 1234, "why"))
    assert text.splitlines()[0].startswith(b"[arbitrium-agent] 1234 bytes")
    assert text.splitlines()[2].startswith(b"[arbitrium-agent] 77 bytes")


@given(reads)
def test_verbatim_gives_the_bytes_as_they_were(what: list[tuple[str, bytes]]) -> None:
    """In the order in which they were read."""
    assert b"".join(objects.verbatim([segment(*what)])) == b"".join(data for _, data in what)


@pytest.mark.parametrize("line", ['"quoted" \\ back', "tab\tand\x1b[31mcolour\x07", "\u2028 separators", "windows\r"])
def test_awkward_characters_survive_json(line: str) -> None:
    """Every JSON reader gives the line back."""
    assert parsed(segment(("stdout", f"{line}\n".encode())))[0]["line"] == line
