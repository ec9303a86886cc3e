"""What is written from templates is what the client library writes, whatever changed since the last scrape."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder

from agent.metrics import exposition
from agent.metrics.exposition import Exemplar, Family, Formats, Kind, Rows, Sample, counter, gauge

ACCEPTED = st.sampled_from(
    [
        "",
        "text/plain;version=1.0.0;escaping=allow-utf-8",
        "application/openmetrics-text;version=1.0.0",
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8,text/plain;version=0.0.4;q=0.5",
    ]
)
KINDS: list[Kind] = ["counter", "gauge", "unknown"]
NAMES = st.sampled_from(["a", "a_created", "b_total", "c_gsum"])
LABELS = st.lists(
    st.tuples(st.sampled_from(["le", "why", "zone"]), st.text(max_size=4)), max_size=3, unique_by=lambda pair: pair[0]
).map(tuple)
EXEMPLARS = st.none() | st.just(Exemplar((("trace_id", "1f"),), 0.25))
# The same number is not written anew: -0 may stand as 0.
VALUES = st.one_of(st.floats().map(lambda number: number + 0.0), st.booleans(), st.integers(-(2**70), 2**70))


@st.composite
def families(draw: st.DrawFn) -> list[Family]:
    """A few families with names that are the same now and then."""
    found = []
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        kind: Kind = draw(st.sampled_from(KINDS))
        suffix, exemplars = ("_total", EXEMPLARS) if kind == "counter" else ("", st.none())
        samples: Sequence[Sample]
        if draw(st.booleans()):
            labels = draw(st.sampled_from([(), ("why",), ("zone", "why")]))
            values = st.tuples(*(st.text(max_size=2) for _ in labels))
            samples = Rows(suffix, labels, draw(st.lists(st.tuples(values, VALUES), max_size=3)))
        else:
            samples = draw(st.lists(st.builds(Sample, st.just(suffix), LABELS, VALUES, exemplars), max_size=3))
        found.append(Family(name, kind, draw(st.sampled_from(["Help.", "Two\nlines \\"])), samples))
    return found


def with_values(samples: Sequence[Sample], value: float) -> Sequence[Sample]:
    """The same samples with another number."""
    if isinstance(samples, Rows):
        return Rows(samples.suffix, samples.names, [(values, value) for values, _ in samples.rows])
    return [each._replace(value=value) for each in samples]


@settings(max_examples=60)
@given(ACCEPTED, st.lists(families(), min_size=1, max_size=2))
def test_it_is_what_the_library_writes(accept: str, scrapes: list[list[Family]]) -> None:
    """Values change, and labels, kinds, help and exemplars as well."""
    formats = Formats()
    encode, _ = choose_encoder(accept)
    for each in scrapes:
        again = [it._replace(samples=with_values(it.samples, 3.5)) for it in each]
        for found in (each, again):
            write, _ = formats.negotiate(accept)
            assert write(found) == encode(exposition._Collected(found))


def test_the_same_numbers_are_the_same_family() -> None:
    """By its identity it is known to be written; other numbers, or other labels, make another one."""
    metric = counter("shots_total", "Shots.", "weapon")
    first = metric.family([(("awp",), 1)])
    assert metric.family([(("awp",), 1.0)]) is first
    more, other = metric.family([(("awp",), 2)]), metric.family([(("knife",), 2)])
    assert first.samples[0] == Sample("_total", (("weapon", "awp"),), 1)
    assert (more.samples[0].value, other.samples[0].labels) == (2, (("weapon", "knife"),))
    plain = gauge("players", "Players.")
    assert plain.single(3) is plain.single(3)
    assert [plain.single(number).samples[0].value for number in (3, 4, 3)] == [3, 4, 3]


def test_a_crowd_of_formats_is_forgotten() -> None:
    """The header may name any version: what is kept for each is bounded."""
    formats = Formats()
    for number in range(50):
        formats.negotiate(f"application/openmetrics-text;version=1.{number}.0")
    assert len(formats._writers) <= exposition._MOST_FORMATS
