"""A game that writes bytes no text decoder likes to stdout and stderr, without a newline at the end."""

import os

os.write(1, bytes(range(256)) + b"\r\n\x00\xff\xfe out, no newline")
os.write(2, bytes(range(256)) + b"\r\n\x00\xff\xfe err, no newline")
