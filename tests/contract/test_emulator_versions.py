"""The versions file, the state file, and the command that reads them."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import cli
from agent.emulator.cli import Reporter, add_arguments, settings_of
from agent.emulator.cli import run as run_emulator
from agent.emulator.deployment import Status
from agent.emulator.toml_lines import line_of, value_lines
from agent.emulator.versions_file import examine, load
from tests.contract.backend import backend, quick

GOOD = f"""
[[storages]]
name = "logs"
access_key_id = "AKID"
secret_access_key = "not-to-be-told"
endpoint = "file:///tmp/logs"
bucket = "b"

[[applications]]
name = "game"

[[applications.versions]]
name = "1"
req_cpu = 512
req_memory = 1024
command = '{sys.executable}'
arguments = "-c 'import time; time.sleep(600)'"
endpoint_storage = "logs"
ports = [{{ port = 7777, protocol = "UDP", name = "gameport" }}]
envs = [{{ key = "MODE", value = "fast", is_hidden = true }}]
"""

MISTAKES = """
[[applications]]
name = "game"

[[applications.versions]]
name = "1"
req_cpu = "512"
req_memori = 512
req_memory = 512
ports = [
  { port = 7777, protocol = "UDP", name = "gameport" },
  { port = 70000, protocol = "SCTP" },  # two mistakes on line 12
]

  [[applications.versions.envs]]
  key = "A"
  value = 1

[[applications.versions]]
name = "1"
req_cpu = 100
req_memory = 201

[[storages]]
name = "logs"
"""


class Ended(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def emulate(*arguments: str) -> Ended:
    """`arbitrium-agent emulate`, in this process: it takes a second to import."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["emulate", *arguments])
    return Ended(code, out.getvalue(), err.getvalue())


def check(path: Path) -> Ended:
    """`arbitrium-agent emulate --check`."""
    return emulate("--check", str(path))


@pytest.mark.slow
def test_a_good_versions_file_is_told_to_be_good(tmp_path: Path) -> None:
    """Exit 0, and the applications with their versions."""
    path = tmp_path / "versions.toml"
    path.write_text(GOOD)
    result = check(path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "game: 1\n", "")


def test_every_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    """All at once, in order, in the form that editors follow; exit 1."""
    path = tmp_path / "versions.toml"
    path.write_text(MISTAKES)
    result = check(path)
    assert result.returncode == 1
    found = [line.removeprefix(f"{path}:") for line in result.stdout.splitlines()]
    wanted = [
        r"7: applications\[0\]\.versions\[0\]\.req_cpu: .*integer \(got '512'\)",
        r"8: applications\[0\]\.versions\[0\]\.req_memori: there is no such setting; did you mean req_memory\?",
        r"12: applications\[0\]\.versions\[0\]\.ports\[1\]\.port: .*65535 \(got 70000\)",
        r"12: applications\[0\]\.versions\[0\]\.ports\[1\]\.protocol: .*SCTP",
        r"17: applications\[0\]\.versions\[0\]\.envs\[0\]\.value: .*string",
        r"20: applications\[0\]\.versions\[1\]\.name: there is another 1; choose another name",
        r"22: applications\[0\]\.versions\[1\]\.req_memory: is at most twice req_cpu, here 200 MB \(got 201\)",
        r"24: storages\[0\]\.access_key_id: Field required",
        r"24: storages\[0\]\.bucket: Field required",
        r"24: storages\[0\]\.endpoint: Field required",
        r"24: storages\[0\]\.secret_access_key: Field required",
    ]
    assert len(found) == len(wanted), found
    for line, pattern in zip(found, wanted, strict=True):
        assert re.match(pattern, line), (line, pattern)


