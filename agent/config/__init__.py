"""Settings, injected values, and the small parsers that both processes share."""
