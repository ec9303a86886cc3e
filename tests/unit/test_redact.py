"""Secrets never get through, in any form, however the bytes are cut; everything else does, unchanged."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Callable
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.logs.needles import SHORTEST, Search
from agent.logs.redact import MARK, Redactor

TOKEN = "3f1c9a7be2d84d0c9a7be2d84d0c11aa"
AWKWARD = 'p/ss+w rd&"x"=\\é%ü~'


def json_dotnet(text: str) -> str:
    """As System.Text.Json writes it: what could mean something in HTML is escaped, with digits in capitals."""
    escaped = json.dumps(text)[1:-1].replace('\\"', "\\u0022")
    escaped = re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), escaped)
    return re.sub("[&'+<>`]", lambda found: f"\\u{ord(found[0]):04X}", escaped)


def json_go(text: str) -> str:
    """As Go's encoding/json writes it."""
    return re.sub("[&<>]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False)[1:-1])


def in_pieces(redactor: Redactor, data: bytes, cuts: list[int], *, keep_length: bool = False) -> bytes:
    """What comes out when `data` is read in pieces that end at `cuts`."""
    stream = redactor.stream(keep_length=keep_length)
    out = []
    before = 0
    for cut in sorted(cuts):
        out.append(stream.feed(data[before:cut]))
        before = max(before, cut)
    out += (stream.feed(data[before:]), stream.flush())
    return b"".join(out)


@pytest.mark.parametrize("secret", [TOKEN, AWKWARD, "short1", "a b c d e f", "-----KEY-----\nabcdefghijklmnopqrst\n"])
@pytest.mark.parametrize(
    "write",
    [
        str,
        urllib.parse.quote,
        lambda s: urllib.parse.quote(s, safe=""),
        urllib.parse.quote_plus,
        lambda s: urllib.parse.quote(s, safe="~()*!'"),
        lambda s: re.sub("%..", lambda escape: escape.group().lower(), urllib.parse.quote(s, safe="")),
        lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
        lambda s: base64.b64encode(s.encode()).decode(),
        lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
        lambda s: urllib.parse.quote(base64.b64encode(s.encode()).decode(), safe=""),
        lambda s: json.dumps(base64.b64encode(s.encode()).decode()).strip('"').replace("+", "\\u002B"),
        json_dotnet,
        json_go,
        lambda s: json.dumps(s).strip('"').replace("/", "\\/"),
        lambda s: s.encode().hex(),
        lambda s: s.encode().hex().upper(),
    ],
    ids=[
        *("plain", "quote", "quote-all", "quote-plus", "js", "lower-hex", "json", "base64", "urlsafe", "base64-in-url"),
        *("base64-in-json", "json-dotnet", "json-go", "json-php", "hex", "hex-upper"),
    ],
)
def test_every_form_of_a_secret_is_replaced(secret: str, write: Callable[[str], str]) -> None:
    """As it is, URL-encoded by any common encoder, in JSON and in base64."""
    written = write(secret)
    shown = Redactor([secret]).data(f"before {written} after".encode())
    assert shown.startswith(b"before " + MARK)
    assert shown.endswith(b" after")
    # Of base64, the last character and the padding may stay: they hold less than one byte of the secret.
    assert len(shown) <= len(b"before " + MARK + b" after") + len("x%3D%3D")


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:", "some longer text "])
@pytest.mark.parametrize("after", ["", "z", "zz", "zzz", " and more"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_inside_a_longer_base64_text_is_replaced(
    before: str, after: str, encode: Callable[[bytes], bytes]
) -> None:
    """Wherever it begins in a group of three bytes: basic authentication is the usual case."""
    encoded = encode(f"{before}{TOKEN}{after}".encode())
    shown = Redactor([TOKEN]).data(encoded)
    assert MARK in shown
    # At most one character on each side depends on the secret and on its neighbours; less than one of its bytes.
    kept = shown.replace(MARK, b"").decode()
    assert len(kept.rstrip("=")) <= len(encode((before + after).encode()).decode()) + 3


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("padding", [b"", b"\n" * 5000], ids=["small", "large"])
def test_a_secret_in_utf_16_is_replaced_and_the_rest_stays_readable(order: str, padding: bytes) -> None:
    """As programs under Wine print it; the mark keeps the byte order."""
    shown = Redactor([TOKEN]).data(padding + f"before {TOKEN} after".encode(order))
    assert shown.removeprefix(padding).decode(order) == "before [redacted] after"


@settings(max_examples=60)
@given(
    secret=st.sampled_from([TOKEN, AWKWARD * 2, TOKEN * 5]),
    width=st.sampled_from([60, 64, 76]),
    end=st.sampled_from(["\n", "\r\n", "\\n"]),
    before=st.integers(0, 100),
    cuts=st.lists(st.integers(0, 500), max_size=4),
)
def test_a_secret_in_base64_with_line_breaks_is_replaced(
    secret: str, width: int, end: str, before: int, cuts: list[int]
) -> None:
    """Wherever the breaks fall, and wherever the reads do; breaks as JSON writes them within one read only."""
    encoded = base64.b64encode(b"?" * before + secret.encode() + b"!" * 9).decode()
    lines = end.join(encoded[at : at + width] for at in range(0, len(encoded), width))
    shown = in_pieces(Redactor([secret]), f"{lines}\n".encode(), [] if end == "\\n" else cuts).decode()
    assert "[redacted]" in shown
    kept = shown.replace("[redacted]", "").replace(end, "").strip()
    assert len(kept) <= len(base64.b64encode(b"?" * before + b"!" * 9)) + 6


@pytest.mark.parametrize("cuts", [[35, 72], [69, 72], [35, 70], [35, 71], [10, 20, 30, 40, 50, 60, 72]])
def test_a_line_that_was_read_in_parts_continues_on_the_next(cuts: list[int]) -> None:
    """Although less of the secret stands at its end than could tell it: the line is long, and of nothing but base64."""
    encoded = base64.b64encode(b"?" * 51 + TOKEN.encode() + b"!")
    shown = in_pieces(Redactor([TOKEN]), encoded[:70] + b"\r\n" + encoded[70:], cuts)
    assert shown == encoded[:68] + MARK + encoded[-2:]


@pytest.mark.parametrize("library", [True, False])
@settings(max_examples=40)
@given(
    secrets=st.lists(st.text(min_size=SHORTEST, max_size=40), min_size=1, max_size=5),
    chosen=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_a_large_piece_holds_no_secret_with_and_without_the_library(
    library: bool, secrets: list[str], chosen: list[int]
) -> None:
    """The same is found where ahocorasick-rs is not installed."""
    search = Redactor(secrets).search
    if not library:
        search._automata = ()
    parts = [search.needles[index % len(search.needles)] if index % 3 else b" " * 700 for index in chosen]
    piece = b"." * 5000 + b"".join(parts)
    hidden = {place for start, end in search.find(piece) for place in range(start, end)}
    for needle in search.needles:
        at = piece.find(needle)
        while at >= 0:
            assert hidden.issuperset(range(at, at + len(needle)))
            at = piece.find(needle, at + 1)


_SOME = st.sampled_from(
    [TOKEN, TOKEN[:9], TOKEN[9:], TOKEN[:1], base64.b64encode(TOKEN.encode()).decode(), "x" * 40, "line\n", " "]
)


@settings(max_examples=100)
@given(st.lists(_SOME, max_size=40).map("".join), st.lists(st.integers(0, 900), max_size=6))
def test_large_pieces_are_treated_like_small_ones(text: str, cuts: list[int]) -> None:
    """They are not copied where nothing is replaced, and what was held back before them is looked at apart."""
    redactor = Redactor([TOKEN])
    expected = in_pieces(redactor, text.encode(), cuts)
    with mock.patch("agent.logs.redact._LARGE", 1):
        assert in_pieces(redactor, text.encode(), cuts) == expected


@given(st.lists(st.integers(0, 200), max_size=6), st.sampled_from([TOKEN, AWKWARD]))
def test_a_secret_that_is_split_over_reads_is_replaced(cuts: list[int], secret: str) -> None:
    """However many reads it takes."""
    data = f"x{secret[:5]} {secret}{secret}\n{base64.b64encode(secret.encode()).decode()} {secret[:-1]}".encode()
    redactor = Redactor([secret])
    assert in_pieces(redactor, data, cuts) == redactor.data(data)
    assert secret.encode() not in redactor.data(data)


@pytest.mark.parametrize("begin", ["first-secret-second-secret", "https://first-secret@second-secret"])
def test_a_secret_that_contains_others_is_replaced_to_its_end(begin: str) -> None:
    """Where a read ends behind two others in it, all of it is held back: its rest alone would not be found."""
    whole = begin + "/the rest of the longest"
    stream = Redactor(["first-secret", "second-secret", whole]).stream()
    shown = stream.feed(f"a {begin}".encode()) + stream.feed(f"{whole.removeprefix(begin)} b".encode()) + stream.flush()
    assert shown == b"a [redacted] b"


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_what_is_no_secret_comes_out_unchanged(data: bytes, cuts: list[int]) -> None:
    """Any bytes, cut anywhere, in the same order and complete."""
    assert in_pieces(Redactor([TOKEN]), data, cuts) == data


@given(
    st.lists(st.binary(min_size=SHORTEST, max_size=90), min_size=1, max_size=6),
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.binary(max_size=12)), max_size=8),
    st.lists(st.integers(0, 600), max_size=6),
)
def test_no_needle_survives_whatever_the_secrets_are(
    secrets: list[bytes], parts: list[tuple[bool, int, bytes]], cuts: list[int]
) -> None:
    """Also where secrets overlap, contain each other, or begin like one another."""
    data = b"".join(secrets[index % len(secrets)] if is_secret else filler for is_secret, index, filler in parts)
    redactor = Redactor(secrets)
    same_length = in_pieces(redactor, data, cuts, keep_length=True)
    assert len(same_length) == len(data)
    hidden = {place for start, end in redactor.search.find(data) for place in range(start, end)}
    assert same_length == bytes(42 if place in hidden else byte for place, byte in enumerate(data))
    assert in_pieces(redactor, data, cuts) == redactor.data(data)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 400), st.integers(8, 80))
