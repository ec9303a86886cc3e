"""Examples: what adopts the agent, and the game of the demo."""
