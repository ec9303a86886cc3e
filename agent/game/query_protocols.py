"""The query protocols that players can be counted by, and why others cannot. Pure names, light enough for PID 1.

opengsq (https://github.com/opengsq/opengsq-python) queries all but `sqp` and `teeworlds`. Each protocol of opengsq is
in one of the two tables here: reading its source showed whether it can count players, and a test verifies the tables. A
protocol in neither table is refused, because a wrong count could stop a server while people play on it.
"""

from __future__ import annotations

# Name in AGENT_PLAYERS_FROM: the class of opengsq, its method, and what parses the answer (see player_query).
COUNTED = {
    "a2s": ("Source", "get_info", "a2s"),
    "ase": ("ASE", "get_status", "fields"),
    "avp2": ("AVP2", "get_status", "gamespy"),
    "battlefield": ("Battlefield", "get_info", "fields"),
    "battlefield2": ("Battlefield2", "get_status", "gamespy"),
    # opengsq queries these four from the port of the server itself; they answer like any Quake 3 server.
    "cod1": ("Quake3", "get_info", "quake3"),
    "cod4": ("Quake3", "get_info", "quake3"),
    "cod5": ("Quake3", "get_info", "quake3"),
    "jediknight": ("Quake3", "get_info", "quake3"),
    "fivem": ("FiveM", "get_dynamic", "quake3"),
    "gamespy1": ("GameSpy1", "get_status", "gamespy"),
    "gamespy2": ("GameSpy2", "get_status", "gamespy"),
    "gamespy3": ("GameSpy3", "get_status", "gamespy"),
    "gamespy4": ("GameSpy4", "get_status", "gamespy"),
    "halo1": ("Halo1", "get_status", "gamespy"),
    "killingfloor": ("KillingFloor", "get_details", "fields"),
    "minecraft": ("Minecraft", "get_status", "minecraft"),
    "quake1": ("Quake1", "get_status", "list"),
    "quake2": ("Quake2", "get_status", "list"),
    "quake3": ("Quake3", "get_info", "quake3"),
    "raknet": ("RakNet", "get_status", "fields"),
    "samp": ("Samp", "get_status", "fields"),
    "source": ("Source", "get_info", "a2s"),
    "sqp": ("", "", "sqp"),
    "ssc": ("SSC", "get_status", "gamespy"),
    "teeworlds": ("", "", "teeworlds"),
    "trackmanianations": ("TrackmaniaNations", "get_info", "fields"),
    "trackmaniasunrise": ("TrackmaniaSunrise", "get_info", "fields"),
    "unreal2": ("Unreal2", "get_details", "fields"),
    "vcmp": ("Vcmp", "get_status", "fields"),
    "warfork": ("Warfork", "get_status", "list"),
    "won": ("WON", "get_info", "a2s"),
}

_LOBBY = "is the lobby of a player's own game, which connects back to a port that has to be opened for it"
_BROADCAST = "is not asked, but broadcast, and does not reach the agent"
_SAME_PORT = "answers only to the port that the server itself has taken"
REFUSED = {
    "aoe1": _LOBBY,
    "aoe2": _LOBBY,
    "directplay": _LOBBY,
    "strongholdce": _LOBBY,
    "strongholdcrusader": _LOBBY,
    "doom3": "does not tell a list of players that cannot be read from an empty one",
    "eldewrito": _SAME_PORT,
    "flatout2": _SAME_PORT,
    "toxikk": _SAME_PORT,
    "udk": _SAME_PORT,
    "ut3": _SAME_PORT,
    "warcraft3": _SAME_PORT,
    "renegadex": _BROADCAST,
    "w40kdow": _BROADCAST,
    "eos": "asks Epic's matchmaking, with credentials of the game's developer",
    "kaillera": "says only that the server is there",
    "minetest": "has no query: a client has to join",
    "luanti": "has no query: a client has to join",
    "nadeo": "needs a login of the server's administrator",
    "palworld": "needs the password of the server's administrator",
    "satisfactory": "needs a token of the server's administrator",
    "scum": "asks the game's master server in the internet, by the public address",
    "supcom": "reads an answer without the number of players as one without players",
    "teamspeak3": "needs a second port and counts who listens, not who plays",
}


def check(protocol: str) -> str:
    """The name of a protocol that players can be counted by.

    Raises:
        ValueError: it cannot count; the message says why, and which protocols can.
    """
    name = protocol.lower()
    if name in COUNTED:
        return name
    why = REFUSED.get(name, "is no query protocol that the agent knows")
    raise ValueError(
        f"cannot count players by {name}, which {why}; let the game report them over the API, count connections with "
        f"tcp:PORT, or use a protocol that tells them: {', '.join(COUNTED)}"
    )
