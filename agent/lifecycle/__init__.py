"""How a deployment lives and ends: pure rules, and the driver that feeds them events."""
