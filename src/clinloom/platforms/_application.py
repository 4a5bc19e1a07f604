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

REPORT = re.compile(r"Application report for (application_\d+_\d+) \(state: (\w+)\)")
SUBMITTED = re.compile(r"Submitted application (application_\d+_\d+)")
STATUS = re.compile(r"User application exited with status (\d+)")
CONTENTS = re.compile(r"^Log ?Contents:\n", re.MULTILINE)
LOG = "stdout"  # where Spark's runner of Python lets a driver's messages go, too
END = re.compile(r"^End of LogType:", re.MULTILINE)
FINAL = re.compile(r"final status: (\w+)")
CONTAINER = re.compile(r"container_[\w]+")
OURS = (1, 2)  # exit codes of a command that failed
EVERY = 1.0  # seconds between two looks at the driver's log
LOG4J = Path(__file__).parent / "submit.properties"


class Application:
    """One application: ``follow`` returns when it has ended."""

    def __init__(self, hadoop: Hadoop, *, note: Callable[[str], None]):
        self.hadoop, self.note = hadoop, note
        self.id: str | None = None
        self.state = self.final = ""
        self.status: int | None = None
        self._told = 0  # lines of the driver's log that were handed on
        self._page: str | None = None
        self._complaint: list[str] = []
        self._ours = False  # whether the line before was of our own message

    def follow(self, command: Sequence[str], *, env: Mapping[str, str], cwd: str) -> int:
        """Submit and follow; the exit code of what ran there.

        Ctrl-C kills the application on the cluster, and is raised again.
        """
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
            self._kill(env)
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
            if self.state == "RUNNING" and time.monotonic() - looked > EVERY:
                self._look()
                looked = time.monotonic()
        if self.id:
            self._look(last=True)

    def _hear(self, line: str) -> None:
        """A line of spark-submit's."""
        if found := SUBMITTED.search(line):
            self.id = found[1]
            self.note(f"YARN: {self.id} submitted")
        elif found := REPORT.search(line):
            self.id = found[1]
            if found[2] != self.state:
                self.state = found[2]
                self.note(f"YARN: {self.id} {self.state.lower()}")
        elif re.search(r"ERROR|Exception|Caused by", line):
            self._complaint.append(line.strip()[:300])
        if found := STATUS.search(line):
            self.status = int(found[1])
        if found := FINAL.search(line):
            self.final = found[1]

    def _look(self, *, last: bool = False) -> None:
        """Hand on what the driver has written since the last look."""
        text = self._log()
        if text is None:
            if last and not self._told:
                self.note(f"the driver's log: yarn logs -applicationId {self.id}")
            return
        lines = text.splitlines()
        whole = len(lines) if last else max(0, len(lines) - 1)  # the last may grow still
        for line in lines[self._told : whole]:
            self._relay(line)
        self._told = max(self._told, whole)

    def _relay(self, line: str) -> None:
        """A line of the driver's: its progress, its fault, or how it ended."""
        told = _json(line)
        if told is not None:
            self._ours = False
            if isinstance(told.get("exit"), int):
                self.status = told["exit"]
            else:
                self.note(line)
            return
        self._ours = line.startswith("clinloom: ") or (self._ours and line.startswith("  "))
        if self._ours:
            self.note(line.removeprefix("clinloom: "))

    def _log(self) -> str | None:
        """What the driver has written so far; None where YARN's web service does not show it."""
        page = self._page or self._found()
        try:
            return _contents(fetched(page).decode("utf-8", "replace")) if page else None
        except OSError:
            return None

    def _found(self) -> str | None:
        answer = self.hadoop.ask(f"apps/{self.id}") or {}
        where = answer.get("app", {}).get("amContainerLogs") or ""
        container, at = CONTAINER.search(where), urlsplit(where)
        if container is None:
            return None
        base = f"{at.scheme}://{at.netloc}/ws/v1/node/containers/{container[0]}/logs"
        self._page = f"{base}/{LOG}"
        return self._page

    def _kill(self, env: Mapping[str, str]) -> None:
        if self.id is None:
            self.note("stopped before YARN had the application")
            return
        self.note(f"YARN: killing {self.id}")
        status, _ = self.hadoop.program(
            f"{YARN}.ApplicationCLI", "application", "-kill", self.id, env=env
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
        if self.status is None:
            for line in self._complaint[-3:]:
                self.note(line)
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
