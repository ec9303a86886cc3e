"""One cause, the right one, and everything else as evidence."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.game.autopsy import Autopsy, Cause, Evidence, OtherEnd, examine, signal_name
from agent.game.cgroup import CgroupReading
from agent.game.crash_reports import Crash
from agent.game.exit_report import build_report, iso, last_line
from agent.logs.postmortem import duration, render, size

CALM = CgroupReading(
    version=2, memory_path="/sys/fs/cgroup", memory_limit=512 << 20, memory_peak=100 << 20, oom_kills=1
)
OOM = CgroupReading(version=2, memory_path="/sys/fs/cgroup", memory_limit=512 << 20, memory_peak=512 << 20, oom_kills=2)
ASKED: dict[str, Any] = {"stop_source": "platform", "stop_reason": "platform_stop"}
SIGNALLED: dict[str, Any] = {**ASKED, "sent_signals": ("SIGTERM",)}


@pytest.mark.parametrize(
    ("evidence", "cause", "summary"),
    [
        (Evidence(code=0), Cause.CLEAN, "the game ended with exit code 0"),
        (Evidence(code=0, stop_source="platform", stop_reason="platform_stop"), Cause.CLEAN, "exit code 0"),
        (Evidence(code=42), Cause.EXIT_CODE, "the game ended with exit code 42"),
        (Evidence(signal=11, core_dumped=True), Cause.SIGNAL, "the game was ended by SIGSEGV (11)"),
        (
            Evidence(signal=15, stop_source="platform", stop_reason="platform_stop", sent_signals=("SIGTERM",)),
            Cause.SIGNAL,
            "SIGTERM (15), which the agent had sent to stop it",
        ),
        (Evidence(signal=9, before=CALM, after=CALM), Cause.SIGNAL, "SIGKILL (9)"),
        (
            Evidence(signal=9, before=CALM, after=OOM),
            Cause.OUT_OF_MEMORY,
            "the kernel's OOM killer ended the game at the limit of 512 MiB",
        ),
        (Evidence(code=137, before=CALM, after=OOM), Cause.OUT_OF_MEMORY, "ended one of the game's processes"),
        (Evidence(code=1, before=CALM, after=OOM), Cause.OUT_OF_MEMORY, "one of the game's processes"),
        (Evidence(code=0, before=CALM, after=OOM), Cause.OUT_OF_MEMORY, "one of the game's processes"),
        (
            Evidence(code=0, before=CALM, after=OOM, stop_source="game", stop_reason="requested"),
            Cause.CLEAN,
            "exit code 0",
        ),
        (
            Evidence(
                signal=9, killed=True, kill_after_seconds=3.5, stop_source="platform", stop_reason="platform_stop"
            ),
            Cause.KILLED_BY_AGENT,
            "the agent killed the game 3.5 s after it was asked to end",
        ),
        (
            Evidence(signal=9, killed=True, stop_source="operator", stop_reason="requested", before=CALM, after=OOM),
            Cause.KILLED_BY_AGENT,
            "did not end by itself",
        ),
        (Evidence(killed=True, stop_source="platform"), Cause.KILLED_BY_AGENT, "did not end by itself"),
        (
            Evidence(code=3, killed=True, stop_source="platform", stop_reason="platform_stop"),
            Cause.EXIT_CODE,
            "exit code 3",
        ),
        (
            Evidence(
                signal=9, killed=True, stop_source="policy", stop_reason="heartbeat_lost", heartbeat_age_seconds=31.2
            ),
            Cause.HEARTBEAT_LOST,
            "its heartbeat was lost; the last one came 31.2 s before the end",
        ),
        (
            Evidence(signal=9, killed=True, stop_source="policy", stop_reason="heartbeat_lost", before=CALM, after=OOM),
            Cause.OUT_OF_MEMORY,
            "one of the game's processes",
        ),
        (Evidence(could_not_start="cannot start 'x': no such program"), Cause.COULD_NOT_START, "no such program"),
        # An OOM kill that the game lived on after is no cause, whatever the end is called then.
        (Evidence(code=1, before=CALM, after=OOM, at_stop=OOM, **ASKED), Cause.EXIT_CODE, "exit code 1"),
        (Evidence(code=143, before=CALM, after=OOM, at_stop=OOM, **SIGNALLED), Cause.STOPPED_AS_ASKED, "SIGTERM"),
        (Evidence(signal=9, before=CALM, after=OOM, at_stop=OOM, **ASKED), Cause.SIGNAL, "SIGKILL (9)"),
        (Evidence(code=3, before=CALM, after=OOM, oom_kill_age_seconds=900.0), Cause.EXIT_CODE, "exit code 3"),
        (Evidence(code=3, before=CALM, after=OOM, oom_kill_age_seconds=0.3), Cause.OUT_OF_MEMORY, "OOM killer"),
        # The agent's own process is none of the game's.
        (Evidence(code=0, before=CALM, after=OOM, own_oom_kills=1), Cause.CLEAN, "exit code 0"),
        (
            Evidence(
                code=0, before=CALM, after=OOM, at_stop=CALM, own_oom_kills=1, own_oom_kills_since_stop=1, **ASKED
            ),
            Cause.CLEAN,
            "exit code 0",
        ),
        # One that came while the game was saving is, even where the script in front returned 0.
        (Evidence(code=0, before=CALM, after=OOM, at_stop=CALM, **ASKED), Cause.OUT_OF_MEMORY, "OOM killer"),
        (Evidence(code=137, before=CALM, after=OOM, at_stop=CALM, **ASKED), Cause.OUT_OF_MEMORY, "OOM killer"),
        # 128 plus the signal of the stop: a JVM after its shutdown hooks, .NET, a script that passes it on.
        (Evidence(code=143, **SIGNALLED), Cause.STOPPED_AS_ASKED, "asked to end with SIGTERM"),
        (Evidence(code=130, **{**SIGNALLED, "sent_signals": ("SIGINT",)}), Cause.STOPPED_AS_ASKED, "with SIGINT"),
        (Evidence(code=130, **SIGNALLED), Cause.EXIT_CODE, "exit code 130"),
        (Evidence(code=143), Cause.EXIT_CODE, "exit code 143"),
        # Exit code 0 of an entrypoint is not the server's.
        (
            Evidence(code=0, crash=Crash("shell", "start.sh: line 3: 7 Killed ./server", signal=9)),
            Cause.CRASHED,
            "its server had crashed; shell: start.sh: line 3: 7 Killed",
        ),
        (
            Evidence(code=0, crash=Crash("shell", "start.sh: line 3: 7 Terminated ./server", signal=15), **SIGNALLED),
            Cause.STOPPED_AS_ASKED,
            "SIGTERM, which the agent had sent to stop the game, ended its server",
        ),
        (
            Evidence(code=0, others=(OtherEnd("server", 12, signal=11),)),
            Cause.CRASHED,
            "SIGSEGV (11) had ended server (process 12)",
        ),
        (Evidence(code=0, others=(OtherEnd("tee", 12, signal=13, helper=True),)), Cause.CLEAN, "exit code 0"),
        (Evidence(code=0, others=(OtherEnd("server", 12, code=0),)), Cause.CLEAN, "exit code 0"),
        # One of a script's many programs says nothing; the server behind it does.
        (Evidence(code=0, others=(OtherEnd("ping", 12, code=1),)), Cause.CLEAN, "exit code 0"),
        (
            Evidence(code=0, others=(OtherEnd("server", 12, code=3, behind_script=True),)),
            Cause.EXIT_CODE,
            "its server, server (process 12), had ended with exit code 3",
        ),
        (
            Evidence(code=0, sent_signals=("SIGTERM",), others=(OtherEnd("server", 12, code=143, behind_script=True),)),
            Cause.STOPPED_AS_ASKED,
            "SIGTERM, which the agent had sent",
        ),
        (
            Evidence(
                code=0,
                sent_signals=("SIGTERM",),
                others=(OtherEnd("exporter", 13, signal=15), OtherEnd("server", 12, signal=11, behind_script=True)),
            ),
            Cause.CRASHED,
            "SIGSEGV (11) had ended server",
        ),
        (
            Evidence(code=0, left_behind=("server (process 12)",), killed=True),
            Cause.KILLED_BY_AGENT,
            "left server (process 12) behind, which the agent had to kill",
        ),
        (
            Evidence(code=0, left_behind=("server (process 12)",), sent_signals=("SIGTERM",)),
            Cause.STOPPED_AS_ASKED,
            "set AGENT_MAIN",
        ),
    ],
)
def test_the_cause_is_what_came_first(evidence: Evidence, cause: Cause, summary: str) -> None:
    """An OOM kill looks like any SIGKILL, and a hung game like one that the agent killed."""
    verdict = examine(evidence)
    assert verdict.cause is cause
    assert summary in verdict.summary


def test_what_was_not_the_cause_is_evidence_all_the_same() -> None:
    """A child that the OOM killer took long before an orderly end."""
    verdict = examine(Evidence(code=0, before=CALM, after=OOM, stop_source="game", stop_reason="requested"))
    assert any("OOM kills: 1 process" in fact and "/sys/fs/cgroup/memory.events" in fact for fact in verdict.evidence)


def test_it_says_when_it_cannot_know_of_oom_kills() -> None:
    """Without counters, SIGKILL may be one; that is not held back."""
    verdict = examine(Evidence(signal=9))
    assert verdict.cause is Cause.SIGNAL
    assert any("unknown" in fact and "SIGKILL may be one" in fact for fact in verdict.evidence)


def test_a_shells_code_for_a_signal_is_explained() -> None:
    """`bash -c game` reports its child's SIGSEGV as 139; a JVM that was stopped has no shell to blame."""
    verdict = examine(Evidence(code=139))
    assert verdict.cause is Cause.EXIT_CODE
    assert any("a shell reports that SIGSEGV" in fact for fact in verdict.evidence)
    assert not any("shell" in fact for fact in examine(Evidence(code=143, **SIGNALLED)).evidence)


