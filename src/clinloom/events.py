"""Events of whole patients as NumPy arrays: what every kernel reads them through.

Times are int64 microseconds since the epoch, UTC. Nothing here copies a column that holds no null.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import zones
from clinloom.tables import TIME
from clinloom.vocabulary.answers import UNASSERTED

ANSWER = "="  # stands between a code and the answer that belongs to it
STATIC = np.iinfo(np.int64).min  # the time of a fact that has none: earlier than every time
NEVER = np.iinfo(np.int64).max  # later than every time
DAY = 86_400_000_000  # microseconds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def column(table: pa.Table, name: str) -> pa.Array:
    """A table's column as one contiguous array."""
    chunks = table.column(name).chunks
    if len(chunks) == 1:
        return chunks[0]
    return pa.concat_arrays(chunks) if chunks else pa.array([], table.schema.field(name).type)


def valid(array: pa.Array) -> Flags | None:
    """Which values are not null; None where all are."""
    if not array.null_count:
        return None
    bitmap = array.buffers()[0]
    if bitmap is None:  # an array of type null
        return np.zeros(len(array), bool)
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].view(bool)


def _plain(array: pa.Array, dtype: type) -> np.ndarray:
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.zeros(len(array), dtype)
    return np.frombuffer(data, dtype)[array.offset : array.offset + len(array)]


def times(array: pa.Array) -> Ints:
    """Timestamps as microseconds; STATIC where null."""
    array = array if array.type == TIME else array.cast(TIME)
    present = valid(array)
    plain = _plain(array, np.int64)
    return plain if present is None else np.where(present, plain, STATIC)


def numbers(array: pa.Array) -> Floats:
    """Numbers as float64; NaN where null."""
    array = array if array.type == pa.float64() else array.cast(pa.float64())
    present = valid(array)
    plain = _plain(array, np.float64)
    return plain if present is None else np.where(present, plain, np.nan)


def subjects(table: pa.Table) -> Ints:
    """The table's ``subject_id``."""
    array = column(table, "subject_id")
    return _plain(array if array.type == pa.int64() else array.cast(pa.int64()), np.int64)


def coded(array: pa.Array) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Strings as positions in a list of distinct ones; -1 where null."""
    if not isinstance(array, pa.DictionaryArray):
        array = (
            array if pa.types.is_string(array.type) else array.cast(pa.string())
        ).dictionary_encode()
    indices = array.indices
    indices = indices if indices.type == pa.int32() else indices.cast(pa.int32())
    if indices.null_count == len(indices):
        return np.full(len(indices), -1, np.int32), array.dictionary.to_pylist()
    present = valid(indices)
    plain = _plain(indices, np.int32)
    return (plain if present is None else np.where(present, plain, np.int32(-1))), (
        array.dictionary.to_pylist()
    )


def microseconds(moment: dt.datetime) -> int:
    """A moment as microseconds; UTC's where it names no zone."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return (aware - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def nullable(values: np.ndarray, null: Flags) -> pa.Array:
    """An array of numbers, null where told; without a copy where none is."""
    return pa.array(values, mask=null if null.any() else None)


def timestamps(microseconds: Ints) -> pa.Array:
    """Microseconds as timestamps; null where STATIC."""
    return nullable(microseconds, microseconds == STATIC).view(TIME)


def period_ends(begins: Ints, unit: Literal["D", "M", "Y"], zone: str = "UTC") -> Ints:
    """The last microsecond of the days, months or years of ``zone`` that begin at ``begins``."""
    local = begins
    if zone != "UTC":
        local = zones.in_zone(timestamps(begins), zone).cast(pa.int64()).to_numpy()
    following = local.astype("datetime64[us]").astype(f"datetime64[{unit}]") + 1
    after = following.astype("datetime64[us]").astype(np.int64)
    if zone != "UTC":
        known = zones.in_utc(pa.array(after).view(zones.LOCAL), zone)
        after = known.cast(pa.int64()).to_numpy()
    ends: Ints = after - 1
    return ends


@lru_cache(maxsize=1024)
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    parts = [".*".join(re.escape(part) for part in p.split("*")) for p in patterns]
    return re.compile("|".join(parts), re.DOTALL)


def matching(codes: Sequence[str], patterns: Sequence[str]) -> Flags:
    """Which codes fit one of the patterns: exact, or with ``*`` for anything.

    A code that has an answer is written ``code=answer``. A pattern with ``=`` means the whole; one
    without means the code, whatever the answer, unless that says no or leaves it open:
    ``LOINC//94500-6`` fits ``LOINC//94500-6=positive`` and not ``LOINC//94500-6=negative``. ``*``
    alone fits all.
    """
    if not patterns or "*" in patterns:
        return np.full(len(codes), "*" in patterns)
    whole = tuple(p for p in patterns if ANSWER in p)
    plain = tuple(p for p in patterns if ANSWER not in p)
    if not any(ANSWER in code for code in codes):
        return _fitting(codes, patterns)
    asked = [_asked(code) for code in codes]
    return _fitting(codes, whole) | _fitting(asked, plain)


def _asked(code: str) -> str:
    """The code without its answer; nothing where that does not say yes."""
    asked, _, answer = code.partition(ANSWER)
    return "" if answer in UNASSERTED else asked


def _fitting(codes: Sequence[str], patterns: Sequence[str]) -> Flags:
    out = np.zeros(len(codes), bool)
    exact = {p for p in patterns if "*" not in p}
    loose = tuple(p for p in patterns if "*" in p)
    if loose:
        fits = _expression(loose).fullmatch
        out[:] = [code in exact or fits(code) is not None for code in codes]
    elif exact:
        out[:] = [code in exact for code in codes]
    return out


def looked_up(flags: np.ndarray, positions: npt.NDArray[np.int32]) -> np.ndarray:
    """``flags`` of each row's position; positions of -1 (null) give the first flag's zero."""
    if not len(flags):
        return np.zeros(len(positions), flags.dtype)
    found = flags[positions]
    if len(positions) and positions.min() < 0:
        found[positions < 0] = np.zeros((), flags.dtype)
    return found


def patients(subject: Ints) -> tuple[Ints, Ints]:
    """The distinct subjects (p,) of sorted rows, and where each one's rows begin (p + 1,)."""
    if not len(subject):
        return subject, np.zeros(1, np.int64)
    begins = np.flatnonzero(subject[1:] != subject[:-1]) + 1
    starts = np.concatenate([[0], begins, [len(subject)]])
    return subject[starts[:-1]], starts


def located(subject: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """For each wanted subject, the first and one past the last of its rows (equal: none)."""
    known, starts = patients(subject)
    if not len(known):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found = known[at] == wanted
    return np.where(found, starts[at], 0), np.where(found, starts[at + 1], 0)


def bisect(time: Ints, low: Ints, high: Ints, moment: Ints, *, after: bool = False) -> Ints:
    """For each i, the first row in [low, high) with time >= moment (``after``: > moment).

    ``time`` ascends within each [low, high).
    """
    if len(low) <= 8:
        side: Literal["left", "right"] = "right" if after else "left"
        found = [
            begin + np.searchsorted(time[begin:end], when, side)
            for begin, end, when in zip(low, high, moment, strict=True)
        ]
        return np.array(found, np.int64)
    low, high, last = low.copy(), high.copy(), len(time) - 1
    for _ in range(int((high - low).max()).bit_length()):
        middle = (low + high) >> 1
        here = time[np.minimum(middle, last)]
        right = (here <= moment if after else here < moment) & (middle < high)
        low = np.where(right, middle + 1, low)
        high = np.where(right, high, middle)
    return low
