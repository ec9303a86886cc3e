"""A small but real UDP game server: players run across a field and collect coins until one has enough.

Standard library only (Python 3.10 or later), so that it runs wherever Python does: `python3 -m udp_game` serves,
`python3 -m udp_game.bot` plays. It shows what a game says to arbitrium-agent and hears from it (`agent_link.py`), and
is the game of the demo and of the demo image.

A datagram is one JSON object. What a client sends:

    {"type": "join", "name": "ada"}         to play; sent again until the answer comes
    {"type": "move", "dx": 1, "dy": 0}      where to go; also says that the player is still there
    {"type": "leave"}
    {"type": "watch"}                       to be shown the field without playing

What the server sends:

    {"type": "welcome", "id": 1, "name": "ada", "width": 40, "height": 10, "goal": 10}
    {"type": "refused", "why": "the match is over"}
    {"type": "field", "tick": 7, "players": [[1, "ada", 3, 4, 0]], "coins": [[9, 9]]}     ten times a second
    {"type": "over", "reason": "goal", "winner": "ada", "scores": {"ada": 10}}
"""
