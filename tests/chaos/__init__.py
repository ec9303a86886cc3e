"""Random lives, and the table of what was measured: `make chaos`."""
