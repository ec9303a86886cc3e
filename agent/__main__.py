"""Argument vector to exit code."""


def main() -> int:
    """Placeholder until the commands exist."""
    return 0
