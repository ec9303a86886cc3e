"""`config --check` finds at build time what `run` would refuse, and refuses nothing else."""

# ruff: noqa: E501 - a case a row
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

from agent.config import cli
from agent.errors import SettingsError


def check(monkeypatch: pytest.MonkeyPatch, **environ: str) -> str:
    """What is wrong with some settings; "" for nothing."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    try:
        assert cli.run(parser.parse_args(["--check"])) == 0
    except SettingsError as wrong:
        return str(wrong)
    return ""


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"AGENT_CONTROL_PORT": "9000", "AGENT_METRICS_PORT": "9000"}, "AGENT_METRICS_PORT: got '9000' and takes a port of"),
        ({"AGENT_CONTROL_PORT": "9464"}, "9464 is that of AGENT_CONTROL_PORT"),
        ({"AGENT_WORKDIR": "{tmp}/none"}, "takes a directory of this image"),
        ({"AGENT_SPOOL_DIR": "{tmp}/file/spool"}, "file is no directory"),
        ({"AGENT_SOCKET_PATH": "{tmp}/file/agent.sock"}, "file is no directory"),
        ({"AGENT_TEMPLATE": "{tmp}/none:{tmp}/out"}, "none: no such file or directory"),
        ({"AGENT_TEMPLATE": "{tmp}/file:{tmp}/none/out"}, "no such directory"),
        ({"AGENT_PLAYERS_FROM": "query:nonsense://127.0.0.1:1"}, "AGENT_PLAYERS_FROM"),
        ({"AGENT_STOP": "rcon:stop"}, "AGENT_RCON_ADDRESS"),
        ({"AGENT_GAME_USER": "nobody-of-this-name"}, "AGENT_GAME_USER"),
        ({"AGENT_METRICS_TLS_CERT": "{tmp}/file"}, "AGENT_METRICS_TLS_CERT"),
        ({"AGENT_METRICS_TLS_CERT": "{tmp}/none"}, "none: no such file or directory"),
        ({"AGENT_METRICS_TLS_KEY": "{tmp}/file"}, "AGENT_METRICS_TLS_CERT names the certificate"),
        ({"AGENT_GRACE_SECONSD": "5"}, "AGENT_GRACE_SECONDS"),
    ],
)  # fmt: skip
def test_what_run_refuses_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environ: dict[str, str], says: str
) -> None:
    """Each with its variable, what it got and what it takes."""
    (tmp_path / "file").write_text("x")
    found = check(monkeypatch, **{name: value.format(tmp=tmp_path) for name, value in environ.items()})
    assert says in found
    assert "1 is wrong" in found


def test_all_that_is_wrong_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As `run` does: settings that exclude each other do not hide a directory that is not there."""
    found = check(
        monkeypatch, AGENT_CONTROL_PORT="9000", AGENT_METRICS_PORT="9000", AGENT_WORKDIR=str(tmp_path / "none"),
        AGENT_TEMPLATE=f"{tmp_path}/none:{tmp_path}/out",
    )  # fmt: skip
    assert "3 are wrong" in found


def test_what_run_takes_is_no_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Directories that the agent makes, any free port twice, and variables that the platform injects later."""
    (tmp_path / "template").write_text("port=${ARBITRIUM_PORT_GAME_INTERNAL} name=${SERVER_NAME}")
    environ = {
        "AGENT_CONTROL_PORT": "0",
        "AGENT_METRICS_PORT": "0",
        "AGENT_WORKDIR": str(tmp_path),
        "AGENT_SPOOL_DIR": str(tmp_path / "a/b"),
        "AGENT_SOCKET_PATH": "off",
        "AGENT_TEMPLATE": f"{tmp_path}/template:{tmp_path}/out",
        "AGENT_PLAYERS_FROM": "query:a2s://127.0.0.1:27015",
    }
    assert check(monkeypatch, **environ) == ""
    said = capsys.readouterr().err
    assert "SERVER_NAME" in said
    assert "ARBITRIUM_PORT" not in said
    assert not (tmp_path / "out").exists()


def test_a_template_that_is_no_file_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Opening a FIFO waits until somebody writes."""
    os.mkfifo(tmp_path / "fifo")
    found = check(monkeypatch, AGENT_TEMPLATE=f"{tmp_path}/fifo:{tmp_path}/out")
    assert "fifo: is not a regular file" in found
    assert "1 is wrong" in found


def test_a_query_without_its_library_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime directory of an image has it only where it was built so."""
    monkeypatch.setitem(sys.modules, "opengsq", None)
    monkeypatch.setitem(sys.modules, "opengsq.protocols", None)
    found = check(monkeypatch, AGENT_PLAYERS_FROM="query:a2s://127.0.0.1:27015")
    assert "AGENT_PLAYERS_FROM" in found
    assert "opengsq" in found
