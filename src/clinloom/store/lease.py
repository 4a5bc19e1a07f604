"""Who may write to an output: one run at a time, on every storage.

On a local disk the kernel keeps the lock and frees it with the process, however it dies. Elsewhere
the holder renews a small file every few seconds, each time over the version that it wrote itself;
who finds a lease that is not renewed while it watches takes it over in one conditional step (on
HDFS, which has none, a check and a replacement). Its end is such a step too: the lease then says
that it is free, and the next run takes it at once. No clock is compared with another.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import IO, Any

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address

BEAT = 3.0  # seconds between two renewals
WATCH = 15.0  # how long a lease is watched before it is held for dead
FREE = "free"
BUSY = "another run is writing here"
MEND = "wait for it, or take another --out"


class Lease:
    """Held from its making until :meth:`close`. Raises StoreError where another run holds it."""

    def __init__(self, root: Address, *, note: Callable[[str], None] | None = None):
        self.root, self.name = root, uuid.uuid4().hex
        self._file: IO[str] | None = None
        self._version: str | None = None
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._beats = 0
        self.taken = False  # over from a run that may be frozen and not dead
        if root.local:
            self._flock()
            return
        self._take(note or (lambda _: None))
        threading.Thread(target=self._renewals, daemon=True).start()

    def check(self) -> None:
        """Raise StoreError where another run has taken over meanwhile."""
        if not self.held():
            raise StoreError(BUSY, where=str(self.root), mend=MEND)

    def held(self) -> bool:
        """Whether it is still ours."""
        return self._file is not None or self._renew()

    def close(self) -> None:
        """Let another run have the output, unless it has it already."""
        self._stop.set()
        if self._file is not None:
            self._file.close()
            return
        with self._turn:
            held, self._version = self._version, None
            if held is not None:
                files.swap(self._place, json.dumps({"run": self.name, FREE: True}).encode(), held)

    @property
    def _place(self) -> Address:
        return self.root / ".lease"

    def _flock(self) -> None:
        lock = open(self.root.path / ".lock", "w")  # noqa: SIM115 - held while the lease is
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise StoreError(BUSY, where=str(self.root), mend=MEND) from None
        self._file = lock

    def _take(self, note: Callable[[str], None]) -> None:
        self._version = files.create(self._place, self._text())
        if self._version is not None:
            return
        seen = files.version(self._place)
        held = self._read()
        self.taken = not held.get(FREE)
        if self.taken and not _dead(held):
            note(f"somebody holds {self.root}; waiting {WATCH:.0f} s for a sign of life")
            end = time.monotonic() + WATCH
            while time.monotonic() < end:
                time.sleep(0.5)
                if files.version(self._place) != seen:
                    raise StoreError(BUSY, where=str(self.root), mend=MEND)
        self._version = files.swap(self._place, self._text(), seen)
        if self._version is None:
            raise StoreError(BUSY, where=str(self.root), mend=MEND)

    def _read(self) -> dict[str, Any]:
        """What the lease says; nothing where it cannot be read."""
        try:
            held = json.loads(files.read(self._place))
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}

    def _text(self) -> bytes:
        self._beats += 1
        held: dict[str, Any] = {"run": self.name, "beat": self._beats}
        return json.dumps({**held, "machine": _machine(), "process": os.getpid()}).encode()

    def _renewals(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                if not self._renew():
                    return
            except OSError:
                continue  # the store is away: the next commit will tell

    def _renew(self) -> bool:
        with self._turn:
            if self._version is not None:
                self._version = files.swap(self._place, self._text(), self._version)
            return self._version is not None


def _dead(held: Mapping[str, Any]) -> bool:
    """Whether the holder was a process of this machine that is no more."""
    if held.get("machine") != _machine() or not isinstance(held.get("process"), int):
        return False
    try:
        os.kill(held["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _machine() -> str:
    """This machine since it was started: process numbers of another one say nothing here."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{socket.gethostname()}/{file.read().strip()}"
    except OSError:
        return socket.gethostname()
