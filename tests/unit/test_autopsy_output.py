"""What a game's output says of its end: crash reports of runtimes, and the last line that means something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.game.autopsy import Cause, Evidence, examine, may_have_left_core
from agent.game.crash_reports import Crash, find_crash
from agent.game.exit_report import last_line

JVM = """#
# A fatal error has been detected by the Java Runtime Environment:
#
#  SIGSEGV (0xb) at pc=0x00007f9a0ccd2f94, pid=11783, tid=11784
#
# JRE version: OpenJDK Runtime Environment (17.0.15+6) (build 17.0.15+6-Debian-1deb12u1)
# Problematic frame:
# V  [libjvm.so+0xed2f94]  Unsafe_PutLong+0x124
#
# An error report file with more information is saved as:
# /srv/game/hs_err_pid11783.log
#
# If you would like to submit a bug report, please visit:
#   https://bugs.debian.org/openjdk-17
#
start.sh: line 46: 11783 Aborted                 java -jar server.jar
"""
GO = """panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x45c4f3]

goroutine 1 [running]:
main.(*World).Tick(...)
\t/src/world.go:12
main.main()
\t/src/main.go:5 +0x13
exit status 2
"""
PYTHON = """Traceback (most recent call last):
  File "/srv/game.py", line 9, in <module>
    Server(1).run()
    ^^^^^^^^^^^^^^^
  File "/srv/game.py", line 4, in run
    World
KeyError: 'seed'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/game.py", line 12, in <module>
    raise SaveError("the world is gone")
game.errors.SaveError: the world is gone
"""
NODE = """/srv/server.js:1
setTimeout(()=>{throw new Error("boom")},1)
                ^

Error: boom
    at Timeout._onTimeout ([eval]:1:23)
    at listOnTimeout (node:internal/timers:581:17)

Node.js v20.20.2
"""
NODE_HEAP = """<--- JS stacktrace --->

FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory
----- Native stack trace -----

 1: 0xb78db3 node::OOMErrorHandler(char const*, v8::OOMDetails const&) [node]
10: 0x195e476  [node]
"""
RUST = """
thread 'main' (11846) panicked at p.rs:1:54:
index out of bounds: the len is 0 but the index is 1
stack backtrace:
   0: __rustc::rust_begin_unwind
             at /rustc/59807616/library/std/src/panicking.rs:689:5
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.
"""
UNREAL = """[2026.11.28-05.12.01:123][  0]LogCore: === Critical error: ===
Unhandled Exception: SIGSEGV: invalid attempt to write memory at address 0x0000000000000003

[2026.11.28-05.12.01:130][  0]LogCore: Fatal error!

0x00007f1a2b3c4d5e libUnrealEditor-Core.so!UnknownFunction(0x1234)
"""
UNITY = """Caught fatal signal - signo:11 code:1 errno:0 addr:(nil)
Obtained 4 stack frames.
#0  0x007f00 in funlockfile
#1  0x007f01 in PlayerMain(int, char**)
"""
MONO = """
=================================================================
\tNative Crash Reporting
=================================================================
Got a SIGSEGV while executing native code. This usually indicates
a fatal error in the mono runtime or one of the native libraries
used by your application.
=================================================================
"""
MONO_MANAGED = """
Unhandled Exception:
System.NullReferenceException: Object reference not set to an instance of an object
  at Game.Server.Tick () [0x00000] in <filename unknown>:0
