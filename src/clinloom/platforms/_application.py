"""An application on YARN, followed from spark-submit's log and from its driver's own."""

from __future__ import annotations

import json
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clinloom.platforms._hadoop import YARN, Hadoop, fetched
from clinloom.spark import faults

REPORT = re.compile(r"Application report for (application_\d+_\d+) \(state: (\w+)\)")
SUBMITTED = re.compile(r"Submitted application (application_\d+_\d+)")
STATUS = re.compile(r"User application exited with status (\d+)")
CONTENTS = re.compile(r"^Log ?Contents:\n", re.MULTILINE)
LOG = "stdout"  # where Spark's runner of Python lets a driver's messages go, too
END = re.compile(r"^End of LogType:", re.MULTILINE)
FINAL = re.compile(r"final status: (\w+)")
CONTAINER = re.compile(r"container_[\w]+")
BUSY = 15.0  # seconds without a container for the driver, after which that is told
LIVE = ("ACCEPTED", "RUNNING")  # a driver that makes no session is never more than accepted
OURS = (1, 2)  # exit codes of a command that failed
EVERY = 1.0  # seconds between two looks at the driver's log
LINGER = 3.0  # that a driver stays after its last word: a node may show no log of what is gone
PATIENCE = 30.0  # for the end of the log, which a cluster collects when all is over
LOG4J = Path(__file__).parent / "submit.properties"