def test_the_moment_of_an_oom_kill_is_told_where_it_is_known() -> None:
    """So that nobody takes an old one for the cause."""
    before_stop = examine(Evidence(code=1, before=CALM, after=OOM, at_stop=OOM, **ASKED))
    assert any("all before the stop was asked for" in fact for fact in before_stop.evidence)
    old = examine(Evidence(code=1, before=CALM, after=OOM, oom_kill_age_seconds=900.0))
    assert any("the last one 900 s before the end" in fact for fact in old.evidence)


NAMES = [
    "deployment",
    "cause",
    "summary",
    "evidence",
    "times",
    "uptime_seconds",
    "command",
    "phases",
    "phase",
    "at",
    "seconds",
    "stop",
    "plan",
    "steps",
    "step",
    "happened",
    "method",
    "acknowledged",
    "players",
    "capacity",
    "heartbeat",
    "memory",
    "peak_bytes",
    "limit_bytes",
    "cpu",
    "periods",
    "core",
    "stack",
    "shipping",
    "spool",
    "bytes_dropped",
    "not_shipped",
    "bytes",
    "bundle",
    "collected",
    "missing",
    "unreadable",
    "output_tail",
    "restarts",
    "started",
]
readings = st.builds(CgroupReading, version=st.sampled_from([1, 2, None]), oom_kills=st.none() | st.integers(0, 5))


