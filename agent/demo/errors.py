"""What can go wrong in the demo."""

from agent.errors import AgentError


class DemoError(AgentError):
    """A step of the demo did not come about."""