async def test_what_the_file_declares_is_shown_as_what_the_api_created(tmp_path: Path) -> None:
    """Its application has no versions in it, and so none of their hidden variables."""
    path = tmp_path / "versions.toml"
    path.write_text(GOOD)
    async with backend(quick(versions_file=str(path))) as caller:
        created = await caller.call("POST", "/v1/app", {"name": "other", "is_active": True, "image": ""})
        listed = (await caller.get("/v1/apps"))["applications"]
        assert [set(each) for each in listed] == [set(created.body)] * 2
        assert "fast" not in json.dumps([listed, await caller.get("/v1/app/game/versions")])


def test_two_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    """The second is pointed at."""
    path = tmp_path / "versions.toml"
    path.write_text(GOOD.replace("[[applications]]", '[[applications]]\nname = "game"\n[[applications]]'))
    findings, parsed = examine(str(path))
    assert parsed is None
    assert [(finding.line, "there is another game" in finding.message) for finding in findings] == [(12, True)]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (b"[[applications]]\nname = 'x\n", 2, "cannot read this as TOML"),
        (b"\xff", 1, "it is not UTF-8"),
        (b"applications = 3\n", 1, "applications: Input should be a valid list"),
        (b"\nport = 1\n", 2, "port: there is no such setting"),
    ],
)
def test_what_is_no_versions_file_is_said_to_be_none(tmp_path: Path, text: bytes, line: int, why: str) -> None:
    """With the line where it stops making sense."""
    path = tmp_path / "versions.toml"
    path.write_bytes(text)
    findings, _ = examine(str(path))
    assert [(finding.line, why in finding.message) for finding in findings if finding.error] == [(line, True)]


def test_what_will_hardly_be_meant_is_said_and_allowed(tmp_path: Path) -> None:
    """No ports, no command, a storage of another file, a program that is not there."""
    path = tmp_path / "versions.toml"
    version = '[[applications.versions]]\nname = "{}"\nreq_cpu = 100\nreq_memory = 100\n'
    path.write_text(
        '[[applications]]\nname = "game"\n'
        + version.format("1")
        + version.format("2")
        + 'command = "no-such-program"\nendpoint_storage = "elsewhere"\nports = [{ port = 1, protocol = "UDP" }]\n'
    )
    result = check(path)
    assert result.returncode == 0
    said = result.stdout.replace(f"{path}:", "").splitlines()
    assert said == [
        "3: perhaps: version 1 has neither a command nor a docker_image; it cannot run",
        "3: perhaps: version 1 has no ports; players cannot reach it",
        "11: perhaps: command of 2: no-such-program is not on this machine's PATH",
        "12: perhaps: endpoint_storage of 2: this file has no storage elsewhere",
        "13: perhaps: port 1 of 2 has no name; it goes by its number",
        "game: 1, 2",
    ]