@given(
    st.builds(
        Evidence,
        code=st.none() | st.integers(0, 255),
        signal=st.none() | st.integers(1, 64),
        could_not_start=st.none() | st.just("cannot start"),
        stop_source=st.none() | st.sampled_from(["game", "platform", "policy", "operator"]),
        stop_reason=st.none() | st.sampled_from(["requested", "heartbeat_lost", "platform_stop"]),
        killed=st.booleans(),
        heartbeat_age_seconds=st.none() | st.floats(0, 1e6),
        before=st.none() | readings,
        after=st.none() | readings,
        at_stop=st.none() | readings,
        oom_kill_age_seconds=st.none() | st.floats(0, 1e6),
        sent_signals=st.sampled_from([(), ("SIGTERM",), ("SIGINT", "SIGTERM")]),
        left_behind=st.sampled_from([(), ("server (process 7)",)]),
        others=st.lists(
            st.builds(OtherEnd, st.just("x"), st.just(7), signal=st.none() | st.integers(1, 64)), max_size=2
        ).map(tuple),
        crash=st.none() | st.builds(Crash, st.just("Go"), st.text(max_size=5), st.booleans(), st.booleans()),
    )
)
def test_any_evidence_gives_one_cause_and_a_document(evidence: Evidence) -> None:
    """Nothing that a kernel can report makes the autopsy fail."""
    verdict = examine(evidence)
    assert isinstance(verdict.cause, Cause)
    assert verdict.summary
    document = build_report(autopsy=verdict, reason=None, exit_code=1, signal=evidence.signal, after=evidence.after)
    assert render(json.loads(json.dumps(document)))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(NAMES), anything))
