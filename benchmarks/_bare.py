"""The floor that the agent is compared with: aiohttp with two routes (and, if asked, /metrics), and nothing else.

`python -m benchmarks._bare PORT [metrics] [body=N]`: with `body`, the status is so many bytes long.
"""

import json
import sys

from aiohttp import web

STATUS = {
    "version": "0.1.0",
    "phase": "ready",
    "ready": True,
    "players": {"count": 0, "capacity": 8, "ids": []},
    "heartbeat": {"count": 12, "age_seconds": 0.2},
    "text": "",
}


async def health(_request: web.Request) -> web.Response:
    """`POST /v1/health`."""
    return web.Response(body=b'{"phase":"ready","stopping":false}', content_type="application/json")


async def status(_request: web.Request) -> web.Response:
    """`GET /v1/status`."""
    return web.Response(body=json.dumps(STATUS).encode(), content_type="application/json")


async def metrics(_request: web.Request) -> web.Response:
    """`GET /metrics`: what prometheus_client has without being told anything."""
    from prometheus_client import REGISTRY, generate_latest  # noqa: PLC0415 - only where it is asked for

    return web.Response(body=generate_latest(REGISTRY), content_type="text/plain")


def main() -> None:
    """Serves."""
    for size in (option.removeprefix("body=") for option in sys.argv[2:] if option.startswith("body=")):
        STATUS["text"] = "x" * max(0, int(size) - len(json.dumps(STATUS)))
    app = web.Application()
    app.add_routes([web.post("/v1/health", health), web.get("/v1/status", status)])
    if "metrics" in sys.argv[2:]:
        app.router.add_get("/metrics", metrics)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
