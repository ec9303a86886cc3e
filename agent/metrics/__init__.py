"""Prometheus metrics and their listener."""
