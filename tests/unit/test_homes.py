"""Where commands look for an agent that has no settings, and what becoming another user needs."""

import os
from pathlib import Path

import pytest

from agent.config import homes
from agent.game.user import missing_capabilities
from agent.init import sockets


def test_root_finds_the_agent_of_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only in a directory that belongs to the user of its name: anybody can make one there."""
    monkeypatch.setattr(homes, "_PARENT", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    for name in ("1000", "1001", "x", "1002"):
        (tmp_path / f"arbitrium-agent-{name}").mkdir()
    (tmp_path / "arbitrium-agent-1003").symlink_to(tmp_path / "arbitrium-agent-1000")
    owners = {"1000": 1000, "1001": 0, "1002": 1002}
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        found = list(real(path))
        found[4] = owners.get(path.rpartition("-")[2], 0)
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", lstat)
    assert homes.homes() == [f"{tmp_path}/arbitrium-agent-{uid}" for uid in (0, 1000, 1002)]


def test_nobody_else_looks_at_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Their own directory is the only one."""
    monkeypatch.setattr(homes, "_PARENT", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    (tmp_path / "arbitrium-agent-1001").mkdir()
    assert homes.homes() == [f"{tmp_path}/arbitrium-agent-1000"]


def test_a_capability_that_is_missing_is_named(tmp_path: Path) -> None:
    """By its name; where nothing can be seen, nothing is said."""
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t00000000a80425fb\n")
    assert missing_capabilities(str(status)) == []
    status.write_text("Name:\tx\nCapEff:\t00000000a804257b\n")
    assert missing_capabilities(str(status)) == ["CAP_SETUID"]
    assert missing_capabilities(str(tmp_path / "none")) == []


@pytest.mark.parametrize("beforehand", ["another user's", "a link"])
def test_a_directory_that_somebody_else_made_gets_no_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beforehand: str
) -> None:
    """Its owner could put a socket there and answer for the agent: the next place is taken."""
    first, second = tmp_path / "first", tmp_path / "second"
    if beforehand == "a link":
        (tmp_path / "elsewhere").mkdir()
        first.symlink_to(tmp_path / "elsewhere")
    else:
        first.mkdir(mode=0o777)
        if os.getuid() != 0:
            pytest.skip("only root can give a directory to somebody else")
        os.chown(first, 54321, 54321)
    monkeypatch.setattr(sockets, "default_socket_paths", lambda: [f"{first}/agent.sock", f"{second}/agent.sock"])
    bound, why = sockets.listen_unix(None)
    assert bound is not None, why
    assert bound.path == f"{second}/agent.sock"
    bound.close()
