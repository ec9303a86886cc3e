"""What a busy game and a busy Prometheus cost: pushed samples, StatsD datagrams, and heartbeats in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psutil

from benchmarks import Row, percentile, skipped
from benchmarks._tools import CannotMeasureError, Client, agent, cpu_seconds, free_port

SCRAPES, SAMPLES, SAMPLES_EACH = 20, 10_000, 100
DATAGRAMS = 50_000
FULL_RATE = 0.95  # of these rates; with less the aims are not judged
MOST_CPU = 25.0  # per cent of one core
MOST_DELAY = 100.0  # ms, for a heartbeat
PUSHED = f"{SCRAPES} scrapes and {SAMPLES} pushed samples a second"
STATSD = f"{DATAGRAMS} StatsD datagrams a second"
# Sends datagrams at a rate for so many seconds, and prints how many it could.
SENDER = """
import socket, sys, time
port, rate, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
datagrams = [b"tick_duration:%d|ms|#room:%d" % (10 + number, number % 8) for number in range(16)]
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect(("127.0.0.1", port))
began, sent = time.monotonic(), 0
while (passed := time.monotonic() - began) < seconds:
    burst = min(int(passed * rate) - sent, 200)
    if burst <= 0:
        time.sleep(0.0005)
    for number in range(burst):
        client.send(datagrams[number % 16])
    sent += max(burst, 0)
print(sent)
"""


def measure(quick: bool) -> list[Row]:
    """Measures both loads, each with an agent of its own."""
    seconds = 3.0 if quick else 10.0
    try:
        return [*_pushed(seconds), *_statsd(seconds)]
    except CannotMeasureError as problem:
        return [skipped(PUSHED, "agent", "% of a core", str(problem))]


def _pushed(seconds: float) -> list[Row]:
    body = json.dumps({f"figure_{number}": number * 0.5 for number in range(SAMPLES_EACH)}).encode()
    with agent() as it, Client(it.port) as api, Client(it.metrics_port) as prometheus:
        head = f"POST /v1/metrics HTTP/1.1\r\nHost: 127.0.0.1:{it.port}\r\nContent-Length: {len(body)}\r\n\r\n"
        push, scrape = head.encode() + body, prometheus.request("GET", "/metrics")
        for _ in range(50):
            prometheus.ask(scrape)
            api.ask(push)
        before, resident, began = cpu_seconds(it.pid), _resident(it.pid), time.monotonic()
        pushes = scrapes = 0
        while (passed := time.monotonic() - began) < seconds:
            if pushes < passed * SAMPLES / SAMPLES_EACH:
                status, _ = api.ask(push)
                assert status == 200, f"POST /v1/metrics was answered {status}"
                pushes += 1
            elif scrapes < passed * SCRAPES:
                prometheus.ask(scrape)
                scrapes += 1
            else:
                time.sleep(0.001)
        used = (cpu_seconds(it.pid) - before) / passed * 100
        grown = _resident(it.pid) - resident
    note = f"{pushes * SAMPLES_EACH / passed:.0f} samples and {scrapes / passed:.0f} scrapes a second were made"
    # A machine that is too busy to send so much says nothing about the aim.
    full = pushes * SAMPLES_EACH / passed > FULL_RATE * SAMPLES and scrapes / passed > FULL_RATE * SCRAPES
    return [
        Row(PUSHED, "agent", used, "% of a core", at_most=MOST_CPU if full else None, note=note),
        Row(f"memory that {PUSHED} added", "agent", grown, "MB", at_most=1.0),
    ]


def _statsd(seconds: float) -> list[Row]:
    port = free_port()
    with agent(AGENT_STATSD=str(port)) as it, Client(it.port) as api, Client(it.metrics_port) as prometheus:
        before, began = cpu_seconds(it.pid), time.monotonic()
        command = [sys.executable, "-c", SENDER, str(port), str(DATAGRAMS), str(seconds)]
        delays = []
        with subprocess.Popen(command, stdout=subprocess.PIPE) as sender:
            while sender.poll() is None:
                delays += [each * 1000 for each in api.timed("POST", "/v1/health", 1)]
                time.sleep(0.01)
            assert sender.stdout is not None
            sent = int(sender.stdout.read())
        passed = time.monotonic() - began
        used = (cpu_seconds(it.pid) - before) / passed * 100
        text = prometheus.ask(prometheus.request("GET", "/metrics"))[1].decode()
    line = 'arbitrium_agent_statsd_datagrams_total{result="read"} '
    read = float(text.partition(line)[2].partition("\n")[0])
    note = f"{sent / seconds:.0f} were sent a second, {read / max(1, sent):.1%} of them read"
    return [
        Row(STATSD, "agent", used, "% of a core", note=note),
        Row(
            f"longest heartbeat beside {STATSD}",
            "agent",
            max(delays),
            "ms",
            len(delays),
            high=percentile(delays, 90),
            at_most=MOST_DELAY if sent / seconds > FULL_RATE * DATAGRAMS else None,
        ),
    ]


def _resident(pid: int) -> float:
    """Memory of an agent's processes in MB (10^6 bytes), its game left out."""
    first = psutil.Process(pid)
    same = [each for each in first.children(recursive=True) if each.name() == first.name()]
    return sum(each.memory_info().rss for each in (first, *same)) / 1e6
