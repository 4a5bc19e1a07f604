"""Weeks (from Monday, as ISO 8601 numbers them) and months, UTC: by what a model is watched."""

from __future__ import annotations

import datetime as dt

import numpy as np
import numpy.typing as npt

from clinloom.events import DAY

BY = ("week", "month")
FIRST = 1_000_000  # the number of the period of 1970-01-01, so that none is below 0
MONDAY = 3  # days from the Monday of that week

Ints = npt.NDArray[np.int64]


def number(at: Ints, by: str) -> Ints:
    """The period (n,) of each time (n,), microseconds since the epoch."""
    if by == "week":
        return FIRST + (at // DAY + MONDAY) // 7
    return FIRST + at.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)


def label(period: int, by: str) -> str:
    """A period as people write it: 2026-03, or 2026-W11."""
    since = period - FIRST
    if by == "week":
        year, week, _ = (dt.date(1970, 1, 1) + dt.timedelta(days=7 * since - MONDAY)).isocalendar()
        return f"{year}-W{week:02}"
    return str(np.datetime64(since, "M"))
