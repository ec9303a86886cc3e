"""The tests of arbitrium-agent, from the inside out: unit, contract, process, e2e."""
