"""What an operator's commands read from variables and from the directory of secrets."""

from pathlib import Path

import pytest

from agent.edgegap import settings
from agent.edgegap.client import BASE_URL
from agent.edgegap.errors import MissingTokenError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that runs the tests is read."""
    for name in settings.PlatformSettings.model_fields:
        monkeypatch.delenv(f"EDGEGAP_{name.upper()}", raising=False)


def test_a_variable_wins_over_a_file_and_an_empty_one_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engines mount a secret as a file, with or without a line break at its end."""
    (tmp_path / "edgegap_api_token").write_text("from a file\n")
    (tmp_path / "edgegap_storage_secret").write_text("hush")
    monkeypatch.setenv("EDGEGAP_API_TOKEN", "")
    monkeypatch.setenv("EDGEGAP_STORAGE_SECRET", "from a variable")
    found = settings.load(str(tmp_path))
    assert found.api_token.get_secret_value() == "from a file"
    assert found.storage_secret.get_secret_value() == "from a variable"
    assert found.registry_token is None
    assert found.base_url == BASE_URL
    assert "file" not in repr(found)


def test_without_any_token_it_is_said_where_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no directory of secrets on most machines."""
    monkeypatch.setattr(settings, "SECRETS", str(tmp_path / "none"))
    with pytest.raises(MissingTokenError, match="EDGEGAP_API_TOKEN is not set"):
        settings.client()
