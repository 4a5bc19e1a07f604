"""The audit trail: one JSON line for every table or bundle read or written (45 CFR 164.312(b))."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
from typing import Any


def line(*, action: str, what: str, rows: int | None = None, **told: Any) -> str:
    """Who did what to which table, and when; a line of JSON. The store keeps it.

    ``told``: what else is plain data and no patient's.
    """
    return json.dumps(
        {
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "user": _who(),
            "action": action,
            "what": what,
            "rows": rows,
            **told,
        }
    )


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
