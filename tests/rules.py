"""The rules of a lifecycle, with the settings' defaults."""

from typing import Any

from agent.config.table import TABLE
from agent.lifecycle.states import Rules


def default_rules(**changes: Any) -> Rules:
    """Rules as the agent makes them where nothing is set, without a store and outside the platform, but for changes."""
    defaults = {
        "grace": TABLE["grace_seconds"].default,
        "drain": TABLE["drain_seconds"].default,
        "ship": 0.0,
        "hold": TABLE["hold_seconds"].default,
        "on_exit": TABLE["on_exit"].default,
        "on_crash": TABLE["on_crash"].default,
        "can_self_stop": False,
        "restart_limit": TABLE["restart_limit"].default,
        "restart_backoff": TABLE["restart_backoff"].default,
    }
    return Rules(**{**defaults, **changes})
