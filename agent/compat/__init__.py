"""Other hosts' local agents, as far as a game built for them needs one: Agones, Multiplay, PlayFab."""
