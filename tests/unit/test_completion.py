"""Completion of the whole command line."""

import subprocess

import pytest

from agent.cli import main


@pytest.mark.parametrize(("shell", "check"), [("bash", ["bash", "-n"]), ("zsh", None), ("fish", None)])
def test_every_command_is_completed(shell: str, check: list[str] | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, commands of commands and options of them are in the script, and bash can read it."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("emulate", "platform", "relays", "authorize", "tls-directory", "run"):
        assert word in script
    if check:
        subprocess.run(check, input=script, text=True, check=True, timeout=30)
