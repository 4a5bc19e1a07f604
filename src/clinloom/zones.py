"""Wall clocks and moments: from a zone's local time to UTC and back, for all sources alike.

Arrow's zones end with 2037, and no summer comes after. De-identified dates lie there (MIMIC: 2100
to 2200), so from 2038 on it is Python's ``zoneinfo`` that tells when a zone's clocks turn.
"""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.tables import TIME

Ints = npt.NDArray[np.int64]
LOCAL = pa.timestamp("us")
SECOND = 1_000_000
WEEK = 604_800  # seconds, within which no zone's clocks turn twice
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FIRST, LAST = 2038, 9997  # years in which it is not Arrow that tells; Python's calendar ends soon


class Turns(NamedTuple):
    """The moments (n,) from which on a zone's clocks are another number of microseconds ahead of
    UTC than before; a year's begin is one at which nothing turns."""

    moment: Ints
    before: Ints
    ahead: Ints


def in_utc(local: pa.Array, zone: str) -> pa.Array:
    """Wall times (timestamp[us]) of a zone as moments (TIME).

    Of an hour that is there twice it is the first; one that is skipped is the moment of the turn.
    """
    known = pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest").cast(TIME)
    rows, wall = _beyond(local, zone)
    if not len(rows):
        return known
    turns = _turns(zone, wall)
    at = np.searchsorted(turns.moment + np.maximum(turns.before, turns.ahead), wall, "right")
    following = np.append(turns.moment, np.iinfo(np.int64).max)[at]
    return _replaced(known, rows, np.minimum(wall - turns.ahead[at - 1], following))


def in_zone(times: pa.Array, zone: str) -> pa.Array:
    """Moments (TIME) as wall times (timestamp[us]) of a zone."""
    local = pc.local_timestamp(times.cast(pa.timestamp("us", tz=zone)))
    rows, moments = _beyond(times, zone)
    if not len(rows):
        return local
    turns = _turns(zone, moments)
    ahead = turns.ahead[np.searchsorted(turns.moment, moments, "right") - 1]
    return _replaced(local, rows, moments + ahead)


def _beyond(times: pa.Array, zone: str) -> tuple[Ints, Ints]:
    """Which times Arrow does not know the zone at, and these, in microseconds."""
    plain = times.cast(pa.int64())
    latest = pc.max(plain).as_py() if zone != "UTC" else None
    if latest is None or latest < _new_year(FIRST):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    told: Ints = plain.fill_null(0).to_numpy()
    rows = np.flatnonzero((told >= _new_year(FIRST)) & (told < _new_year(LAST + 1)))
    return rows, told[rows]


def _replaced(times: pa.Array, rows: Ints, others: Ints) -> pa.Array:
    mask = np.zeros(len(times), bool)
    mask[rows] = True
    return pc.replace_with_mask(times, pa.array(mask), pa.array(others).view(times.type))


def _turns(zone: str, times: Ints) -> Turns:
    """Those of all years in which times (n,) lie, here or in Greenwich."""
    years = np.unique(times.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64))
    years = np.unique(years[:, None] + np.arange(1969, 1972))
    listed = zip(*(_of_year(zone, year) for year in years.tolist()), strict=True)
    return Turns(*(np.concatenate(parts) for parts in listed))


@lru_cache(maxsize=4096)
def _of_year(zone: str, year: int) -> Turns:
    there = ZoneInfo(zone)

    def ahead(second: int) -> int:
        offset = (EPOCH + dt.timedelta(seconds=second)).astimezone(there).utcoffset()
        return 0 if offset is None else offset // dt.timedelta(microseconds=1)

    begin, end = _new_year(year) // SECOND, _new_year(year + 1) // SECOND
    told = [(begin, ahead(begin), ahead(begin))]
    for first in range(begin, end, WEEK):
        low, high = first, min(first + WEEK, end)
        before, after = ahead(low), ahead(high)
        while before != after and high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if ahead(middle) == before else (low, middle)
        if before != after:
            told.append((high, before, after))
    moment, *offsets = np.array(told, np.int64).T
    return Turns(moment * SECOND, *offsets)


@lru_cache
def _new_year(year: int) -> int:
    return int(np.datetime64(f"{year:04}-01-01T00:00:00", "us").astype(np.int64))
