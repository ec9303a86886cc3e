"""Logs: capture, redaction, spool, shipping, and reading shipped logs."""
