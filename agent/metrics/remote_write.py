"""Prometheus remote write: families to the bytes of a request, in version 2.0 and in 1.0.

Specifications: https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/ and remote_write_spec/ (1.0). The messages
have a handful of fields, and no maintained package on PyPI has them; the tests decode what is written here with the
protobuf package, and Prometheus itself takes it.

The body has to be in the block format of Snappy (https://github.com/google/snappy/blob/main/format_description.txt),
which allows a text of literals only: it is a few per cent longer than the text itself, and needs no library.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator

from agent.metrics.exposition import Family, LabelPairs

V1 = "application/x-protobuf"
V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"

# io.prometheus.write.v2.Metadata.MetricType
_TYPES = {"unknown": 0, "counter": 1, "gauge": 2, "histogram": 3, "info": 6, "stateset": 7}


def headers(version: int) -> dict[str, str]:
    """The headers of a request in version 1 or 2."""
    return {
        "Content-Type": V2 if version == 2 else V1,
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "2.0.0" if version == 2 else "0.1.0",
    }


def write_v2(families: Iterable[Family], common: LabelPairs, at: float) -> bytes:
    """`io.prometheus.write.v2.Request`, uncompressed.

    Args:
        families: what to write.
        common: labels that every series gets, such as job and instance.
        at: Unix time in seconds, of all samples.
    """
    symbols: dict[str, int] = {"": 0}
    series = bytearray()
    moment = _field(2, _varint(int(at * 1000)))
    for family in families:
        type_field = _field(1, _varint(_TYPES[family.kind]))
        help_field = _field(3, _varint(_symbol(symbols, _clean(family.help))))
        metadata = _message(5, type_field + help_field)
        for labels, value in _series(family, common):
            references = b"".join(
                _varint(_symbol(symbols, name)) + _varint(_symbol(symbols, text)) for name, text in labels
            )
            sample = _double(1, value) + moment
            series += _message(5, _message(1, references) + _message(2, sample) + metadata)
    return b"".join(_message(4, text.encode()) for text in symbols) + bytes(series)


def write_v1(families: Iterable[Family], common: LabelPairs, at: float) -> bytes:
    """`prometheus.WriteRequest`, uncompressed; arguments as for `write_v2`."""
    written = bytearray()
    moment = _field(2, _varint(int(at * 1000)))
    for family in families:
        for labels, value in _series(family, common):
            pairs = b"".join(
                _message(1, _message(1, name.encode()) + _message(2, text.encode())) for name, text in labels
            )
            written += _message(1, pairs + _message(2, _double(1, value) + moment))
    return bytes(written)


def snappy(data: bytes) -> bytes:
    """The data in the block format of Snappy, as literals."""
    written = bytearray(_varint(len(data)))
    for begin in range(0, len(data), 65536):
        part = data[begin : begin + 65536]
        length = len(part) - 1
        if length < 60:
            written.append(length << 2)
        elif length < 256:
            written += bytes((60 << 2, length))
        else:
            written += bytes((61 << 2,)) + struct.pack("<H", length)
        written += part
    return bytes(written)


def _series(family: Family, common: LabelPairs) -> Iterator[tuple[list[tuple[str, str]], float]]:
    for suffix, labels, value, _ in family.samples:
        # Sorted by name, each once, and without empty ones, as the specification has it.
        named = {
            **dict(common),
            **{(f"exported_{name}" if (name in _TARGET) else name): _clean(text) for name, text in labels},
            "__name__": family.name + suffix,
        }
        yield sorted((name, text) for name, text in named.items() if text), value


_TARGET = ("job", "instance")


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _symbol(symbols: dict[str, int], text: str) -> int:
    return symbols.setdefault(text, len(symbols))


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _field(number: int, varint: bytes) -> bytes:
    return bytes((number << 3,)) + varint


def _double(number: int, value: float) -> bytes:
    return bytes((number << 3 | 1,)) + struct.pack("<d", math.nan if math.isnan(value) else value)


def _message(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content
