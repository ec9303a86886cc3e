"""`python3 -m udp_game`: serve one match."""

import sys

from .server import main

sys.exit(main())
