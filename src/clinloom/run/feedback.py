"""What clinicians did with a model's cards: accepted or overridden, by period.

A line is what a CDS Hooks 2.0.1 client posts to a service's ``feedback``, or one of its parts:
``{"feedback": [{"card": …, "outcome": "accepted" | "overridden", "overrideReason": {"reason":
{"code": …}}, "outcomeTimestamp": …}]}``. Comments are not read: a person may be named in them.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from clinloom import files
from clinloom.errors import StoreError
from clinloom.evaluate.calibration import wilson
from clinloom.files import Address
from clinloom.report.disclosure import SMALL, small
from clinloom.report.figures import FEW
from clinloom.run import periods

BLOCK = 1 << 24  # bytes that are read at once
OUTCOMES = ("accepted", "overridden")
REASONS = 10  # codes of reasons that are told


def counted(place: Address, by: str) -> dict[str, Any]:
    """Cards accepted and overridden in each period, the share with its interval, and the reasons.

    What is no feedback is counted as ``unreadable``. Raises StoreError where there is no file.
    """
    found: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    unreadable = 0
    for line in _lines(place):
        for one in _parts(line):
            try:
                outcome, when = one["outcome"], one["outcomeTimestamp"]
                moment = dt.datetime.fromisoformat(when)
                at = moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp()
                number = periods.number(np.array([round(at * 1e6)]), by)[0]
                period = periods.label(int(number), by)
            except (KeyError, TypeError, ValueError, OverflowError):
                unreadable += 1
                continue
            if outcome not in OUTCOMES:
                unreadable += 1
                continue
            found[period, outcome] += 1
            if code := _reason(one):
                reasons[code] += 1
    told = [
        _period(label, *(found[label, outcome] for outcome in OUTCOMES))
        for label in sorted({label for label, _ in found})
    ]
    most = [{"code": code, "cards": n} for code, n in reasons.most_common(REASONS) if n >= FEW]
    return {
        "periods": told,
        "reasons": most,
        "unreadable": SMALL if small(unreadable) else unreadable,
    }


def _period(label: str, accepted: int, overridden: int) -> dict[str, Any]:
    """A period's cards; nothing where few were accepted or overridden."""
    cards = accepted + overridden
    if small(accepted) or small(overridden):
        return {"period": label, "cards": None, "overridden": None, "low": None, "high": None}
    low, high = wilson(overridden, cards)
    share = {"overridden": overridden / cards, "low": low, "high": high}
    return {"period": label, "cards": cards, **{k: round(v, 4) for k, v in share.items()}}


def _parts(line: bytes) -> list[Any]:
    """The feedback in a line; something that is none where it holds none."""
    try:
        found = json.loads(line)
    except ValueError:
        return [None]
    several = found.get("feedback", [found]) if isinstance(found, dict) else [None]
    return several if isinstance(several, list) else [None]


def _reason(one: Any) -> str | None:
    """The code of the reason why a card was overridden."""
    told = one.get("overrideReason")
    told = told.get("reason") if isinstance(told, dict) else None
    code = told.get("code") if isinstance(told, dict) else None
    return code if isinstance(code, str) else None


def _lines(place: Address) -> Iterator[bytes]:
    """The file's lines that are not empty, a block of bytes at a time."""
    try:
        size, rest = files.entry(place).size, b""
        for begin in range(0, size, BLOCK):
            block = rest + files.read(place, begin, min(size, begin + BLOCK))
            *whole, rest = block.split(b"\n")
            yield from (line for line in whole if line.strip())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"cannot be read ({reason})", where=str(place)) from None
    if rest.strip():
        yield rest
