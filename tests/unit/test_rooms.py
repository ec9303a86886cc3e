"""The structure: no import circle, no room that imports what it must not, nothing heavy in PID 1."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "agent"

# What each room may import of the others; rooms that are not listed are commands, and may import what they like, but
# nobody imports them.
MAY_IMPORT = {
    "lifecycle": {"", "lifecycle"},
    "config": {"", "config", "lifecycle", "game", "logs"},
    "game": {"", "game", "lifecycle"},
    "link": {"", "link", "lifecycle"},
    "init": {"", "init", "config", "game", "lifecycle", "link", "logs", "compat", "runtime"},
    "logs": {"", "logs", "lifecycle", "config", "game"},
    "metrics": {"", "metrics", "config", "game", "lifecycle", "logs"},
    "edgegap": {"", "edgegap", "config"},
    "api": {"", "api", "config", "game", "lifecycle", "edgegap", "logs", "init"},
    "emulator": {"", "emulator", "config", "edgegap", "api", "game", "logs"},
}
COMMANDS = {"demo", "doctor", "emulator", "discover", "fleet"}
# `python -X importtime -c "import agent.init.main"` shows them; each costs the game's start.
HEAVY = {"asyncio", "dataclasses", "inspect", "typing", "logging", "http", "ssl", "email", "urllib.request", "uuid"}
# Before the game is executed, nor these: the first is half of an interpreter's start, and the others import it.
SLOW = {"enum", "functools", "collections", "contextlib", "re", "json", "signal", "socket", "subprocess", "threading"}
SLOW |= {"ctypes"}


def module_of(path: Path) -> str:
    """Its dotted name."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, Path]:
    """All modules of the package by name."""
    return {module_of(path): path for path in ROOT.rglob("*.py")}


def imports_of(path: Path, *, late: bool = False) -> Iterator[str]:
    """The modules that importing this one imports; with `late`, also those that its functions import."""
    statements: list[ast.AST] = [_parsed(path)]
    while statements:
        for child in ast.iter_child_nodes(statements.pop()):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                statements.append(ast.Module(child.orelse, []))
            elif isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    yield whole if whole in modules() else child.module
            elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case) and (
                late or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            ):
                statements.append(child)


@functools.cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def graph() -> dict[str, set[str]]:
    """Which module imports which, within the package, at import time."""
    return {
        name: {found for found in imports_of(path) if found in modules()} - {name} for name, path in modules().items()
    }


def room_of(module: str) -> str:
    """The room that a module is in; "" for those beside the rooms."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else ""


def test_no_module_imports_itself_by_a_detour() -> None:
    """A circle means that two modules are one, or that a third is missing."""
    known = graph()
    done: set[str] = set()
    path: list[str] = []

    def walk(module: str) -> None:
        if module in path:
            pytest.fail("a circle: " + " -> ".join([*path[path.index(module) :], module]))
        if module in done:
            return
        path.append(module)
        for other in sorted(known[module]):
            walk(other)
        path.pop()
        done.add(module)

    for module in sorted(known):
        walk(module)


def test_rooms_import_only_what_they_may_know() -> None:
    """`game` knows processes and no HTTP, `api` requests and no processes, and nobody knows the commands."""
    wrong = []
    for module, path in modules().items():
        # A room's command line knows whatever its command needs.
        allowed = None if module.endswith(".cli") else MAY_IMPORT.get(room_of(module))
        for other in imports_of(path, late=True):
            if other not in modules() or room_of(other) == room_of(module):
                continue
            if allowed is not None and room_of(other) not in allowed:
                wrong.append(f"{module} imports {other}")
    assert not wrong, "\n".join(sorted(wrong))


def test_nothing_of_third_parties_is_imported_before_the_game() -> None:
    """PID 1 is the standard library's, and little of that; before the game is executed least of all."""
    code = """if True:
        import sys; before = set(sys.modules)
        import os, agent.init.main
        def shown():
            return " ".join(sorted(set(sys.modules) - before))
        def executed(*_, **__):
            early = shown()
            import agent.init.loop, agent.init.output, agent.init.supervisor
            print(early, shown(), sep="\\n", flush=True)
            os._exit(0)
        os.posix_spawn = executed
        agent.init.main.main(["--", "/bin/true"])
        """
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
        env={"AGENT_SOCKET_PATH": "off", "AGENT_CONTROL_PORT": "0", "AGENT_METRICS_PORT": "0"},
    )
    before_the_game, loaded = (set(line.split()) for line in done.stdout.splitlines())
    foreign = {name for name in loaded if name.partition(".")[0] not in {*sys.stdlib_module_names, "agent"}}
    assert not foreign
    assert not loaded & HEAVY, "imported late, where it is needed"
    assert not before_the_game & SLOW, "imported when the game has been executed"
    own = sorted(name for name in loaded if name.startswith("agent"))
    print(f"{len(before_the_game)} modules before the game: {' '.join(sorted(before_the_game))}")
    print(f"{len(loaded)} modules, {len(own)} of our own: {' '.join(own)}")
    assert not {name for name in own if room_of(name) in {"runtime", "api", "metrics", "edgegap", *COMMANDS}}


