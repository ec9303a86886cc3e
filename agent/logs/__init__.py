"""Log files and output: captured, redacted, spooled, shipped, and read again."""
