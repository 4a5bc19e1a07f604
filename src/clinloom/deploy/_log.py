"""The service's log: a JSON object a line, of names and counts; never a value, never a message
that another library made of what it was given."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from pathlib import Path
from typing import Any

LOGGER = logging.getLogger("clinloom.serve")


class _Lines(logging.Formatter):
    """Own records by what they tell; of others only by whom and where they were written."""

    def format(self, record: logging.LogRecord) -> str:
        moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
        told: dict[str, Any] = {"time": moment.isoformat(timespec="milliseconds")}
        told["level"] = record.levelname.lower()
        if record.name == LOGGER.name:
            told |= {"event": record.msg, **getattr(record, "told", {})}
        else:
            told |= {"event": "other", "by": f"{record.name}:{record.funcName}"}
        if record.exc_info and record.exc_info[1] is not None:
            told |= fault(record.exc_info[1])
        return json.dumps(told)


def fault(error: BaseException) -> dict[str, str]:
    """Which error, and where: its message may quote what was given, so that is left out."""
    place = ""
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        if "clinloom" in code.co_filename:
            place = f"{Path(code.co_filename).name}:{frame.tb_lineno}"
        frame = frame.tb_next
    return {"error": type(error).__name__, **({"place": place} if place else {})}


def tell(event: str, **told: Any) -> None:
    """Write a line."""
    LOGGER.info(event, extra={"told": told})


def warn(event: str, **told: Any) -> None:
    """Write a line of what somebody has to mend."""
    LOGGER.error(event, extra={"told": told})


def begin() -> None:
    """All logging of this process goes to stderr, in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    LOGGER.setLevel(logging.INFO)
