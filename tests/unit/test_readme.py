"""The README's tables are what the code says."""

from __future__ import annotations

import re

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


@pytest.mark.timeout(120)
def test_each_metric_has_a_word_on_what_to_do_when_it_moves() -> None:
    """`docs/metrics.md` names every metric that there is, and none that there is not."""
    text = (README.parent / "docs" / "metrics.md").read_text()
    there = {row[0].strip("`") for row in rows()}
    named = set(re.findall(r"`(arbitrium_[a-z_]+)`", text)) - {"arbitrium_", "arbitrium_agent_"}
    assert named == there
