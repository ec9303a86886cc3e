"""The README's tables are what the code says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from docs.metric_rows import rows
from docs.tables import README, updated


@pytest.mark.timeout(120)
def test_the_tables_are_up_to_date() -> None:
    """A setting, operation or metric that changed is in the README in the same commit: `make docs` writes it."""
    text = README.read_text()
    assert updated(text) == text


def test_each_line_about_security_names_tests_that_there_are() -> None:
    """`docs/security.md` says which test shows what it promises."""
    named = re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", (README.parent / "docs" / "security.md").read_text())
    assert len(named) > 20
    texts = {file: (README.parent / "tests" / file).read_text() for file, _ in named}
    assert not [f"{file}::{name}" for file, name in named if f"def {name}(" not in texts[file]]


ROOT = README.parent
PATH = re.compile(r"`([\w.]+(?:/[\w.-]+)*\.(?:py|sh|c)|[\w.]+(?:/[\w.-]+)+\.(?:yml|toml|json|md|yaml))`")


def _files() -> list[Path]:
    """Those of the checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / line for line in listed.splitlines()]


def _anchors(page: Path) -> set[str]:
    """The addresses of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_path_and_target_of_the_pages_is_there() -> None:
    """A module that moved and a heading that was renamed are found where they are read of."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    files, wrong = _files(), []
    names = {file.name for file in files}
    for page in files:
        if page.suffix != ".md" or page.name == "CHANGELOG.md":  # which may name what is no more
            continue
        text = page.read_text()
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
                wrong.append(f"{page.name}: link {link}")
        # A path is from here, from a folder that the page is about, or from beside the page; a name is anywhere.
        for path in PATH.findall(text):
            about = (ROOT, ROOT / "agent", ROOT / "tests", page.parent)
            if not any((folder / path).exists() for folder in about if "/" in path) and path not in names:
                wrong.append(f"{page.name}: path {path}")
        wrong += [f"{page.name}: make {name}" for name in re.findall(r"`make ([a-z-]+)", text) if name not in targets]
    assert not wrong


@pytest.mark.timeout(120)
def test_each_metric_has_a_word_on_what_to_do_when_it_moves() -> None:
    """`docs/metrics.md` names every metric that there is, and none that there is not."""
    text = (README.parent / "docs" / "metrics.md").read_text()
    there = {row[0].strip("`") for row in rows()}
    named = set(re.findall(r"`(arbitrium_[a-z_]+)`", text)) - {"arbitrium_", "arbitrium_agent_"}
    assert named == there
