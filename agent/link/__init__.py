"""What the init and the agent's process say to each other: messages, and how they travel over a socket pair."""
