"""Where the agent is in a game image, and the lines that put it there."""

RUNTIME = "/opt/arbitrium-agent"
ENTRYPOINT = f'ENTRYPOINT ["{RUNTIME}/entrypoint.sh"]'
