"""Times as the study declares them: a column's form, an offset from an origin, one moment for all.

A time of another form than the declared one is refused; where none is declared, it is ISO 8601.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from clinloom.sources._time import (
    ASSUMED,
    EPOCH,
    YEAR_ONE,
    Times,
    answered,
    as_texts,
    in_utc,
    instants,
    last_moments,
    unzoned,
    utc,
)
from clinloom.study import Model, Zone
from clinloom.tables import TIME

YEAR_LAST = 253_402_300_799_999_999  # the last microsecond that Python's calendar knows
MICROSECONDS = {
    "days": 86_400_000_000,
    "hours": 3_600_000_000,
    "minutes": 60_000_000,
    "seconds": 1_000_000,
}
CLOCK = re.compile(r"(-?)(\d{1,6}):([0-5]\d)(?::([0-5]\d))?", re.ASCII)


class TimeSpec(Model):
    """Where an event's time stands: in a column, at one moment for all, or nowhere (static)."""

    column: str | None = Field(default=None, description="the column that holds it")
    format: str | None = Field(default=None, description="as in strptime; none: ISO 8601")
    offset: Literal["HH:MM", "days", "hours", "minutes", "seconds"] | None = Field(
        default=None,
        description="the column counts from `origin`; one of a duration's type tells its own unit",
    )
    origin: dt.datetime | None = Field(default=None, description="what offsets count from")
    zone: Zone | None = Field(
        default=None,
        description="IANA time zone of times that name none; none: UTC, which is counted and said",
    )
    at: dt.datetime | None = Field(default=None, description="the same moment for every event")
    static: bool = Field(default=False, description="true: known at all times, without a time")
    empty: Literal["refused", "static"] = Field(
        default="refused",
        description="what an event without a time is; `static`: known at all times, as in MEDS",
    )

    @model_validator(mode="after")
    def _one(self) -> TimeSpec:
        if (self.column is not None) + (self.at is not None) + self.static != 1:
            raise ValueError("give one of `column`, `at` and `static: true`")
        if (self.offset is None) != (self.origin is None):
            raise ValueError("`offset` and `origin` go together")
        if self.column is None and (self.offset or self.format):
            raise ValueError("`format` and `offset` say how to read `column`")
        if self.empty == "static" and self.column is None:
            raise ValueError("`empty` says what an empty cell of `column` is")
        if self.offset and self.format:
            raise ValueError("give `format` or `offset`, not both")
        return self

    @property
    def due(self) -> bool:
        """Whether an event without a time is none."""
        return not self.static and self.empty == "refused"

    @property
    def local(self) -> bool:
        """Whether the study says that times are written without a zone, and not of which."""
        return self.zone is None and self.format is not None and "%z" not in self.format.lower()

    @property
    def clock(self) -> str:
        """The zone of times that name none."""
        return self.zone or ASSUMED

    @property
    def declared(self) -> bool:
        """Whether the study says how times are written: what is written otherwise is none."""
        return self.format is not None or self.offset is not None


def times(spec: TimeSpec, column: pa.Array | None, rows: int) -> Times:
    """The times of ``rows`` events. ``column``: the column that ``spec`` names, of any type.

    A null in the column gives a null time without text: the record has no time.
    """
    nothing = pa.nulls(rows, pa.string())
    if spec.at is not None:
        return Times(pa.repeat(pa.scalar(utc(spec.at, spec.clock), TIME), rows), nothing)
    if spec.static or column is None:
        return Times(pa.nulls(rows, TIME), nothing)
    if spec.offset is not None and spec.origin is not None:
        origin = (utc(spec.origin, spec.clock) - EPOCH) // dt.timedelta(microseconds=1)
        if pa.types.is_duration(column.type):
            return _since(origin, column)
        if spec.offset == "HH:MM":
            return _each(column, lambda text: _plus(origin, _clock(text)))
        scale = MICROSECONDS[spec.offset]
        return _each(column, lambda text: _plus(origin, _count(text, scale)))
    if pa.types.is_date(column.type):
        begins = in_utc(column, spec.clock)
        return Times(last_moments(begins, "D", spec.clock), nothing, begins)
    if pa.types.is_timestamp(column.type):
        return Times(in_utc(column, spec.clock), nothing)
    if spec.format is not None:
        return _formatted(column, spec.format, spec.clock)
    return instants(column, zone=spec.clock, space=True)


