"""A command in a process of its own on this machine, with the terminal's Ctrl-C shared."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from clinloom.platforms import SUBMITTED, Outcome, Task

OURS = ("CLINLOOM_SPARK_MASTER", "CLINLOOM_SPARK_REMOTE", "CLINLOOM_SPARK_TOKEN")
GRACE = 30  # seconds that a command has to end after Ctrl-C


def clinloom(task: Task, env: Mapping[str, str]) -> Outcome:
    """Run the command by this Python with these variables and no others of a session's."""
    with tempfile.TemporaryDirectory(prefix="clinloom-") as folder:
        laid(task, Path(folder))
        command = [sys.executable, "-m", "clinloom", *task.command]
        code = run(command, env=environment(env), cwd=folder)
    return Outcome(code, task.report if code == 0 else None)


def laid(task: Task, folder: Path) -> None:
    """Write the task's files."""
    for name, data in task.files.items():
        (folder / name).write_bytes(data)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the given variables; no other session is named in it."""
    kept = {key: value for key, value in os.environ.items() if key not in OURS}
    path = os.environ.get("PYTHONPATH")
    if path:  # relative to where the caller stood
        folders = [os.path.abspath(folder) for folder in path.split(os.pathsep) if folder]
        kept["PYTHONPATH"] = os.pathsep.join(folders)
    return {**kept, SUBMITTED: "1", **more}


def run(command: Sequence[str], *, env: Mapping[str, str], cwd: str) -> int:
    """Run to the end, with this process's own output; the exit code."""
    child = subprocess.Popen(command, env=dict(env), cwd=cwd)  # noqa: S603 - our own command
    try:
        return child.wait()
    except KeyboardInterrupt:  # the terminal told the child, too
        try:
            child.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
        raise