"""
DOTNET = (
    "Unhandled exception. System.InvalidOperationException: no map\n   at Program.Main() in /src/Program.cs:line 3\n"
)
GODOT = """
================================================================
handle_crash: Program crashed with signal 11
Engine version: Godot Engine v4.2.1.stable.official
Dumping the backtrace. Please include this when reporting the bug to the project developer.
[1] /lib/x86_64-linux-gnu/libc.so.6(+0x3c050) [0x7f00]
-- END OF BACKTRACE --
"""


@pytest.mark.parametrize(
    ("output", "crash"),
    [
        (
            JVM,
            Crash(
                "JVM",
                "SIGSEGV (0xb) at pc=0x00007f9a0ccd2f94, pid=11783, tid=11784, /srv/game/hs_err_pid11783.log",
            ),
        ),
        (
            'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space\n\tat O.main(O.java:3)\n',
            Crash(
                "JVM",
                'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space',
                fatal=False,
                out_of_memory=True,
            ),
        ),
        (
            "Terminating due to java.lang.OutOfMemoryError: Java heap space\n",
            Crash("JVM", "Terminating due to java.lang.OutOfMemoryError: Java heap space", out_of_memory=True),
        ),
        (
            'Exception in thread "main" java.lang.IllegalStateException: no world\n\tat O.main(O.java:4)\n',
            Crash("JVM", 'Exception in thread "main" java.lang.IllegalStateException: no world', fatal=False),
        ),
        (GO, Crash("Go", "panic: runtime error: invalid memory address or nil pointer dereference")),
        (
            "fatal error: runtime: out of memory\n\nruntime stack:\nruntime.throw({0x1, 0x2})\n",
            Crash("Go", "fatal error: runtime: out of memory", out_of_memory=True),
        ),
        (PYTHON, Crash("Python", "game.errors.SaveError: the world is gone", fatal=False)),
        (
            'Traceback (most recent call last):\n  File "x", line 1, in <module>\n    big()\nMemoryError\n',
            Crash("Python", "MemoryError", fatal=False, out_of_memory=True),
        ),
        ("Fatal Python error: Segmentation fault\n", Crash("Python", "Fatal Python error: Segmentation fault")),
        (NODE, Crash("Node.js", "Error: boom")),
        (
            NODE_HEAP,
            Crash(
                "Node.js",
                "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
                out_of_memory=True,
            ),
        ),
        (
            RUST,
            Crash(
                "Rust",
                "thread 'main' (11846) panicked at p.rs:1:54: index out of bounds: the len is 0 but the index is 1",
                fatal=False,
            ),
        ),
        (
            "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\n",
            Crash(
                "C++",
                "terminate called after throwing an instance of 'std::bad_alloc' what():  std::bad_alloc",
                out_of_memory=True,
            ),
        ),
        ("free(): double free detected in tcache 2\n", Crash("glibc", "free(): double free detected in tcache 2")),
        (
            "c: c.cpp:5: int main(int, char**): Assertion `c==7' failed.\n",
            Crash("glibc", "c: c.cpp:5: int main(int, char**): Assertion `c==7' failed."),
        ),
        (
            UNREAL,
            Crash(
                "Unreal", "Unhandled Exception: SIGSEGV: invalid attempt to write memory at address 0x0000000000000003"
            ),
        ),
        ("[2026.11.28][ 0]LogCore: Fatal error!\n", Crash("Unreal", "LogCore: Fatal error!")),
        (UNITY, Crash("Unity", "Caught fatal signal - signo:11 code:1 errno:0 addr:(nil)")),
        (MONO, Crash("Mono", "Got a SIGSEGV while executing native code. This usually indicates")),
        (
            MONO_MANAGED,
            Crash(
                "Mono",
                "Unhandled Exception: System.NullReferenceException: Object reference not set to an instance of an "
                "object",
            ),
        ),
        (DOTNET, Crash(".NET", "Unhandled exception. System.InvalidOperationException: no map")),
        (GODOT, Crash("Godot", "handle_crash: Program crashed with signal 11")),
        ("Segmentation fault (core dumped)\n", Crash("shell", "Segmentation fault (core dumped)", signal=11)),
        (
            "start.sh: line 4: 11662 Killed                  ./server\n",
            Crash("shell", "start.sh: line 4: 11662 Killed                  ./server", signal=9),
        ),
        (
            "bash: 11853 Aborted                 ./c $m\n",
            Crash("shell", "bash: 11853 Aborted                 ./c $m", signal=6),
        ),
        # Nothing of this is a crash.
        ("player Killed by zombie\n12:01 Killed\nsaved\n", None),
        ("panic: at the disco joined\n", None),
        ("Server stopped\n", None),
        ("", None),
    ],
)
def test_what_a_runtime_prints_when_it_crashes_is_recognised_and_quoted(output: str, crash: Crash | None) -> None:
    """Those of the JVM, Python, Node.js, Rust, C++ and the shells are from runs; others are as their sources print."""
    assert find_crash(b"the game starts\n" + output.encode()) == crash


def test_colours_and_log_prefixes_do_not_hide_a_crash() -> None:
    """Some loggers write every line in colour, with a time in front."""
    output = b"\x1b[31m[12:00:01 ERROR] Unhandled exception. System.Exception: no\x1b[0m\r\n"
    assert find_crash(output) == Crash(".NET", "Unhandled exception. System.Exception: no")


def test_a_traceback_that_the_game_lived_on_after_is_no_crash() -> None:
    """It was logged, and play went on."""
    assert find_crash(PYTHON.encode() + b"player 7 joined\n" * 60) is None
    assert find_crash(PYTHON.encode() + b"goodbye\n" * 3) is not None
    assert find_crash(b"Killed\n" + b"player 7 joined\n" * 10) is None


@given(st.binary(max_size=300), st.sampled_from([JVM, GO, PYTHON, NODE, UNREAL]), st.integers(0, 200))
def test_no_output_makes_the_search_fail(noise: bytes, report: str, cut: int) -> None:
    """A tail begins anywhere, and may be no text at all."""
    for tail in (noise, noise + report.encode()[cut:], report.encode()[:cut] + noise):
        find_crash(tail)
        last_line(tail)


@pytest.mark.parametrize(
    ("tail", "line"),
    [
        (b"saving\n#\n", "saving"),
        (b"saving the world\n-----\n=====\n\n", "saving the world"),
        (b"Error: boom\n    at Timeout._onTimeout ([eval]:1:23)\n\n", "Error: boom"),
        (b"starting\n" + JVM.split("start.sh", maxsplit=1)[0].encode(), "starting"),
        (b"\x1b[32mServer started\x1b[0m\r\n\x1b[0m", "Server started"),
        (b"#0  0x007f00 in funlockfile\n", "#0  0x007f00 in funlockfile"),  # better than nothing
        (b"\xff\xfe", ""),
    ],
)
def test_the_last_line_is_one_that_means_something(tail: bytes, line: str) -> None:
    """Not a rule, a `#` or a bare stack frame."""
    assert last_line(tail) == line


@pytest.mark.parametrize(
    ("evidence", "cause", "says"),
    [
        (Evidence(code=2, crash=find_crash(GO.encode())), Cause.EXIT_CODE, "exit code 2; Go: panic: runtime error"),
        (
            Evidence(signal=6, crash=find_crash(NODE_HEAP.encode())),
            Cause.OUT_OF_MEMORY,
            "SIGABRT; Node.js: FATAL ERROR",
        ),
        (Evidence(code=0, crash=find_crash(UNITY.encode())), Cause.CRASHED, "exit code 0, but its server had crashed"),
        # A traceback may have been merely logged: an end with 0 is believed.
        (Evidence(code=0, crash=find_crash(PYTHON.encode())), Cause.CLEAN, "exit code 0"),
        (Evidence(code=1, crash=find_crash(PYTHON.encode())), Cause.EXIT_CODE, "SaveError: the world is gone"),
        (
            Evidence(
                code=143,
                stop_source="platform",
                stop_reason="platform_stop",
                sent_signals=("SIGTERM",),
                crash=find_crash(PYTHON.encode()),
            ),
            Cause.STOPPED_AS_ASKED,
            "exit code 143",
        ),
    ],
)
def test_a_crash_report_stands_in_the_verdict_where_it_explains_the_end(
    evidence: Evidence, cause: Cause, says: str
) -> None:
    """And among the evidence in every case."""
    verdict = examine(evidence)
    assert (verdict.cause, says in verdict.summary) == (cause, True), verdict
    assert any(fact.startswith("crash report in the output, ") for fact in verdict.evidence)


@pytest.mark.parametrize(
    ("evidence", "may"),
    [
        (Evidence(signal=11), True),
        (Evidence(code=139), True),
        (Evidence(code=0, crash=Crash("shell", "Aborted", signal=6)), True),
        (Evidence(signal=15), False),
        (Evidence(signal=9), False),
        (Evidence(code=143), False),
        (Evidence(code=137), False),
        (Evidence(code=1), False),
        (Evidence(code=255), False),
        (Evidence(code=0), False),
    ],
)
def test_no_core_is_looked_for_where_nothing_crashed(evidence: Evidence, may: bool) -> None:
    """A JVM that was stopped ends with 143, which is above 128 and no crash."""
    assert may_have_left_core(evidence) is may