# For these the kernel takes a lock of the other process's memory (`cmdline`, `environ`, `maps`, ...), or the one that
# an `exec` holds (`io`, `stack`, ...). Who holds it may wait for a disk, and whoever reads waits too (fs/proc/base.c
# and task_mmu.c). `stat`, `status`, `comm`, `exe`, `fd` and `wchan` take neither.
MAY_HANG = {"auxv", "cmdline", "environ", "io", "map_files", "maps", "mem", "numa_maps", "pagemap", "personality"}
MAY_HANG |= {"smaps", "smaps_rollup", "stack", "syscall"}
# As it is written in the code: `/proc/{pid}/stat`, `{proc}/{parent}/status`, `{base}/comm`.
_OF_A_PROCESS = re.compile(r"(?:/proc/\{\w+\}|\{proc\}/\{\w+\}|\{base\})(?:/task/\{\w+\})?/(\w+)")


def test_pid_1_reads_no_file_of_another_process_that_may_hang() -> None:
    """A game in uninterruptible sleep must not hold up a signal."""
    read = {
        (found[1], f"{module}: {found[0]}")
        for module, path in modules().items()
        if room_of(module) in {"init", "game"}
        for found in _OF_A_PROCESS.finditer(path.read_text())
    }
    assert {"stat", "status", "comm", "exe", "fd", "wchan"} <= {name for name, _ in read}
    wrong = sorted(where for name, where in read if name in MAY_HANG)
    assert not wrong, f"use stat, status or comm: {wrong}"


# What the agent's process imports of others before its first answer, and of the standard library never: each of these
# was measured to cost some ms or MB, and is imported where somebody needs it.
AGENT_NEEDS = {
    *{"aiohttp", "attr", "idna", "multidict", "propcache", "yarl"},
    *{"cython_runtime", "annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"},
}
LATE = {
    "importlib.metadata",
    "zipfile",
    "aiohttp.client",
    "aiohttp.connector",
    "aiohttp.web_app",
    "tarfile",
    "xml",
    "sqlite3",
    "_ssl",
    "_hashlib",
    "http.client",
    "html.entities",
    "idna.core",
    "shutil",
    "sysconfig",
}


