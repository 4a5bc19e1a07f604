"""Keeps one program and all that it starts; ends them all when its standard input says so.

``python -S keeper.py FOLDER COMMAND…``. The keeper adopts every orphan of the program (a daemon's
containers, an executor's Python workers), so that it finds them all by parentage. Its standard
input is a pipe of the tests' process: at a byte the keeper sends TERM and, after a grace, KILL.
When the tests end without a word, however they do, the pipe closes: then the keeper does the same
and also removes FOLDER, since nobody else will. Standard library alone.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

GRACE = 2.0  # seconds from TERM to KILL: a NodeManager would take up to 45, and nothing is kept
SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``, children first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # gone meanwhile
            continue
        parent = int(text.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = children.get(pid, [])
    for each in found:  # grows while it is walked
        found += children.get(each, [])
    return found


def end(grace: float = GRACE) -> None:
    """TERM to all below this process, KILL to what is left after the grace, until none is."""
    limit = time.monotonic() + grace
    _signal(signal.SIGTERM)
    while _left() and time.monotonic() < limit:
        time.sleep(0.05)
    while _left():
        _signal(signal.SIGKILL)
        time.sleep(0.02)


def _left() -> bool:
    """Whether this process has children still; buries those that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _signal(number: int) -> None:
    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def main(folder: str, command: list[str]) -> int:
    """Run the command until it ends or standard input does; answer with its status."""
    libc = ctypes.CDLL(None)
    libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    program, alone = None, False
    try:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: libc.prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
        )
        while program.poll() is None:
            if select.select([0], [], [], 0.1)[0]:
                alone = not os.read(0, 1)
                break
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end()
        if alone:
            shutil.rmtree(folder, ignore_errors=True)
    return program.returncode or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
