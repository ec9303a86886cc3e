"""A game that computes all the time."""

import os

print(f"ready {os.environ['AGENT_METRICS_URL']}", flush=True)
while True:
    pass
