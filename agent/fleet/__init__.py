"""The history of a fleet: the `exit.json` of every run, read from the store that logs are shipped to."""
