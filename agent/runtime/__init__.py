"""The agent's process: wires API, metrics, shipping and autopsy."""
