"""Other hosts' local agents, as far as a game built for them needs one: Agones, Multiplay, PlayFab.

`prepare` is the init's part, before the game is spawned; `hosts` is the agent's. Nothing is imported here, for
`prepare` must stay light.
"""
