"""PID 1: signals, sockets, spawn, capture, stop. Standard library only.

`main` starts it, `supervisor` connects its parts and receives the signals, `stop_sequence` applies the stop methods,
and `ending` writes `exit.json`.
"""