class Application:
    """One application: ``follow`` returns when it has ended."""

    def __init__(self, hadoop: Hadoop, *, note: Callable[[str], None]):
        self.hadoop, self.note = hadoop, note
        self.id: str | None = None
        self.state = self.final = ""
        self.status: int | None = None
        self.result: dict[str, Any] | None = None  # what the command printed there, as JSON
        self.fault: str | None = None  # what it failed of
        self._told = 0  # lines of the driver's log that were handed on
        self._page: str | None = None
        self._ended = False  # whether the driver's last word was read
        self._closed = False  # whether its node shows nobody's log, or not to this one
        self._waits: float | None = None  # since when it waits for its first container
        self._env: Mapping[str, str] = {}
        self._complaint: list[str] = []
        self._message: list[str] = []  # the driver's last own one
        self._ours = False  # whether the line before was of it

    def follow(self, command: Sequence[str], *, env: Mapping[str, str], cwd: str) -> int:
        """Submit and follow; the exit code of what ran there.

        Ctrl-C kills the application on the cluster, and is raised again.
        """
        self._env = env
        child = subprocess.Popen(  # noqa: S603 - spark-submit
            command,
            env=dict(env),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # the terminal's Ctrl-C is answered here
        )
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(child, lines), daemon=True).start()
        try:
            self._listen(lines)
            code = child.wait()
        except KeyboardInterrupt:
            self._kill()
            raise
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        return self._code(code)

    def _listen(self, lines: queue.Queue[str | None]) -> None:
        looked = time.monotonic()
        while True:
            try:
                line = lines.get(timeout=EVERY)
            except queue.Empty:
                line = ""
            if line is None:
                break
            self._hear(line)
            if self.state in LIVE and time.monotonic() - looked > EVERY:
                self._look()
                looked = time.monotonic()
            if self._waits is not None and time.monotonic() - self._waits > BUSY:
                self._waits = None
                if self._page is None:
                    self.note(f"YARN: {self.id} waits for room in its queue{self._why()}")
        if self.id:
            self._drain()

    def _hear(self, line: str) -> None:
        """A line of spark-submit's."""
        if found := SUBMITTED.search(line):
            self.id = found[1]
            self.note(f"YARN: {self.id} submitted")
        elif found := REPORT.search(line):
            self.id = found[1]
            if found[2] != self.state:
                self.state = found[2]
                self._waits = time.monotonic() if self.state == "ACCEPTED" else None
                self.note(f"YARN: {self.id} {self.state.lower()}")
        elif re.search(r"ERROR|Exception|Caused by", line):
            self._complaint.append(line.strip()[:500])
        if found := STATUS.search(line):
            self.status = int(found[1])
        if found := FINAL.search(line):
            self.final = found[1]

    def _why(self) -> str:
        """What YARN says that it waits for."""
        app = (self.hadoop.ask(f"apps/{self.id}") or {}).get("app", {})
        said = " ".join(str(app.get("diagnostics") or "").split())
        return f": {said[:300]}" if said else ""

    def _look(self) -> None:
        """Hand on what the driver has written since the last look, but a line that may grow."""
        text = self._log()
        if text is not None:
            self._tell(text.splitlines()[:-1])

    def _drain(self) -> None:
        """Hand on the rest of the driver's log, or say how it is read.

        It is whole when the driver's last word is in it, or when the log of a driver that was
        killed grows no more. Its node shows it for a while, or knows which server does afterwards;
        else `yarn logs` may, where the cluster has collected it.
        """
        until = time.monotonic() + PATIENCE
        while not self._ended:
            text = self._log()
            text = self._collected() if text is None else text
            before = self._told
            if text is not None:
                self._tell(text.splitlines())
                if self._told == before:
                    return
            elif time.monotonic() > until or self._never:
                self.note(f"the end of the driver's log cannot be read here: {self._reading}")
                return
            if not self._ended:
                time.sleep(max(0.0, EVERY))

    @property
    def _never(self) -> bool:
        """Whether its node refused each look and Hadoop's client, which might, is not here."""
        return self._closed and not self._told and not self.hadoop.collects

    @property
    def _reading(self) -> str:
        return f"yarn logs -applicationId {self.id} -log_files {LOG}"

    def _tell(self, lines: Sequence[str]) -> None:
        for line in lines[self._told :]:
            self._relay(line)
        self._told = max(self._told, len(lines))

    def _relay(self, line: str) -> None:
        """A line of the driver's: its progress, its fault, or how it ended."""
        told = _json(line)
        if told is not None:
            self._ours = False
            if isinstance(told.get("exit"), int):
                self.status, self._ended = told["exit"], True
                self.result = _json(str(told.get("result", "")))
            else:
                self.note(line)
            return
        begins = line.startswith("clinloom: ")
        self._ours = begins or (self._ours and line.startswith("  "))
        if self._ours:
            before = [] if begins else self._message
            self._message = [*before, line.removeprefix("clinloom: ")]

    def _log(self) -> str | None:
        """What the driver has written so far; None where YARN's web service does not show it."""
        page = self._page or self._found()
        try:
            return _contents(fetched(page).decode("utf-8", "replace")) if page else None
        except OSError as error:
            self._closed = getattr(error, "code", None) in (401, 403, 500)
            return None

    def _collected(self) -> str | None:
        """What the cluster has collected of it; None where that is nothing, or not yet."""
        found = CONTAINER.search(self._page or "")
        which = ("-containerId", found[0]) if found else ("-am", "1")
        words = ("-applicationId", str(self.id), *which, "-log_files", LOG)
        said = self.hadoop.logs(*words, env=self._env)
        return _contents(said) if CONTENTS.search(said) else None

    def _found(self) -> str | None:
        answer = self.hadoop.ask(f"apps/{self.id}") or {}
        where = answer.get("app", {}).get("amContainerLogs") or ""
        container, at = CONTAINER.search(where), urlsplit(where)
        if container is None:
            return None
        base = f"{at.scheme}://{at.netloc}/ws/v1/node/containers/{container[0]}/logs"
        self._page = f"{base}/{LOG}"
        return self._page

    def _kill(self) -> None:
        if self.id is None:
            self.note("stopped before YARN had the application")
            return
        self.note(f"YARN: killing {self.id}")
        status, _ = self.hadoop.program(
            f"{YARN}.ApplicationCLI", "application", "-kill", self.id, env=self._env
        )
        if status:
            self.note(f"it may run still: yarn application -kill {self.id}")

    def _code(self, code: int) -> int:
        """The command's own exit code: its driver tells it, else YARN's diagnostics do."""
        if code == 0 and self.final in ("", "SUCCEEDED"):
            return 0
        if self.status is None and self.id is not None:
            app = (self.hadoop.ask(f"apps/{self.id}") or {}).get("app", {})
            found = STATUS.search(str(app.get("diagnostics", "")))
            self.status = int(found[1]) if found else None
        lines = self._message
        if not lines and (ours := faults.known("\n".join(self._complaint))):
            lines = str(ours).splitlines()
        if not lines:
            why = [*self._complaint[-3:], *([f"→ {self._reading}"] if self.id else [])]
            lines = ["the application failed on YARN", *(f"  {line}" for line in why)]
        self.fault = "\n".join(lines)
        return self.status if self.status in OURS else 1  # another: its container was killed


def _read(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in child.stdout or ():
        lines.put(line)
    lines.put(None)


def _json(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _contents(text: str) -> str:
    """A log without what YARN writes around it; nothing where it writes that alone, as yet."""
    found = CONTENTS.search(text)
    return END.split(text[found.end() :])[0] if found else ""
