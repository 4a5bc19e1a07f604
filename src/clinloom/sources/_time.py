"""Times as sources write them: ISO 8601, a declared format, or an offset from an origin.

Where only a day, a month or a year is told, a fact is known at its end, in the zone of its source,
and may have happened from its begin on; a birth alone is the begin of its day, whatever the zone,
for ages are counted on the calendar.

A time that cannot be read so is not guessed: it stays as text for the cleaning to read or refuse,
with the zone that it would be of; where the study declares the form, it is refused.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from clinloom.events import period_ends
from clinloom.study import Model, Zone
from clinloom.tables import BIRTH, TIME

LOCAL = pa.timestamp("us")
DATE = len("2024-03-05")
UNITS: dict[int, Literal["D", "M", "Y"]] = {DATE: "D", len("2024-03"): "M", len("2024"): "Y"}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
YEAR_ONE = -62_135_596_800_000_000  # the first microsecond that Python's calendar knows
YEAR_LAST = 253_402_300_799_999_999  # and the last
ASSUMED = "UTC"  # the zone of times of which neither the data nor the study tell one
OFFSET = r":.*(Z|[+-]\d\d(:?\d\d)?)$"
MICROSECONDS = {
    "days": 86_400_000_000,
    "hours": 3_600_000_000,
    "minutes": 60_000_000,
    "seconds": 1_000_000,
}
ISO = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:([T ])(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?"
    r"(Z|[+-]\d\d(?::?\d\d)?)?)?)?)?",
    re.ASCII,
)
# An instant that Arrow reads as it is: what is left is February 29th, and what may be no time.
INSTANT = (
    r"^[12]\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    r"|02-(?:0[1-9]|1\d|2[0-8]))T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?"
    r"(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)$"
)
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


class Times(NamedTuple):
    """``time``: timestamps; ``text``: what could not be read, else null.

    ``begin``: where ``time`` is the end of a period, when that began, else null; None for no row.
    """

    time: pa.Array
    text: pa.Array
    begin: pa.Array | None = None

    @property
    def earlier(self) -> pa.Array:
        """By how many microseconds before its end each period began; null where there is none."""
        if self.begin is None:
            return pa.nulls(len(self.time), pa.int64())
        return pc.subtract(self.time.cast(pa.int64()), self.begin.cast(pa.int64()))


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
            since = column.cast(pa.duration("us"), safe=False).cast(pa.int64())
            return Times(pc.add(since, origin).cast(TIME), nothing)
        if spec.offset == "HH:MM":
            return _each(column, lambda text: _plus(origin, _clock(text)))
        scale = MICROSECONDS[spec.offset]
        return _each(column, lambda text: _plus(origin, _count(text, scale)))
    if pa.types.is_date(column.type):
        begins = _stamps(column, spec.clock)
        return Times(_ends(begins, "D", spec.clock), nothing, begins)
    if pa.types.is_timestamp(column.type):
        return Times(_stamps(column, spec.clock), nothing)
    if spec.format is not None:
        return _formatted(column, spec.format, spec.clock)
    return instants(column, zone=spec.clock, space=True)


def instants(texts: pa.Array, *, zone: str = "UTC", space: bool = False) -> Times:
    """ISO 8601 times as FHIR writes them; a date, month or year is the end of its period.

    ``space``: also with a space for the T. Times without an offset are ``zone``'s.
    (FHIR R4, 2.24.0.1: date, dateTime, instant.)
    """
    if not pa.types.is_string(texts.type):
        return _distinct(texts, zone, space)
    whole = _cast(texts, TIME, space)  # nearly all differ
    if whole is not None:
        return Times(whole, pa.nulls(len(texts), pa.string()))
    sure = pc.match_substring_regex(texts, INSTANT).fill_null(False)
    found = pc.if_else(sure, texts, None).cast(TIME)
    rest = _distinct(pc.if_else(sure, None, texts), zone, space)
    return Times(pc.coalesce(found, rest.time), rest.text, rest.begin)


def _distinct(texts: pa.Array, zone: str, space: bool) -> Times:
    """As ``instants``, each distinct text once."""
    coded = _coded(texts)
    values = coded.dictionary
    found = _at_once(values, zone, space)
    if found is None:
        found = _mixed(values, zone, space)
    length = pc.binary_length(values)
    whole = pc.less_equal(length, DATE).fill_null(False)
    if not pc.any(whole).as_py():
        return _answer(coded, found, zone)
    ends = found
    for written, unit in UNITS.items():
        rows = pc.and_(pc.equal(length, written), pc.is_valid(found)).fill_null(False)
        ends = pc.replace_with_mask(ends, rows, _ends(found.filter(rows), unit, zone))
    begins = pc.if_else(whole, found, pa.scalar(None, TIME))
    return _answer(coded, ends, zone, begins)


def dated(found: Times, code: pa.DictionaryArray, zone: str = "UTC") -> Times:
    """The times of events with these codes; a birth of which a date is told begins that date.

    At midnight UTC, whatever the zone: ages are counted on the calendar.
    """
    if found.begin is None or (birth := pc.index(code.dictionary, BIRTH).as_py()) < 0:
        return found
    born = pc.and_(pc.equal(code.indices, birth), pc.is_valid(found.begin)).fill_null(False)
    there = found.begin.filter(born).cast(pa.timestamp("us", tz=zone))
    days = pc.local_timestamp(there).cast(pa.int64()).cast(TIME)
    begin = pc.if_else(born, pa.scalar(None, TIME), found.begin)
    return Times(pc.replace_with_mask(found.time, born, days), found.text, begin)


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


def unzoned(texts: pa.Array) -> pa.Array:
    """Which of the texts, as sources write times, name no zone; null where there is none."""
    if pa.types.is_dictionary(texts.type):
        return unzoned(texts.dictionary).take(texts.indices)
    trimmed = pc.utf8_trim_whitespace(texts.cast(pa.string()))
    named = pc.ends_with(trimmed, "Z")
    if not pc.all(named).as_py():
        named = pc.or_(named, pc.match_substring_regex(trimmed, OFFSET))
    return pc.if_else(pc.equal(trimmed, ""), False, pc.invert(named))


def assumed(rows: pa.Array | None, code: pa.DictionaryArray) -> int:
    """How many of these rows are of a zone that is assumed: a birth is a day in any zone."""
    if rows is None:
        return 0
    if (birth := pc.index(code.dictionary, BIRTH).as_py()) >= 0:
        rows = pc.and_(rows, pc.not_equal(code.indices, birth))
    return pc.sum(rows).as_py() or 0


def _ends(begins: pa.Array, unit: Literal["D", "M", "Y"], zone: str) -> pa.Array:
    """The ends of the periods; null where there is none."""
    ends = period_ends(begins.cast(pa.int64()).fill_null(0).to_numpy(), unit, zone)
    return pc.if_else(begins.is_valid(), pa.array(ends).cast(TIME), pa.scalar(None, TIME))


def _at_once(values: pa.Array, zone: str, space: bool) -> pa.Array | None:
    """All at once, where all have an offset or none has; None where one cannot be read so."""
    found = _cast(values, TIME, space)
    if found is None:
        found = _cast(values, LOCAL, space)
        found = None if found is None else _stamps(found, zone)
    return found


def _cast(values: pa.Array, kind: pa.DataType, space: bool) -> pa.Array | None:
    """Arrow's reading of times, all of which have an offset or none; None where it is another."""
    try:
        found = values.cast(kind)
    except pa.ArrowInvalid:
        return None
    if not space and pc.any(pc.match_substring(values, " ")).as_py():
        return None
    earliest = pc.min(found.cast(pa.int64())).as_py()
    if earliest is not None and earliest < YEAR_ONE + MICROSECONDS["days"]:
        return None
    return found


