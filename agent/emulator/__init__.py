"""The Edgegap platform as a server, to develop and test against without an account.

`server.Emulator` is the whole emulator for tests, `cli` is the command. This package does not import the agent and
shares no code with `agent.edgegap`: both are written from the same contract, so that each tests the other. Suggested
reading order: `deployment` (what a deployment is), `runner` (how its state changes), `container` and `shim`
(how its game runs), `platform` (everything that exists), `web`, `reading` and the `api_*` modules (the API).
"""
