"""Black-box tests: the installed command, real processes, the platform faked at the edge or emulated."""