def _mixed(values: pa.Array, zone: str, space: bool) -> pa.Array:
    """Part by part: with an offset, without, and what is left one by one."""
    offset = pc.match_substring_regex(values, OFFSET)
    full = pc.match_substring_regex(values, r"^\d{4}-\d\d-\d\d")
    out = np.full(len(values), np.iinfo(np.int64).min)
    for part in (offset, pc.and_(full, pc.invert(offset)), pc.invert(pc.or_(full, offset))):
        rows = np.flatnonzero(part.to_numpy(zero_copy_only=False))
        some = values.take(pa.array(rows))
        found = _at_once(some, zone, space) if len(rows) else None
        if found is None:
            found = pa.array([iso(text, zone=zone, space=space) for text in some.to_pylist()], TIME)
        out[rows] = found.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
    return pa.array(out, mask=out == np.iinfo(np.int64).min).cast(TIME)


def iso(text: str | None, *, zone: str = "UTC", space: bool = False) -> int | None:
    """One ISO 8601 time in microseconds since the epoch, or None where it is not one."""
    found = ISO.fullmatch(text or "")
    if not found or (found[4] == " " and not space):
        return None
    year, month, day = int(found[1]), int(found[2] or 1), int(found[3] or 1)
    hour, minute, second = (int(found[n] or 0) for n in (5, 6, 7))
    fraction = int((found[8] or "").ljust(6, "0")[:6])
    try:
        local = dt.datetime(year, month, day, hour, minute, second, fraction)  # noqa: DTZ001
        known = local.replace(tzinfo=dt.UTC) if found[9] else utc(local, zone)
        shift = 0
        if found[9] not in (None, "Z"):
            hours, minutes = int(found[9][1:3]), int(found[9][3:].lstrip(":") or 0)
            if hours > 23 or minutes > 59:
                return None
            shift = (hours * 60 + minutes) * 60_000_000 * (-1 if found[9][0] == "-" else 1)
        return (known - EPOCH) // dt.timedelta(microseconds=1) - shift
    except (ValueError, OverflowError):
        return None


