"""The audit trail: one JSON line for every table or bundle read or written (45 CFR 164.312(b))."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
from pathlib import Path


def record(root: Path, *, action: str, what: str, rows: int | None = None) -> None:
    """Append who did what to which table, and when, to ``root/guarded/audit.jsonl``."""
    folder = guarded(root)
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    line = {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        "user": who,
        "action": action,
        "what": what,
        "rows": rows,
    }
    with open(folder / "audit.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def guarded(root: Path) -> Path:
    """The folder that only its owner may open: the crosswalk and the audit trail lie there."""
    folder = root / "guarded"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
