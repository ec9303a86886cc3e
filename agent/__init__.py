"""arbitrium-agent: the init for game server containers on Edgegap."""

__version__ = "0.1.0"
