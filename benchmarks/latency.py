"""How long the local API takes to answer, next to a bare aiohttp app with two routes."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks import Row, percentile, skipped
from benchmarks._tools import CannotMeasureError, Client, agent, bare

OPERATIONS = (("POST", "/v1/health"), ("GET", "/v1/status"))
AIM = 350.0  # µs, for the median


def measure(quick: bool) -> list[Row]:
    """Asks both in turns, over one connection each."""
    rounds, requests = (4, 250) if quick else (20, 500)
    with ExitStack() as stack:
        try:
            ports = {"agent": stack.enter_context(agent()).port, "bare aiohttp app": stack.enter_context(bare()).port}
        except CannotMeasureError as problem:
            return [skipped(f"p50 of {method} {path}", "agent", "µs", str(problem)) for method, path in OPERATIONS]
        clients = {who: stack.enter_context(Client(port)) for who, port in ports.items()}
        rows = []
        for method, path in OPERATIONS:
            found: dict[str, list[float]] = {who: [] for who in clients}
            for client in clients.values():
                client.timed(method, path, requests)
            for _ in range(rounds):
                for who, client in clients.items():
                    found[who] += [seconds * 1e6 for seconds in client.timed(method, path, requests)]
            for percent in (50, 99):
                for who, values in found.items():
                    aim = AIM if (percent, who) == (50, "agent") else None
                    value = percentile(values, percent)
                    rows.append(Row(f"p{percent} of {method} {path}", who, value, "µs", len(values), at_most=aim))
        return rows
