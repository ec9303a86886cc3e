"""Bytes: capture, spool, ship, bundle, redact."""