def _formatted(column: pa.Array, form: str, zone: str) -> Times:
    """Times in a strptime format: Arrow's reader where it agrees with itself, else Python's.

    One without an hour is a day, a month or a year, and known at its end.
    """
    coded = _coded(column)
    values = coded.dictionary
    out: list[int | None] = [None] * len(values)
    if not {"%f", "%z", "%Z"} & set(re.findall("%.", form)):
        found = pc.strptime(values, format=form, unit="us", error_is_null=True)
        same = pc.equal(pc.strftime(found.cast(pa.timestamp("s")), format=form), values)
        if pc.all(same.fill_null(False)).as_py():
            return _whole(coded, _stamps(found, zone), form, zone)
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
        return _answer(coded, begins)
    unit: Literal["D", "M", "Y"] = "Y" if told <= set("YyGCz") else "D"
    unit = "M" if told & set("mbBh") and not told & set("dejDFxuwUWV") else unit
    return _answer(coded, _ends(begins, unit, zone), begins=begins)


def _each(column: pa.Array, read: Callable[[str], int | None]) -> Times:
    """Each distinct text once, through ``read``."""
    coded = _coded(column)
    return _answer(coded, pa.array([read(t) for t in coded.dictionary.to_pylist()], TIME))


def _answer(
    coded: pa.DictionaryArray, found: pa.Array, zone: str = "UTC", begins: pa.Array | None = None
) -> Times:
    time = found.take(coded.indices)
    begin = None if begins is None else begins.take(coded.indices)
    if not found.null_count:
        return Times(time, pa.nulls(len(coded), pa.string()), begin)
    unread = pc.if_else(pc.is_null(found), coded.dictionary, pa.scalar(None, pa.string()))
    unread = pc.binary_join_element_wise(unread, mark(zone), "")
    return Times(time, unread.take(coded.indices), begin)


def _coded(column: pa.Array) -> pa.DictionaryArray:
    """The column as a dictionary of texts, outer blanks removed, empty ones null."""
    if not pa.types.is_dictionary(column.type):
        if not pa.types.is_string(column.type):
            column = column.cast(pa.string())
        column = column.dictionary_encode()
    values = column.dictionary
    if values.type != pa.string():
        values = values.cast(pa.string())
    values = pc.utf8_trim_whitespace(values)
    empty = pc.equal(values, "")
    if pc.any(empty).as_py():
        indices = pc.if_else(empty.take(column.indices), None, column.indices)
        return pa.DictionaryArray.from_arrays(indices, values)
    return pa.DictionaryArray.from_arrays(column.indices, values)


def _stamps(found: pa.Array, zone: str) -> pa.Array:
    """Timestamps or dates of any unit as microseconds UTC."""
    if pa.types.is_timestamp(found.type) and found.type.tz is not None:
        return found.cast(TIME, safe=False)
    local = found.cast(LOCAL, safe=False)
    return pc.assume_timezone(local, zone, ambiguous="earliest", nonexistent="latest").cast(TIME)


def mark(zone: str) -> str:
    """What follows a time that could not be read, for the cleaning: its zone, where not UTC."""
    return "" if zone == "UTC" else f"[{zone}]"


def utc(moment: dt.datetime, zone: str) -> dt.datetime:
    """The moment in UTC; one without an offset is ``zone``'s."""
    if moment.tzinfo is not None:
        return moment.astimezone(dt.UTC)
    if zone == "UTC":
        return moment.replace(tzinfo=dt.UTC)
    local: dt.datetime = _stamps(pa.array([moment], LOCAL), zone)[0].as_py().astimezone(dt.UTC)
    return local


def _clock(text: str) -> int | None:
    found = CLOCK.fullmatch(text)
    if not found:
        return None
    seconds = int(found[2]) * 3600 + int(found[3]) * 60 + int(found[4] or 0)
    return seconds * (-1_000_000 if found[1] else 1_000_000)


def _count(text: str, scale: int) -> int | None:
    try:
        return round(float(text) * scale)
    except (ValueError, OverflowError):
        return None


def _plus(origin: int, offset: int | None) -> int | None:
    """The moment, where the calendar has it."""
    if offset is None or not YEAR_ONE <= origin + offset <= YEAR_LAST:
        return None
    return origin + offset
