"""The messages between the init and the agent's process, and their encoding for a socket pair."""