def test_many_secrets_are_found_as_surely_as_few(count: int, place: int, length: int) -> None:
    """With many secrets samples are looked at instead of everything: none slips through between two of them."""
    secrets = [
        f"{number:04d}".encode() + bytes(97 + (number * 7 + i * 3) % 26 for i in range(length))
        for number in range(count)
    ]
    data = b"." * place + secrets[count // 2] + b"." * 40
    assert secrets[count // 2] not in Redactor(secrets).data(data)


def test_lines_are_not_held_back() -> None:
    """Only the beginning of a secret at the very end of a read waits for the next one."""
    stream = Redactor([TOKEN]).stream()
    assert stream.feed(b"a line\n") == b"a line\n"
    assert stream.feed(b"a prompt: ") == b"a prompt: "
    assert stream.feed(b"token=" + TOKEN[:9].encode()) == b"token="
    assert stream.feed(b"no") == TOKEN[:9].encode() + b"no"
    assert stream.feed(b"end " + TOKEN[:3].encode()) == b"end "
    assert stream.flush() == TOKEN[:3].encode()


def test_what_is_held_back_is_bounded() -> None:
    """A stream that keeps almost being a secret does not grow in memory."""
    secret = b"ab" * 50
    for keep_length in (False, True):
        redactor = Redactor([secret])
        stream = redactor.stream(keep_length=keep_length)
        shown = []
        for _ in range(1000):
            shown.append(stream.feed(b"ab" * 25))
            assert len(stream._carry) <= 2 * redactor.search.longest + 50
        out = b"".join(shown) + stream.feed(b"a.") + stream.flush()
        assert out == (b"*" * 50_000 + b"a." if keep_length else MARK + b"a.")


def test_values_that_are_too_short_are_counted_and_left_alone() -> None:
    """`1` or `true` as a secret would make a log unreadable and hide nothing."""
    redactor = Redactor(["1", "true", "", TOKEN])
    assert redactor.ignored == 2
    assert redactor.text("1 is true") == "1 is true"


def test_a_key_of_many_lines_is_replaced_line_by_line_too() -> None:
    """A logger puts a time stamp in front of each line of it."""
    lines = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"]
    key = "-----BEGIN PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n"
    shown = Redactor([key]).text("\n".join(f"12:00 {line}" for line in key.splitlines()))
    assert not any(line in shown for line in lines)
    assert "BEGIN PRIVATE KEY" in shown


def test_a_file_keeps_its_length() -> None:
    """Offsets in a core stay valid."""
    data = b"\0" * 100 + TOKEN.encode() + b"\0" * 100
    assert in_pieces(Redactor([TOKEN]), data, [110, 120], keep_length=True) == b"\0" * 100 + b"*" * 32 + b"\0" * 100


@given(st.lists(st.integers(0, 60), max_size=4))
def test_patterns_are_replaced_within_lines_however_they_are_read(cuts: list[int]) -> None:
    """A line is looked at when it is complete."""
    data = b"user=bob password=hunter2 ok\nplayer joined\npassword=x"
    shown = in_pieces(Redactor([], [r"password=\S+"]), data, cuts)
    assert shown == b"user=bob [redacted] ok\nplayer joined\n[redacted]"


def test_patterns_are_applied_to_a_line_that_does_not_end() -> None:
    """Without a line break nothing is waited for longer than 64 KiB, and a match at a cut is whole."""
    stream = Redactor([], ["k=[0-9]+"]).stream()
    out = b"".join(stream.feed(b"x" * 1000 + b"k=12345") for _ in range(500)) + stream.flush()
    assert out == (b"x" * 1000 + MARK) * 500
    greedy = Redactor([], ["z.*"]).stream()
    for _ in range(50):
        greedy.feed(b"z" * 10000)
        assert len(greedy._line) < 200_000


def test_a_pattern_that_is_none_is_an_error_that_names_it() -> None:
    """It is found when the settings are read, not when the first line comes."""
    with pytest.raises(ValueError, match=r"cannot read the pattern.*unterminated"):
        Redactor([], ["[a-"])


def test_text_may_be_anything_a_variable_can_hold() -> None:
    """Bytes that are not UTF-8 reach Python as surrogates."""
    redactor = Redactor([b"sec\xffret-value"])
    assert redactor.text("a sec\udcffret-value b") == "a [redacted] b"
    assert redactor.text("lone \ud800 surrogate") == "lone \\ud800 surrogate"


def test_secrets_can_be_added_later() -> None:
    """A value that boot does not know yet is replaced from then on."""
    redactor = Redactor([TOKEN])
    stream = redactor.stream()
    assert stream.feed(b"later-secret ") == b"later-secret "
    redactor.add(["later-secret"], ["[0-9]{16}"])
    assert stream.feed(b"later-secret 1234567812345678\n") == b"[redacted] [redacted]\n"


def test_a_search_for_nothing_finds_nothing() -> None:
    """Outside the platform there are no secrets at all."""
    search = Search()
    assert search.find(b"anything") == []
    assert search.unfinished(b"anything") == 0
