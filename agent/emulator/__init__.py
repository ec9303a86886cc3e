"""The Edgegap platform as a server, to develop and test against without an account.

`server.Emulator` is the whole of it for tests, `cli` is the command. The room knows nothing of the agent and shares
no code with `agent.edgegap`: both are written from the same contract, so that each checks the other. The order to
read it in: `deployment` (what a deployment is), `runner` (how one passes through its states), `container` and `shim`
(how its game runs), `platform` (everything that exists), `web`, `reading` and the `api_*` modules (how it is asked).
"""