def test_a_post_mortem_is_readable_whatever_the_document_says(document: dict[str, object]) -> None:
    """It may come from a newer agent, or have been edited."""
    assert render(document)


def test_signals_have_names() -> None:
    """Real-time signals too."""
    assert signal_name(11) == "SIGSEGV"
    assert signal_name(signal.SIGRTMIN + 3) == "SIGRTMIN+3"
    assert signal_name(200) == "SIG200"


def test_the_document_has_everything_and_the_post_mortem_shows_it() -> None:
    """Times are wall clock, whatever the clock they came from."""
    verdict = Autopsy(Cause.SIGNAL, "the game was ended by SIGSEGV (11)", ("wait status: ended by signal 11",))
    document = build_report(
        autopsy=verdict,
        reason="game_crashed",
        exit_code=139,
        signal=11,
        core_dumped=True,
        wall_offset=1_700_000_000.0,
        started_at=100.0,
        ready_at=101.5,
        ended_at=3800.0,
        phases=[("starting", 100.0), ("ready", 101.5), ("stopping", 3798.0), ("flushing", 3800.0)],
        stop={"source": "platform", "reason": "platform_stop", "message": "bye", "at": 3798.0},
        plan={"total_seconds": 5.0, "steps": [{"step": "stop", "seconds": 4.0}]},
        happened=[{"step": "stop", "seconds": 2.0}],
        tail=b"first\nSegmentation fault\xff\n\n",
        heartbeat={"at": 3790.0, "count": 7},
        players={"count": 3, "capacity": 16, "ids": ["a"]},
        before=CgroupReading(version=2, oom_kills=0, cpu_seconds=1.0, cpu_periods=10, cpu_throttled_periods=1),
        after=CgroupReading(
            version=2,
            oom_kills=0,
            memory_peak=300 << 20,
            memory_limit=512 << 20,
            cpu_seconds=11.0,
            cpu_periods=110,
            cpu_throttled_periods=51,
            cpu_throttled_seconds=2.5,
        ),
        restarts=2,
        attempt=3,
        logs={"stdout_bytes": 5},
        core={"path": "/core", "summary": "a core of 5 bytes", "stack": "#0 main"},
        deployment={"request_id": "23c01225b99d"},
        command=["./game", "-x"],
        agent_version="1",
    )
    assert document["cause"] == "signal"
    assert (document["signal"], document["signal_number"], document["code"]) == ("SIGSEGV", 11, None)
    assert document["uptime_seconds"] == 3700.0
    assert document["times"] == {
        "started": "2023-11-14T22:15:00.000Z",
        "ready": "2023-11-14T22:15:01.500Z",
        "stop_requested": "2023-11-14T23:16:38.000Z",
        "ended": "2023-11-14T23:16:40.000Z",
    }
    assert document["cpu"] == {
        "used_seconds": 10.0,
        "limit_cpus": None,
        "periods": 100,
        "throttled_periods": 50,
        "throttled_seconds": 2.5,
    }
    assert str(document["output_tail"]).startswith("first\nSegmentation fault\ufffd")
    shown = render(json.loads(json.dumps(document)))
    for part in (
        "Deployment 23c01225b99d, attempt 3",
        "signal: the game was ended by SIGSEGV (11)",
        "(1 h 1 min)",
        'asked for by platform: platform_stop ("bye") at 2023-11-14T23:16:38.000Z',
        "planned: stop 4.00 s",
        "really:  stop 2.00 s",
        "players: 3 of 16",
        "peak memory: 300 MiB of 512 MiB",
        "throttled in 50 of 100 periods",
        "restarts: 2",
        "#0 main",
        "Segmentation fault",
    ):
        assert part in shown


def test_small_things_for_people() -> None:
    """Durations, sizes, moments, and the last line that says something."""
    assert [duration(s) for s in (0.25, 12, 200, 18120)] == ["0.25 s", "12 s", "3 min 20 s", "5 h 2 min"]
    assert [size(n) for n in (5, 1536, 64 << 20, 3 << 30)] == ["5 bytes", "1.5 KiB", "64 MiB", "3 GiB"]
    assert iso(0.0005) == "1970-01-01T00:00:00.000Z"
    assert last_line(b"one\ntwo\n \n") == "two"
    assert last_line(b"") == ""
