"""The local API: one set of operations under several transports."""
