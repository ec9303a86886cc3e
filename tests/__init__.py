"""The tests of arbitrium-agent, from the inside out: unit, contract, process, e2e."""

import os
import sys

# Where the environment forbids bytecode, every agent that a test starts would compile all of its modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
