"""What a person sees while a long run works: stage names, rows, elapsed time, on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Writes a line a stage; on a terminal also a live line. ``form``: text, json or quiet."""

    def __init__(self, *, form: str = "text", stream: TextIO | None = None):
        self.form, self.stream = form, stream or sys.stderr
        self.begun = time.monotonic()
        self.detail: Callable[[], str] | None = None

    def note(self, text: str) -> None:
        """A line for the reader."""
        if self.form == "text":
            print(text, file=self.stream, flush=True)
        elif self.form == "json":
            print(json.dumps({"note": text}), file=self.stream, flush=True)

    def relay(self, line: str) -> None:
        """A note; or a line of JSON that another process's progress wrote, as if it were ours."""
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            self.note(line)
        elif told.keys() >= {"stage", "rows", "seconds", "reused"}:
            self.done(
                told["stage"], rows=told["rows"], seconds=told["seconds"], reused=told["reused"]
            )
        elif "note" in told:
            self.note(str(told["note"]))

    def done(self, stage: str, *, rows: int | None, seconds: float, reused: bool) -> None:
        """A stage ended (or was reused from an earlier run)."""
        elapsed = time.monotonic() - self.begun
        if self.form == "json":
            record = {"stage": stage, "rows": rows, "seconds": round(seconds, 2), "reused": reused}
            print(json.dumps(record), file=self.stream, flush=True)
        elif self.form == "text":
            size = "" if rows is None else f"{rows:>13,} rows"
            took = "    kept" if reused else f"{seconds:7.1f}s"
            minutes, rest = divmod(int(elapsed), 60)
            clear = "\r\033[K" if self.stream.isatty() else ""
            line = f"{clear}  {stage:<26}{size:>18}  {took}   {minutes:02d}:{rest:02d}"
            print(line, file=self.stream, flush=True)

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """A live line on a terminal while a stage works."""
        if self.form != "text" or not self.stream.isatty():
            yield
            return
        stop = threading.Event()

        def tick() -> None:
            start = time.monotonic()
            while not stop.wait(0.5):
                more = self.detail() if self.detail else ""
                seconds = time.monotonic() - start
                print(f"\r\033[K  {stage:<26}{more:>18}  {seconds:7.1f}s", end="", file=self.stream)
                self.stream.flush()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.detail = None
