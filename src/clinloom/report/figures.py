"""Numbers as people read them."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
FEW = 5  # counts of fewer patients could point at one of them


def count(number: float | None) -> str:
    """A count with thousands separators."""
    return NONE if number is None else f"{int(number):,}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with as many decimals, and a proper minus."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:,.{digits}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    if share is None or not math.isfinite(share):
        return NONE
    return f"{number(100 * share + 1e-9, digits)}%"  # a half that binary holds as less, rounds up


def interval(found: Mapping[str, Any], digits: int = 3) -> str:
    """The interval of a metric ``{"value", "low", "high"}``; empty where there is none."""
    low, high = found.get("low"), found.get("high")
    if low is None or high is None:
        return ""
    between = " to " if low < 0 else NONE
    return f"{number(low, digits)}{between}{number(high, digits)}"


def of_hundred(share: float) -> int:
    """A share as so many of a hundred; neither none nor all where it is not."""
    nearest = round(100 * share)
    if nearest == 0 and share > 0:
        return 1
    return 99 if nearest == 100 and share < 1 else nearest


def seconds(spent: float | None) -> str:
    """A duration."""
    if spent is None:
        return NONE
    if spent < 60:
        return f"{spent:.1f} s"
    minutes, rest = divmod(round(spent), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(text: str | None) -> str:
    """An ISO time as a date that people write; as it is where it is in another form."""
    try:
        when = dt.datetime.fromisoformat(text or "")
    except ValueError:
        return text or NONE
    if when.tzinfo:
        when = when.astimezone(dt.UTC)
    zone = " UTC" if when.tzinfo else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"
