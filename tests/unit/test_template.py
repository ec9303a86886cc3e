"""Templates: `${NAME}` and `$$`, nothing else; all of a file or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.parsers import templates as pairs
from agent.config.templates import TemplateError, expand, write_all


def test_only_one_syntax_is_known() -> None:
    """What looks like a shell's is left alone."""
    text = "port=${PORT} price=$$5 $PORT ${PORT:-1} `id` $(id) ${}"
    assert expand(text, {"PORT": "7777"}, "x") == "port=7777 price=$5 $PORT ${PORT:-1} `id` $(id) ${}"


def test_missing_names_are_all_named_with_their_lines() -> None:
    """Nobody wants to find them one by one."""
    with pytest.raises(TemplateError, match=r"missing in server\.cfg: line 1: A, line 3: B"):
        expand("${A}\n\n${B}", {}, "server.cfg")


@given(st.text(), st.dictionaries(st.sampled_from(["A", "B_2"]), st.text()))
def test_a_text_without_marks_stays_as_it_is(text: str, variables: dict[str, str]) -> None:
    """To the letter."""
    plain = text.replace("$", "")
    assert expand(plain, variables, "x") == plain


def test_a_file_is_written_with_the_mode_of_its_template(tmp_path: Path) -> None:
    """And with bytes that are no UTF-8 as they are."""
    source, target = tmp_path / "server.cfg.tmpl", tmp_path / "server.cfg"
    source.write_bytes(b"name=\xff ${NAME}\r\n")
    source.chmod(0o640)
    target.write_text("old")
    assert write_all([(str(source), str(target))], {"NAME": "ada"}) == []
    assert target.read_bytes() == b"name=\xff ada\r\n"
    assert target.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["server.cfg", "server.cfg.tmpl"]


def test_nothing_is_half_done(tmp_path: Path) -> None:
    """A missing name leaves the old file, and no part of a new one."""
    source, target = tmp_path / "t", tmp_path / "out"
    source.write_text("${MISSING}")
    target.write_text("old")
    good, other = tmp_path / "good", tmp_path / "other"
    good.write_text("new")
    other.write_text("old")

    def fails(source: Path, target: Path) -> str:
        [problem] = write_all([(str(good), str(other)), (str(source), str(target))], {})
        assert ((tmp_path / "out").read_text(), other.read_text()) == ("old", "old"), "all or none"
        assert sorted(os.listdir(tmp_path)) == ["good", "other", "out", "t"]
        return str(problem)

    assert "MISSING" in fails(source, target)
    assert "can be read" in fails(tmp_path / "none", target)
    assert "can be written" in fails(good, tmp_path / "no" / "out")
    assert "it is a directory" in fails(good, tmp_path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """A configuration that lies on a volume, linked into the server's directory, is written there."""
    source, target, link = tmp_path / "t", tmp_path / "volume" / "out", tmp_path / "link"
    source.write_text("new")
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to("volume/out")
    assert write_all([(str(source), str(link))], {}) == []
    assert (link.is_symlink(), target.read_text(), os.listdir(target.parent)) == (True, "new", ["out"])


def test_the_setting() -> None:
    """Pairs of absolute paths."""
    assert pairs("/a.tmpl:/a, /b:/c") == (("/a.tmpl", "/a"), ("/b", "/c"))
    for wrong in ("/a", "a:/b", "/a:b", ":"):
        with pytest.raises(ValueError, match="takes SOURCE:TARGET"):
            pairs(wrong)
