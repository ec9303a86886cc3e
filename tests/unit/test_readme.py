"""The README's tables are what the code says."""

from __future__ import annotations

import pytest

from docs.tables import README, updated


@pytest.mark.timeout(120)
def test_the_tables_are_up_to_date() -> None:
    """A setting, operation or metric that changed is in the README in the same commit: `make docs` writes it."""
    text = README.read_text()
    assert updated(text) == text
