"""The platform's REST API, as a client."""
