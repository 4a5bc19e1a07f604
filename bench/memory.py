"""Peak memory of a command and of all that it starts: the JVM's and the workers' too."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path


def watched(command: list[str], env: dict[str, str]) -> tuple[str, float]:
    """What a command prints, and the peak of its processes' anonymous memory together, GB."""
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(anonymous, family(process.pid))))
            time.sleep(0.2)
        text = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(process.returncode)
    return text, peak


def parts(command: list[str], env: dict[str, str]) -> dict[str, float]:
    """The peak anonymous memory, GB, of the command itself, of a JVM, and of the largest worker."""
    peak = {"driver": 0.0, "java": 0.0, "worker": 0.0}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env) as process:
        while process.poll() is None:
            for one in family(process.pid):
                name = "driver" if one == process.pid else called(one)
                peak[name] = max(peak[name], anonymous(one))
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak


def called(process: int) -> str:
    """Whether a process is a JVM or a worker."""
    try:
        return "java" if Path(f"/proc/{process}/comm").read_text().strip() == "java" else "worker"
    except OSError:
        return "worker"


def family(process: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int(
                (folder / "stat").read_text().rsplit(")")[-1].split()[1]
            )
        except OSError:
            continue
    found, last = {process}, {process}
    while last:
        last = {p for p, parent in parents.items() if parent in last}
        found |= last
    return sorted(found)


def anonymous(process: int) -> float:
    """A process's anonymous memory, GB: what is no file's page."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"RssAnon:\s+(\d+)", status)
    return int(found[1]) / 1e6 if found else 0.0
