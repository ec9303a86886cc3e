"""A game made for another host: `made_for.py agones|multiplay|playfab BEHAVIOUR`, with the example's own clients.

Behaviours: `lives` plays until its host says that it is over, `ends` ends by itself as such games do, `crashes` exits
3, `hangs` says nothing more. SIGTERM is held against it: it exits 9.
"""

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from examples.udp_game.agones_link import AgonesLink
from examples.udp_game.multiplay_link import MultiplayLink
from examples.udp_game.playfab_link import PlayFabLink

host, behaviour = sys.argv[1:3]
signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
link = {"agones": AgonesLink, "multiplay": MultiplayLink, "playfab": PlayFabLink}[host]()
link.capacity(4)
link.ready()
link.heartbeat()
link.joined("ada")
print("playing", flush=True)
while isinstance(link, PlayFabLink) and link.state != "Active":
    time.sleep(0.05)
if behaviour == "hangs":
    if host == "playfab":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(60)
until = time.monotonic() + (0.7 if behaviour in ("ends", "crashes") else 60)
while time.monotonic() < until and not link.told_to_end:
    time.sleep(0.05)
    if behaviour == "lives":
        link.heartbeat()
if behaviour == "crashes":
    os._exit(3)
if link.told_to_end:
    print(f"told: {link.words}", flush=True)
else:
    link.stop("match over")
    while link.stops_the_game and not link.told_to_end:
        time.sleep(0.05)
link.close()
