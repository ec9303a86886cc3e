"""The platform's REST API, as a server to develop and test against."""
