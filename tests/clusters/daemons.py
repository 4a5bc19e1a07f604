"""Servers that a test starts: each with a log, a way to tell that it is ready, and a sure end."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.clusters import keeper

ROOT = Path(__file__).parents[2]
Made = TypeVar("Made")
# Small and quick to start; what a test holds for an hour need not run at full speed.
JAVA_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xss512k",
    "-Djava.net.preferIPv4Stack=true",
)


class NotReady(Exception):
    """A server that ended or did not answer in time, with the end of its log."""


class Daemons:
    """The servers of one cluster and their folder; leaving the ``with`` ends and removes all."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"clinloom-{name}-"))
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start a server whose output goes to ``NAME.log`` in the folder."""
        keeping = [sys.executable, "-S", keeper.__file__, str(self.folder)]
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*keeping, *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(env) if env is not None else None,
                cwd=cwd or self.folder,
                start_new_session=True,  # the terminal's Ctrl-C is for the tests alone
            )

    def stop(self, *names: str) -> None:
        """End these servers, or all: together, so that the slowest alone is waited for."""
        ending = [self._running.pop(name) for name in names or list(self._running)]
        for kept in ending:
            assert kept.stdin is not None
            with suppress(BrokenPipeError):  # it ended by itself
                kept.stdin.write(b".")
                kept.stdin.flush()
        for kept in ending:
            kept.wait()
            with suppress(BrokenPipeError):
                kept.stdin.close()

    def below(self, name: str) -> list[int]:
        """The processes of one server: itself and what it started."""
        return keeper.descendants(self._running[name].pid)

    def log(self, name: str) -> Path:
        """Where a server's output lies."""
        return self.folder / f"{name}.log"

    def await_ready(
        self, ready: Callable[[], bool], *, what: str, seconds: float = 90, pause: float = 0.1
    ) -> None:
        """Return when ``ready()`` first is; an OSError says not yet. Raises NotReady."""
        limit = time.monotonic() + seconds
        while True:
            ended = [name for name, kept in self._running.items() if kept.poll() is not None]
            if ended:
                raise NotReady(f"{ended[0]} ended at its start: {self.tail(ended[0])}")
            try:
                if ready():
                    return
            except (OSError, ValueError, LookupError):
                pass
            if time.monotonic() > limit:
                said = "\n".join(map(self.tail, self._running))
                raise NotReady(f"{what} is not ready after {seconds:.0f} s: {said}")
            time.sleep(pause)

    def tail(self, name: str, *, size: int = 3000) -> str:
        """The end of a server's output."""
        return self.log(name).read_text(errors="replace")[-size:]


@contextmanager
def started(name: str, start: Callable[[Daemons], Made], *, tries: int = 3) -> Iterator[Made]:
    """A cluster that ``start`` made in a fresh folder; a lost race for a port is tried again."""
    for left in reversed(range(tries)):
        with Daemons(name) as daemons:
            try:
                made = start(daemons)
            except NotReady:
                if left:
                    continue
                raise
            yield made
            return


def free_ports(count: int, *, host: str = "127.0.0.1") -> list[int]:
    """Ports that nobody listens at now: another process may yet take one first."""
    held = [socket.create_server((host, 0)) for _ in range(count)]
    try:
        return [server.getsockname()[1] for server in held]
    finally:
        for server in held:
            server.close()


def listens(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens there. Raises OSError where nobody does."""
    with socket.create_connection((host, port), timeout=1):
        return True


def answer(url: str) -> Any:
    """The JSON that a server on this machine answers. Raises OSError, ValueError."""
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - loopback
        return json.load(response)


def own_environment(**more: str) -> dict[str, str]:
    """This process's environment without what another Spark or Hadoop has set in it.

    Java's second compiler is left out of drivers here, too (see ``tests/conftest.py``).
    """
    foreign = ("SPARK_", "HADOOP_", "YARN_", "PYSPARK_", "CLINLOOM_SPARK_", "AWS_", "KRB5")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    quick = {"SPARK_SUBMIT_OPTS": os.environ.get("SPARK_SUBMIT_OPTS", "")}
    return {**kept, **quick, **more}
