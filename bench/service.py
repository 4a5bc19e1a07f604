"""The service under load: one worker, a FHIR Bundle of 200 entries, 100 requests a second.

    PYTHONPATH=src:. python bench/service.py [--seconds 20] [--rate 100] [--entries 200]

Requests are sent at their times, whether or not earlier ones were answered; a latency counts from
when its request was due. Beside it: cold start to the first answer, memory, and the parts alone.
Asked: p50 < 10 ms, p99 < 50 ms; first answer < 1.5 s; < 250 MB; the scorer < 100 us for one patient
with 100 trees; features and score of 1,000 events < 5 ms.

With ``--mlflow PYTHON``, one that has mlflow and pyspark (``pip install mlflow pyspark`` in an
environment of its own), ``mlflow models serve`` answers beside, with the same boosted model of
Spark: it gets prepared features, Clinloom the patient's whole FHIR Bundle, one request after the
other. Asked: 100 times as fast.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
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
from clinloom.deploy.scorer import Scorer

KIND = {"content-type": "application/fhir+json"}


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--entries", type=int, default=200)
    parser.add_argument("--mlflow", metavar="PYTHON", help="a Python that has mlflow and pyspark")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bodies = [made.body(n, observations=asked.entries - 4) for n in range(20)]
        if asked.mlflow:
            _beside(Path(folder), asked.mlflow, bodies)
        bundle = made.publish(Path(folder) / "bundle")
        _parts(bundle, bodies)
        port, compiled = _free(), {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
        compiled.pop("PYTHONDONTWRITEBYTECODE", None)  # as what is installed is compiled
        command = [sys.executable, "-m", "clinloom", "serve", str(bundle), "--port", str(port)]
        _ended(command, bodies[0], port, compiled)
        begin = time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=compiled) as process:
            try:
                _first(_predict(port), bodies[0], KIND)
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


def _predict(port: int) -> str:
    return f"http://127.0.0.1:{port}/fhir/$predict"


def _first(url: str, body: bytes, kind: dict[str, str]) -> None:
    while True:
        try:
            httpx.post(url, content=body, headers=kind, timeout=60).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.01)


def _ended(command: list[str], body: bytes, port: int, environment: dict[str, str]) -> None:
    """Serve once, to the first answer."""
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
        _first(_predict(port), body, KIND)
        process.terminate()


def _beside(folder: Path, python: str, bodies: list[bytes]) -> None:
    """The same model of Spark, served by MLflow and by Clinloom: one patient after the other."""
    peer = folder / "peer"
    peer.mkdir()
    subprocess.run([python, "bench/mlflow_peer.py", str(peer)], check=True)
    scorer = Scorer.parse((peer / "scorer.npz").read_bytes())
    bundle = made.publish(folder / "same", model=scorer)
    ports, row = (_free(), _free()), (peer / "row.json").read_bytes()
    serve = ["-m", "mlflow", "models", "serve", "-m", str(peer / "model"), "--env-manager", "local"]
    asked = (
        ([python, *serve, "-p", str(ports[0])], f"http://127.0.0.1:{ports[0]}/invocations", [row]),
        (
            [sys.executable, "-m", "clinloom", "serve", str(bundle), "--port", str(ports[1])],
            _predict(ports[1]),
            bodies,
        ),
    )
    found = []
    for command, url, given in asked:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        path = {**os.environ, "PATH": f"{Path(command[0]).parent}:{os.environ['PATH']}"}
        with subprocess.Popen(command, env=path, start_new_session=True, **quiet) as process:
            try:
                kind = {"content-type": "application/json"}
                _first(url, given[0], kind)
                found.append(_each(url, given, kind))
            finally:
                os.killpg(process.pid, signal.SIGTERM)
    for name, took in zip(("mlflow models serve", "clinloom serve"), found, strict=True):
        print(f"{name}: p50 {1000 * statistics.median(took):.1f} ms, one patient after the other")
    theirs, ours = map(statistics.median, found)
    print(f"Clinloom is {theirs / ours:.0f} times as fast")


def _each(url: str, bodies: list[bytes], kind: dict[str, str]) -> list[float]:
    """How long each of 40 requests takes, after 10 that are not counted."""
    took = []
    with httpx.Client(timeout=60) as client:
        for number in range(50):
            begin = time.perf_counter()
            client.post(url, content=bodies[number % len(bodies)], headers=kind).raise_for_status()
            took.append(time.perf_counter() - begin)
    return took[10:]


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
