"""A bundle made by hand, and a service of it in a process of its own, on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.service import made

PATIENCE = 120  # seconds that a busy machine may take to start


class Running:
    """A service under test: its process, its address, what it logged."""

    def __init__(self, folder: Path, bundle: Path, *arguments: str, **environment: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._log = folder / f"log-{self.port}"
        command = [sys.executable, "-m", "clinloom", "serve", str(bundle), "--port"]
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, str(self.port), *arguments],
            stderr=self._log.open("wb"),
            env={**os.environ, **environment},
        )
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if self.client.get("/ready").status_code == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(self.log)

    @property
    def log(self) -> str:
        """Everything on its stderr so far."""
        return self._log.read_text()

    def fhir(self, given: bytes, **more: Any) -> httpx.Response:
        """Ask the FHIR front."""
        headers = {"content-type": "application/fhir+json", **more.pop("headers", {})}
        return self.client.post("/fhir/$predict", content=given, headers=headers, **more)

    def metric(self, name: str) -> float:
        """The sum of a metric's lines that begin so."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def end(self) -> int:
        """Send SIGTERM, wait, and give the exit code."""
        self.process.send_signal(signal.SIGTERM)
        self.client.close()
        return self.process.wait(PATIENCE)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that nobody changes."""
    return made.publish(tmp_path_factory.mktemp("published") / "bundle")


@pytest.fixture(scope="session")
def service(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service of it with small limits."""
    folder = tmp_path_factory.mktemp("service")
    limits = ("--max-body", "2MB", "--max-entries", "3000", "--slow", "2", "--timeout", "60")
    running = Running(folder, published, *limits)
    yield running
    assert running.end() == 0


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Start further services; they end with the test."""
    found: list[Running] = []

    def start(bundle: Path, *arguments: str, **environment: str) -> Running:
        found.append(Running(tmp_path, bundle, *arguments, **environment))
        return found[-1]

    yield start
    for one in found:
        if one.process.poll() is None:
            one.end()
