"""What PID 1 is: signals, sockets, spawn, capture, stop. Standard library only."""