@pytest.mark.slow
def test_a_check_needs_a_file() -> None:
    """Exit 2 without one, 1 for one that is not there; the secret of one is not repeated."""
    command = [sys.executable, "-m", "agent", "emulate", "--check"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 2
    result = check(Path("/nowhere/versions.toml"))
    assert (result.returncode, "cannot read the file" in result.stdout) == (1, True)


def test_a_secret_is_not_repeated(tmp_path: Path) -> None:
    """Though it is of the wrong type."""
    path = tmp_path / "versions.toml"
    path.write_text(GOOD.replace('"not-to-be-told"', "1234567890"))
    findings, _ = examine(str(path))
    assert len(findings) == 1
    assert "1234567890" not in findings[0].message


def test_a_wrong_versions_file_keeps_the_emulator_from_starting(tmp_path: Path) -> None:
    """Exit 1 with every mistake, and nothing listens."""
    path = tmp_path / "versions.toml"
    path.write_text(MISTAKES)
    result = emulate(str(path), "--port", "0")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("cannot use the versions file:\n")
    assert result.stderr.count(str(path)) == 11


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """Exit 1 with one sentence, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = emulate("--port", port)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert result.stderr.endswith("; choose another with --port\n")


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
def test_a_host_that_is_not_here_is_said(host: str) -> None:
    """Another port would not help: an address of another machine (RFC 5737), and a name that cannot be one."""
    result = emulate("--host", host, "--port", "0")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"cannot listen on {host} port 0: ")
    assert result.stderr.endswith("; choose an address of this machine with --host\n")


def test_a_tls_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """By its own option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = emulate("--port", "0", "--tls", port, "--tls-directory", str(tmp_path / "tls"))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert result.stderr.endswith("; choose another with --tls\n")


class ReaderGone(io.StringIO):
    """A pipe that is closed after its first line, as by `emulate | head -1`."""

    def write(self, text: str) -> int:
        """Takes the first line."""
        if "listening" in self.getvalue():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


def test_a_closed_pipe_is_not_taken_for_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    """`agent.cli` ends quietly at it, as for every command; the emulator has been closed by then."""
    with contextlib.redirect_stdout(ReaderGone()), pytest.raises(BrokenPipeError):
        run_emulator(parsed("--port", "0"))
    assert capsys.readouterr().err == ""


def test_a_pipe_that_is_closed_later_ends_the_emulator() -> None:
    """A state that nobody reads is not an error of the deployment that it is told of."""
    deployment = SimpleNamespace(
        id="1", status=Status.DEPLOYING, restart_count=0, request=SimpleNamespace(application="game", version="1")
    )
    ended: list[bool] = []
    gone = ReaderGone("listening")
    with contextlib.redirect_stdout(gone):
        Reporter(lambda: ended.append(True)).changed(cast("Any", deployment))
    assert ended == [True]


async def test_what_a_versions_file_names_can_be_deployed(tmp_path: Path) -> None:
    """Its applications, versions and storages are there from the start, hidden variables hidden."""
    path = tmp_path / "versions.toml"
    path.write_text(GOOD)
    async with backend(quick(versions_file=str(path))) as caller:
        version = (await caller.get("/v1/app/game/versions"))["versions"][0]
        assert (version["name"], version["envs"], version["ports"][0]["port"]) == ("1", [], 7777)
        assert (await caller.get("/v1/storage/endpoints"))["endpoints"][0]["name"] == "logs"
        await caller.until(await caller.deploy("1"), "READY")


async def test_a_state_file_outlives_the_emulator(tmp_path: Path) -> None:
    """Applications, versions and storages are there again, secrets included; only its owner can read it."""
    state, versions = tmp_path / "state.json", tmp_path / "versions.toml"
    versions.write_text(GOOD)
    async with backend(quick(state_file=str(state), versions_file=str(versions))) as caller:
        name = await caller.version("other", envs=[{"key": "A", "value": "hidden", "is_hidden": True}])
    assert state.stat().st_mode & 0o777 == 0o600
    async with backend(quick(state_file=str(state))) as caller:
        assert [each["name"] for each in (await caller.get("/v1/apps"))["applications"]] == ["game", "other"]
        assert caller.emulator.platform.catalogue.storages["logs"].body.secret_access_key == "not-to-be-told"
        body = caller.emulator.platform.catalogue.applications["other"].versions[name].body
        assert [(env.key, env.value, env.is_hidden) for env in body.envs] == [("A", "hidden", True)]
        assert (await caller.call("POST", "/v1/app", {"name": "game", "is_active": True, "image": ""})).status == 409
        await caller.until(await caller.deploy("1"), "READY")
    versions.write_text(GOOD.replace("req_cpu = 512", "req_cpu = 513"))
    async with backend(quick(state_file=str(state), versions_file=str(versions))) as caller:
        assert (await caller.get("/v1/app/game/versions"))["versions"][0]["req_cpu"] == 513


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'{"applications": [{}]}'])
async def test_a_broken_state_file_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    """It is said, and left as it is."""
    state = tmp_path / "state.json"
    state.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read the state file"):
        async with backend(quick(state_file=str(state))):
            pass
    assert state.read_bytes() == content


