#!/bin/sh
# A start script that keeps a shell between init and the game, as most images have it: a signal to the shell alone
# would never reach the game, and a shell that dies first leaves the game saving its world.
"$@"
echo "wrapper: the game exited $?"
