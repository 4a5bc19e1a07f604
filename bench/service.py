"""The service under load: one worker, a FHIR Bundle of 200 entries, 100 requests a second.

    PYTHONPATH=src:. python bench/service.py [--seconds 20] [--rate 100] [--entries 200]

Requests are sent at their times, whether or not earlier ones were answered; a latency counts from
when its request was due. Beside it: cold start to the first answer, memory, and the parts alone.
Asked: p50 < 10 ms, p99 < 50 ms; first answer < 1.5 s; < 250 MB; the scorer < 100 us for one patient
with 100 trees; features and score of 1,000 events < 5 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tests.service import made

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door

KIND = {"content-type": "application/fhir+json"}


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--entries", type=int, default=200)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = made.publish(Path(folder) / "bundle")
        bodies = [made.body(n, observations=asked.entries - 4) for n in range(20)]
        _parts(bundle, bodies)
        port = _free()
        begin = time.perf_counter()
        command = [sys.executable, "-m", "clinloom", "serve", str(bundle), "--port", str(port)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                _first(port, bodies[0])
                cold, before = time.perf_counter() - begin, _processor(process.pid)
                print(f"first answer after {cold:.2f} s, {before:.2f} s of the processor")
                found = asyncio.run(_load(port, bodies, asked.rate, asked.seconds))
                _told(found, asked.rate)
                spent = _processor(process.pid) - before
                good = sum(status == 200 for _, status in found) or 1
                print(f"{1000 * spent / good:.1f} ms of the processor an answer")
                status = Path(f"/proc/{process.pid}/status").read_text()
                rss = next(x.split()[1] for x in status.splitlines() if x.startswith("VmRSS"))
                print(f"memory {int(rss) / 1024:.0f} MB")
            finally:
                process.terminate()
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _processor(pid: int) -> float:
    """Seconds of the processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _first(port: int, body: bytes) -> None:
    url = f"http://127.0.0.1:{port}/fhir/$predict"
    while True:
        try:
            httpx.post(url, content=body, headers=KIND, timeout=60).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.01)


async def _load(
    port: int, bodies: list[bytes], rate: float, seconds: float
) -> list[tuple[float, int]]:
    """The latency (seconds) and status of each request."""
    found: list[tuple[float, int]] = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        async def ask(number: int, due: float) -> None:
            body = bodies[number % len(bodies)]
            response = await client.post("/fhir/$predict", content=body, headers=KIND)
            found.append((time.perf_counter() - due, response.status_code))

        begin, running = time.perf_counter(), []
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            running.append(asyncio.create_task(ask(number, due)))
        await asyncio.gather(*running)
    return found


def _told(found: list[tuple[float, int]], rate: float) -> None:
    good = sorted(1000 * took for took, status in found if status == 200)
    away = len(found) - len(good)
    if not good:
        print("nothing was answered")
        return
    p50, p99 = (good[min(len(good) - 1, int(p * len(good)))] for p in (0.5, 0.99))
    print(f"{rate:.0f}/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {away} of {len(found)} sent away")


def _parts(bundle: Path, bodies: list[bytes]) -> None:
    door = Door(Bundle.load(bundle))
    facts = [door.fhir(body) for body in bodies]
    answers = [door.score(one) for one in facts]
    scorer = door.bundle.scorer
    row = answers[0].values
    large = door.fhir(made.body(1, observations=1000))
    clean = door.bundle.clean(large.events, large.refused)["events"]
    index = door.bundle.moments(clean)["index"]
    for name, work in (
        ("scorer, one patient, 100 trees", lambda: scorer.score(row)),
        ("features and score, 1,000 events", lambda: door.bundle.risks(clean, index)),
        ("FHIR read", lambda: door.fhir(bodies[1])),
        ("cleaning to risk", lambda: door.score(facts[1])),
    ):
        print(f"{name}: {_timed(work)}")


def _timed(work: Callable[[], Any]) -> str:
    """Median and least processor time of 200 calls, in milliseconds."""
    took = []
    for _ in range(200):
        begin = time.process_time()
        work()
        took.append(1000 * (time.process_time() - begin))
    return f"p50 {statistics.median(took):.3f} ms, least {min(took):.3f} ms of the processor"


if __name__ == "__main__":
    main()