def test_the_agent_answers_before_it_imports_what_the_first_answer_does_not_need() -> None:
    """The server of aiohttp is imported without its client, which completes itself when it is wanted."""
    code = (
        "import sys; before = set(sys.modules); import agent.init.main, agent.runtime.app\n"
        "print(*sorted(name for name in set(sys.modules) - before))\n"
        "import agent.compat.agones, agent.compat.multiplay, agent.compat.playfab\n"
        "assert 'aiohttp.client' not in sys.modules\n"
        "import aiohttp; from aiohttp import web, hdrs\n"
        "assert aiohttp.ClientSession and aiohttp.__version__[0].isdigit() and not hasattr(aiohttp, 'nothing')\n"
        "import agent.web; assert web.Response is agent.web.Response"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    loaded = set(done.stdout.split())
    print(f"{len(loaded)} modules: {' '.join(sorted(loaded))}")
    foreign = {name.partition(".")[0] for name in loaded} - {*sys.stdlib_module_names, "agent"}
    assert {name for name in foreign if not name.startswith("_")} <= AGENT_NEEDS
    assert not loaded & LATE


def test_what_is_postponed_is_whole_when_it_is_needed() -> None:
    """TLS, hashes and aiohttp's client in a process that put them off, in the order in which an agent needs them."""
    code = """if True:
        import agent.runtime.app, sys
        import asyncio, hashlib, secrets, socket, ssl, urllib.request, html, ast, attr
        async def serve():
            here, there = socket.socketpair()
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, here)
            transport.close()
        asyncio.run(serve())
        assert not {"_ssl", "_hashlib", "aiohttp.connector"} & set(sys.modules)
        assert "TokenList" not in vars(sys.modules["email._header_value_parser"])
        assert not isinstance(socket.socket(), ssl.SSLSocket)
        from aiohttp.client_exceptions import ClientConnectionResetError
        assert issubclass(ClientConnectionResetError, ConnectionResetError), "the client catches it"
        import aiohttp
        assert issubclass(aiohttp.ClientConnectorCertificateError, ssl.CertificateError)
        assert isinstance(ssl.create_default_context(), aiohttp.client_exceptions.SSLContext)
        from asyncio import sslproto; assert issubclass(sslproto.SSLProtocol, asyncio.BufferedProtocol)
        assert issubclass(ssl.SSLSocket, socket.socket)
        assert hashlib.sha256(b"").hexdigest()[:8] == "e3b0c442" and secrets.compare_digest("a", "a")
        assert html.escape("<") == "&lt;" and urllib.request.getproxies() == {} and ast.parse("1")
        assert aiohttp.web_protocol.html_escape("<") == "&lt;" and aiohttp.helpers.getproxies() == {}
        assert attr.validators.instance_of(int)
        from aiohttp.helpers import parse_content_type
        assert parse_content_type("text/plain; charset=x")[1]["charset"] == "x"
        import yarl; assert yarl.URL("http://b\u00fccher.example").raw_host == "xn--bcher-kva.example"
        assert aiohttp.web_request.SpooledTemporaryFile(9).write(b"x") == 1
        import locale, random, tokenize, zoneinfo
        assert locale.getpreferredencoding() and random.SystemRandom().random() < 1 and tokenize.NAME
        assert "UTC" in zoneinfo.available_timezones() and zoneinfo.ZoneInfo("UTC") and zoneinfo.TZPATH is not None
        from aiohttp._websocket.writer import WebSocketWriter
        assert {WebSocketWriter(None, None).get_random_bits() >> 31 for _ in range(200)} == {0, 1}
        """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent, env={})


def test_pydantic_makes_of_a_description_without_fields_what_it_makes_of_its_own() -> None:
    """The agent's process gives it a `TypedDict` that knows no fields; the schemas of all models are compared."""
    code = """if True:
        from agent.api import models
        from pydantic import BaseModel, TypeAdapter
        from pydantic_core import core_schema
        from typing_extensions import TypedDict
        class Fields(TypedDict, total=False):
            name: int
        assert Fields.__annotations__, "only the one module has another"
        assert TypeAdapter(Fields).validate_python({"name": "1"}) == {"name": 1}
        print(core_schema.IntSchema is core_schema.StringSchema)
        for name, model in sorted(vars(models).items()):
            if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == models.__name__:
                model.model_rebuild()
                print(name, model.__pydantic_core_schema__, model.model_json_schema())
        """
    beginnings = ("", "import agent.runtime\n")
    own, changed = (
        subprocess.run(
            [sys.executable, "-c", beginning + textwrap.dedent(code)],
            capture_output=True, text=True, check=True, cwd=ROOT.parent, env={"PYTHONHASHSEED": "0"},
        ).stdout.partition("\n")
        for beginning in beginnings
    )  # fmt: skip
    assert (own[0], changed[0]) == ("False", "True")
    addresses = re.compile("(?:0x|:)[0-9a-f]{8,}")
    assert addresses.sub("", own[2]) == addresses.sub("", changed[2])


def test_a_scrape_needs_no_http_server_or_tls_of_the_client_library() -> None:
    """Which has its formats in one file with its servers; what it imports for those is a third of a first scrape."""
    code = """if True:
        import agent.runtime.app, sys
        import agent.metrics.collector
        from agent.metrics.exposition import Formats
        write, kind = Formats().negotiate("application/openmetrics-text;version=1.0.0")
        assert write([]) == b"# EOF\\n" and kind.startswith("application/openmetrics-text"), (write([]), kind)
        loaded = {"_ssl", "shutil", "http.server", "socketserver", "urllib.error", "urllib.response", "wsgiref"}
        assert not loaded & set(sys.modules), loaded & set(sys.modules)
        import http.server, ssl, urllib.request
        assert issubclass(http.server.HTTPServer, http.server.socketserver.TCPServer) and ssl.create_default_context()
        import prometheus_client
        assert prometheus_client.CollectorRegistry and prometheus_client.metrics.Counter
        """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent, env={})