def parsed(*arguments: str) -> argparse.Namespace:
    """What the command makes of its arguments."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("options", "domain"),
    [
        ((), "pr.edgegap.net"),
        (("--dns", "address"), ""),
        (("--dns", "nip", "--public-ip", "10.0.0.7"), "10.0.0.7.nip.io"),
        (("--dns", "nip", "--domain", "localhost"), "localhost"),
    ],
)
def test_what_names_of_deployments_end_in(options: tuple[str, ...], domain: str) -> None:
    """nip.io answers with the address in the name; whether it does is not for a test without the internet."""
    assert settings_of(parsed(*options)).domain == domain


def test_the_options_become_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays are stretched, limits can be switched off, the token loses its prefix."""
    monkeypatch.setenv("EDGEGAP_API_TOKEN", "token from-the-environment")
    settings = settings_of(parsed("--delays", "0", "--no-rate-limits", "--grace", "1.5", "--host", "0.0.0.0"))
    assert settings.token == "from-the-environment"
    assert (settings.delays.seeking, settings.rate_limits, settings.grace_seconds) == (0, None, 1.5)
    assert (settings.host, settings.public_ip) == ("0.0.0.0", "127.0.0.1")
    assert settings_of(parsed("--token", "token of-the-option")).token == "of-the-option"
    monkeypatch.delenv("EDGEGAP_API_TOKEN")
    assert settings_of(parsed()).token != settings_of(parsed()).token
    assert settings.token not in repr(settings)


KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
SCALARS = st.one_of(
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text("ab \"'\\#[]{},=\n", max_size=12),
)


def toml(value: Any) -> str:
    """A value as TOML; a text as JSON has it is one of TOML too."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[ # a comment, with ]\n" + "".join(f"  {toml(each)},\n" for each in value) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


@given(
    st.dictionaries(
        KEYS,
        st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)),
        max_size=5,
    )
)
@pytest.mark.slow
def test_values_are_found_on_their_lines(document: dict[str, Any]) -> None:
    """Whatever the document, each key's line is the one it stands on, and no value is lost."""
    text = ""
    wanted = {}
    for key, value in document.items():
        wanted[key] = text.count("\n") + 2
        text += f"\n{key} = {toml(value)}  # the end\n"
    assert tomllib.loads(text) == document
    lines = value_lines(text)
    assert {key: lines[key,] for key in document} == wanted

    def paths(value: Any, path: tuple[Any, ...]) -> None:
        assert line_of(lines, path) == lines.get(path, 1)
        members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, member in members:
            assert (*path, name) in lines
            paths(member, (*path, name))

    paths(document, ())


def test_tables_and_texts_of_every_kind_are_walked() -> None:
    """Dotted and quoted keys, arrays of tables, and the four kinds of text."""
    text = '''
a.b."c d" = 1
[x]
y = """one
"two" \\""" three"""
z = \'\'\'a'b''c
\'\'\'
[[x.list]]
n = 1979-05-27
[[x.list]]
n = 'it is # no comment'
[x.list.inner]
m = true
'''
    tomllib.loads(text)
    lines = value_lines(text)
    assert lines["a", "b", "c d"] == 2
    assert lines["x", "y"] == 4
    assert lines["x", "z"] == 6
    assert [lines["x", "list", 0, "n"], lines["x", "list", 1, "n"]] == [9, 11]
    assert lines["x", "list", 1, "inner", "m"] == 13


def test_a_versions_file_without_mistakes_is_loaded(tmp_path: Path) -> None:
    """And one with mistakes raises all of them."""
    path = tmp_path / "versions.toml"
    path.write_text(GOOD)
    assert load(str(path)).applications[0].versions[0].req_cpu == 512
    path.write_text(MISTAKES)
    with pytest.raises(ValueError, match="cannot use the versions file") as caught:
        load(str(path))
    assert str(caught.value).count("\n") == 11
