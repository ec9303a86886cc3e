"""Prometheus service discovery for the deployments of an organisation."""