def zoneless(spec: TimeSpec, column: pa.Array | None) -> pa.Array | None:
    """Which cells tell a time or a date without its zone, where the study tells none either.

    None: none of them. ``column``: the one that ``spec`` names, of any type.
    """
    if spec.zone is not None or spec.offset is not None or column is None:
        return None
    if pa.types.is_timestamp(column.type):
        return column.is_valid() if column.type.tz is None else None
    if pa.types.is_date(column.type):
        return column.is_valid()
    return unzoned(column) if spec.format is None or spec.local else None


def _since(origin: int, column: pa.Array) -> Times:
    """A column of durations from ``origin``; what leads beyond the calendar stays as text."""
    since = column.cast(pa.duration("us"), safe=False).cast(pa.int64())
    low, high = YEAR_ONE - origin, YEAR_LAST - origin
    there = pc.and_(pc.greater_equal(since, low), pc.less_equal(since, high))
    time = pc.if_else(there, pc.add(since, origin), pa.scalar(None, pa.int64())).cast(TIME)
    return Times(time, pc.if_else(there, pa.scalar(None, pa.string()), since.cast(pa.string())))


def _formatted(column: pa.Array, form: str, zone: str) -> Times:
    """Times in a strptime format: Arrow's reader where it agrees with itself, else Python's.

    One without an hour is a day, a month or a year, and known at its end.
    """
    coded = as_texts(column)
    values = coded.dictionary
    out: list[int | None] = [None] * len(values)
    if not {"%f", "%z", "%Z"} & set(re.findall("%.", form)):
        found = pc.strptime(values, format=form, unit="us", error_is_null=True)
        same = pc.equal(pc.strftime(found.cast(pa.timestamp("s")), format=form), values)
        if pc.all(same.fill_null(False)).as_py():
            return _whole(coded, in_utc(found, zone), form, zone)
    for number, text in enumerate(values.to_pylist()):
        try:
            read = dt.datetime.strptime(text, form)  # noqa: DTZ007
            out[number] = (utc(read, zone) - EPOCH) // dt.timedelta(microseconds=1)
        except (ValueError, OverflowError):
            continue
    return _whole(coded, pa.array(out, TIME), form, zone)


def _whole(coded: pa.DictionaryArray, begins: pa.Array, form: str, zone: str) -> Times:
    """The answer for times in a format: by what it tells least."""
    told = set(re.findall("%-?(.)", form))
    if told & set("HIMSfcXTRrs"):
        return answered(coded, begins)
    unit: Literal["D", "M", "Y"] = "Y" if told <= set("YyGCz") else "D"
    unit = "M" if told & set("mbBh") and not told & set("dejDFxuwUWV") else unit
    return answered(coded, last_moments(begins, unit, zone), begins=begins)


def _each(column: pa.Array, read: Callable[[str], int | None]) -> Times:
    """Each distinct text once, through ``read``."""
    coded = as_texts(column)
    return answered(coded, pa.array([read(t) for t in coded.dictionary.to_pylist()], TIME))


def _clock(text: str) -> int | None:
    found = CLOCK.fullmatch(text)
    if not found:
        return None
    seconds = int(found[2]) * 3600 + int(found[3]) * 60 + int(found[4] or 0)
    return seconds * (-1_000_000 if found[1] else 1_000_000)


def _count(text: str, scale: int) -> int | None:
    try:
        return None if "_" in text else round(float(text) * scale)
    except (ValueError, OverflowError):
        return None


def _plus(origin: int, offset: int | None) -> int | None:
    """The moment, where the calendar has it."""
    if offset is None or not YEAR_ONE <= origin + offset <= YEAR_LAST:
        return None
    return origin + offset
