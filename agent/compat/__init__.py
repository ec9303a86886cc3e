"""Emulates the local agents of other hosts for games built for them: Agones, Multiplay, PlayFab.

`prepare` runs in the init before the game is spawned; `hosts` runs in the agent. Nothing is imported here, because
`prepare` must stay light.
"""
