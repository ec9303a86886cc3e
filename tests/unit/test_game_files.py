"""The one way to open what the game named, and to write among its files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.api.files import readable_file
from agent.api.problems import OperationError
from agent.config.templates import TemplateError, write_all
from agent.game.core import find_core
from agent.game.files import NotAFileError, file_rights, make_folder, open_regular, replace
from agent.game.user import User
from agent.logs.bundle import Manifest, find
from tests.other_users import let_others_reach

GAME = User(12345, 12345, [12345], "game", "/")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of the game's, which its user can reach, with a file of root's beside it."""
    let_others_reach(tmp_path)
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "roots").mkdir(mode=0o755)
    (tmp_path / "game").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "game", GAME.uid, GAME.gid)
    return tmp_path


def link_of_the_games(at: Path, to: Path | str) -> Path:
    """A link that the game's user has made."""
    at.symlink_to(to)
    os.chown(at, GAME.uid, GAME.gid, follow_symlinks=False)
    return at


@needs_root
def test_rights_are_given_up_and_come_back(place: Path) -> None:
    """All of them: groups too, and what root may do whatever the mode says."""
    before = os.getgroups()
    with file_rights(GAME):
        assert os.getgroups() == [GAME.gid]
        with pytest.raises(PermissionError):
            (place / "secret").read_text()
    assert os.getgroups() == before
    assert (place / "secret").read_text() == "hunter2"


def _kept(path: Path) -> None:
    manifest = Manifest()
    if not find([str(path)], manifest, GAME):
        raise OSError(manifest)


def _core(path: Path) -> None:
    found = find_core(path.name, str(path.parent), 1, 0)
    assert found is not None
    os.close(open_regular(found, GAME))


def write(source: str, target: str, user: User | None = None) -> None:
    """Writes one file of AGENT_TEMPLATE."""
    for problem in write_all([(source, target)], {}, user):
        raise problem


OPENS: dict[str, Callable[[Path], object]] = {
    "log files": lambda path: os.close(open_regular(str(path), GAME)),
    "uploads": lambda path: readable_file(str(path), GAME),
    "AGENT_KEEP": _kept,
    "templates": lambda path: write(str(path), str(path.parent / "out"), GAME),
    "cores": _core,
}


@needs_root
@pytest.mark.parametrize("opens", OPENS.values(), ids=OPENS)
def test_a_link_leads_to_nothing_that_the_game_may_not_read(place: Path, opens: Callable[[Path], object]) -> None:
    """Whatever opens a file for the game: what is root's alone stays so, also through a directory in between."""
    link = link_of_the_games(place / "game" / "link", place / "secret")
    folder = link_of_the_games(place / "game" / "folder", place)
    own = place / "game" / "own"
    own.write_text("mine")
    opens(own)
    for path in (link, folder / "secret"):
        with pytest.raises((OSError, OperationError, TemplateError)):
            opens(path)


def test_what_is_the_agents_own_is_never_opened(tmp_path: Path) -> None:
    """Also where game and agent are the same user: its environment has the secrets."""
    (tmp_path / "link").symlink_to("/proc/self/environ")
    for path in ("/proc/self/environ", str(tmp_path / "link"), f"/proc/{os.getpid()}/environ", "/dev/null"):
        with pytest.raises(NotAFileError):
            open_regular(path)
    with pytest.raises(TemplateError):
        write(str(tmp_path / "link"), str(tmp_path / "out"))


@needs_root
def test_nothing_is_written_through_a_link_of_the_games(place: Path) -> None:
    """Neither a file nor a directory; a link under the file's own name is replaced, not followed."""
    folder = link_of_the_games(place / "game" / "folder", place / "roots")
    refused = "symbolic link that the game's user could have put there"
    with pytest.raises(OSError, match=refused):
        replace(str(folder / "server.cfg"), b"", 0o644, GAME)
    for made in (folder / "logs", folder):
        with pytest.raises(OSError, match=refused):
            make_folder(str(made), GAME)
    assert not os.listdir(place / "roots")
    assert (place / "roots").stat().st_uid == 0
    link_of_the_games(place / "game" / "server.cfg", place / "secret")
    replace(str(place / "game" / "server.cfg"), b"new", 0o640, GAME)
    status = (place / "game" / "server.cfg").lstat()
    assert (status.st_uid, status.st_mode & 0o777, status.st_size) == (GAME.uid, 0o640, 3)
    assert (place / "secret").read_text() == "hunter2"


@needs_root
def test_links_of_the_image_are_followed(place: Path) -> None:
    """`/game/logs -> /data/logs`, made by the image and out of the game's reach, is how images are built."""
    (place / "roots" / "logs").symlink_to("../game")
    replace(str(place / "roots" / "logs" / "server.cfg"), b"new", 0o600, GAME)
    make_folder(str(place / "roots" / "logs" / "a" / "b"), GAME)
    os.close(open_regular(str(place / "roots" / "logs" / "server.cfg"), GAME))
    assert (place / "game" / "a" / "b").stat().st_uid == GAME.uid
    (place / "roots").chmod(0o777)  # now anybody can have put it there
    with pytest.raises(OSError, match="symbolic link"):
        replace(str(place / "roots" / "logs" / "server.cfg"), b"new", 0o600, GAME)
    (place / "roots").chmod(0o1777)  # with the sticky bit, only its owner
    replace(str(place / "roots" / "logs" / "server.cfg"), b"newer", 0o600, GAME)


@needs_root
def test_a_template_for_the_agent_alone_is_read_where_the_game_can_change_nothing(place: Path) -> None:
    """The operator may keep a template from everybody; what is written from it is the game's."""
    write(str(place / "secret"), str(place / "roots" / "out"), GAME)
    assert (place / "roots" / "out").stat().st_uid == GAME.uid


@needs_root
def test_a_file_from_a_template_replaces_a_link_of_the_games(place: Path) -> None:
    """One that the operator has put where the game cannot change it stays, and what it leads to is replaced."""
    (place / "template").write_text("new")
    link = link_of_the_games(place / "game" / "link", place / "secret")
    write(str(place / "template"), str(link), GAME)
    assert (link.is_symlink(), (place / "secret").read_text()) == (False, "hunter2")
    (place / "roots" / "link").symlink_to(place / "game" / "link")
    write(str(place / "template"), str(place / "roots" / "link"), GAME)
    assert (place / "roots" / "link").is_symlink()


def test_the_same_user_follows_links_as_ever(tmp_path: Path) -> None:
    """Where game and agent are one user, whatever a link leads to the game could reach by itself."""
    (tmp_path / "data").mkdir()
    (tmp_path / "logs").symlink_to(tmp_path / "data")
    replace(str(tmp_path / "logs" / "a"), b"x", 0o600)
    make_folder(str(tmp_path / "logs" / "b" / "c"))
    os.close(open_regular(str(tmp_path / "logs" / "a")))
    assert sorted(os.listdir(tmp_path / "data")) == ["a", "b"]
