"""The game as processes: spawn, reap, stop, and find out why it ended."""
