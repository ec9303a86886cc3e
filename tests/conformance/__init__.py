"""The emulator against the OpenAPI document: `python -m tests.conformance` (`make conformance`)."""
