"""The history of a fleet: every life's `exit.json`, read from the store that logs are shipped to."""
