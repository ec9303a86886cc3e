"""Asks the platform for a deployment and follows it until it has ended: `deploy.py URL APPLICATION VERSION`."""

import json
import os
import sys
import time
import urllib.request
from typing import Any


def call(method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Calls the platform's API."""
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body else None)  # noqa: S310 - the URL is the user's own
    request.add_header("authorization", f"token {os.environ['EDGEGAP_API_TOKEN']}")
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


def main() -> int:
    """Deploys, prints each new status, and ends with the deployment."""
    url, application, version = sys.argv[1:]
    if page := os.environ.get("EMULATOR_PAGE"):
        print(f"the emulator's page: {page}?token={os.environ['EDGEGAP_API_TOKEN']}", flush=True)
    place = {"user_type": "geo_coordinates", "user_data": {"latitude": 48.9, "longitude": 2.4}}
    wanted = {"application": application, "version": version, "users": [place]}
    try:
        accepted = call("POST", f"{url}/v2/deployments", wanted)
    except OSError as problem:
        print(f"cannot deploy: {problem}", file=sys.stderr)
        return 1
    deployment = accepted["request_id"]
    seen = ""
    while seen not in {"Status.TERMINATED", "Status.ERROR"}:
        status = call("GET", f"{url}/v1/status/{deployment}")
        if status["current_status"] != seen:
            seen = status["current_status"]
            ports = {name: port["external"] for name, port in (status.get("ports") or {}).items()}
            print(f"{deployment} {seen} {ports or ''}", flush=True)
        time.sleep(1)
    return 0 if seen == "Status.TERMINATED" else 1


if __name__ == "__main__":
    sys.exit(main())
