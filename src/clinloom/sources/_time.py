"""Times as sources write them, in ISO 8601, and the zones of those that name none.

Where only a day, a month or a year is told, a fact is known at its end, in the zone of its source,
and may have happened from its begin on; a birth alone is the begin of its day, whatever the zone,
for ages are counted on the calendar.

A time that cannot be read so is not guessed: it stays as text for the cleaning to read or refuse,
with the zone that it would be of.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import zones
from clinloom.events import DAY, period_ends
from clinloom.tables import BIRTH, TIME
from clinloom.zones import LOCAL

DATE = len("2024-03-05")
UNITS: dict[int, Literal["D", "M", "Y"]] = {DATE: "D", len("2024-03"): "M", len("2024"): "Y"}
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
YEAR_ONE = -62_135_596_800_000_000  # the first microsecond that Python's calendar knows
FEW = 4  # distinct texts, up to which none of the steps over arrays pays
ASSUMED = "UTC"  # the zone of times of which neither the data nor the study tell one
OFFSET = r":.*(Z|[+-]\d\d(:?\d\d)?)$"
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
    sure = pc.greater(pc.binary_length(texts), DATE)  # dates aside all are mostly instants
    found = _cast(pc.if_else(sure, texts, None), TIME, space)
    if found is None:
        sure = pc.match_substring_regex(texts, INSTANT)
        found = pc.if_else(sure, texts, None).cast(TIME)
    others = pc.indices_nonzero(pc.invert(sure)).to_numpy()
    rest = _distinct(texts.take(pa.array(others)), zone, space)
    begin = None if rest.begin is None else _among(pa.nulls(len(texts), TIME), others, rest.begin)
    text = _among(pa.nulls(len(texts), pa.string()), others, rest.text)
    return Times(_among(found, others, rest.time), text, begin)


def _among(values: pa.Array, rows: np.ndarray, others: pa.Array) -> pa.Array:
    """The values, others in these rows."""
    if others.null_count == len(others):
        return values
    places = np.zeros(len(values), bool)
    places[rows] = True
    return pc.replace_with_mask(values, pa.array(places), others)


def _distinct(texts: pa.Array, zone: str, space: bool) -> Times:
    """As ``instants``, each distinct text once."""
    if len(texts) <= FEW and pa.types.is_string(texts.type):
        return _each(texts, zone, space)
    coded = as_texts(texts)
    values = coded.dictionary
    if len(values) <= FEW:
        return _few(coded, zone, space)
    found = _at_once(values, zone, space)
    if found is None:
        found = _mixed(values, zone, space)
    length = pc.binary_length(values)
    whole = pc.less_equal(length, DATE).fill_null(False)
    if not pc.any(whole).as_py():
        return answered(coded, found, zone)
    ends = found
    for written, unit in UNITS.items():
        rows = pc.and_(pc.equal(length, written), pc.is_valid(found)).fill_null(False)
        if not rows.true_count:
            continue
        ends = pc.replace_with_mask(ends, rows, last_moments(found.filter(rows), unit, zone))
    begins = pc.if_else(whole, found, pa.scalar(None, TIME))
    return answered(coded, ends, zone, begins)


def _few(coded: pa.DictionaryArray, zone: str, space: bool) -> Times:
    """As ``_distinct``, without the steps over arrays, which would not pay."""
    found = _each(coded.dictionary, zone, space)
    return answered(coded, found.time, zone, found.begin)


def _each(texts: pa.Array, zone: str, space: bool) -> Times:
    """As ``_distinct``, one text after the other."""
    found: list[int | None] = []
    begins: list[int | None] = []
    unread: list[str | None] = []
    for given in texts.to_pylist():
        text = (given or "").strip()
        time = iso(text, zone=zone, space=space)
        unread.append(f"{text}{mark(zone)}" if text and time is None else None)
        unit = UNITS.get(len(text)) if time is not None else None
        begins.append(time if unit is not None else None)
        if time is not None and unit is not None:
            time = int(period_ends(np.array([time]), unit, zone)[0])
        found.append(time)
    begin = pa.array(begins, TIME) if any(begin is not None for begin in begins) else None
    return Times(pa.array(found, TIME), pa.array(unread, pa.string()), begin)


def dated(found: Times, code: pa.DictionaryArray, zone: str = "UTC") -> Times:
    """The times of events with these codes; a birth of which a date is told begins that date.

    At midnight UTC, whatever the zone: ages are counted on the calendar.
    """
    if found.begin is None or (birth := pc.index(code.dictionary, BIRTH).as_py()) < 0:
        return found
    born = pc.and_(pc.equal(code.indices, birth), pc.is_valid(found.begin)).fill_null(False)
    days = zones.in_zone(found.begin.filter(born), zone).view(TIME)
    begin = pc.if_else(born, pa.scalar(None, TIME), found.begin)
    return Times(pc.replace_with_mask(found.time, born, days), found.text, begin)


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


def last_moments(begins: pa.Array, unit: Literal["D", "M", "Y"], zone: str) -> pa.Array:
    """The ends of the periods; null where there is none."""
    ends = period_ends(begins.cast(pa.int64()).fill_null(0).to_numpy(), unit, zone)
    return pc.if_else(begins.is_valid(), pa.array(ends).cast(TIME), pa.scalar(None, TIME))


def _at_once(values: pa.Array, zone: str, space: bool) -> pa.Array | None:
    """All at once, where all have an offset or none has; None where one cannot be read so."""
    found = _cast(values, TIME, space)
    if found is None:
        found = _cast(values, LOCAL, space)
        found = None if found is None else in_utc(found, zone)
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
    if earliest is not None and earliest < YEAR_ONE + DAY:
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


def answered(
    coded: pa.DictionaryArray, found: pa.Array, zone: str = "UTC", begins: pa.Array | None = None
) -> Times:
    """The times of all rows from those of the distinct texts; what was not read stays as text."""
    time = found.take(coded.indices)
    begin = None if begins is None else begins.take(coded.indices)
    if not found.null_count:
        return Times(time, pa.nulls(len(coded), pa.string()), begin)
    unread = pc.if_else(pc.is_null(found), coded.dictionary, pa.scalar(None, pa.string()))
    unread = pc.binary_join_element_wise(unread, mark(zone), "")
    return Times(time, unread.take(coded.indices), begin)


def as_texts(column: pa.Array) -> pa.DictionaryArray:
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


def in_utc(found: pa.Array, zone: str) -> pa.Array:
    """Timestamps or dates of any unit as microseconds UTC."""
    if pa.types.is_timestamp(found.type) and found.type.tz is not None:
        return found.cast(TIME, safe=False)
    return zones.in_utc(found.cast(LOCAL, safe=False), zone)


def mark(zone: str) -> str:
    """What follows a time that could not be read, for the cleaning: its zone, where not UTC."""
    return "" if zone == "UTC" else f"[{zone}]"


def utc(moment: dt.datetime, zone: str) -> dt.datetime:
    """The moment in UTC; one without an offset is ``zone``'s."""
    if moment.tzinfo is not None:
        return moment.astimezone(dt.UTC)
    if zone == "UTC":
        return moment.replace(tzinfo=dt.UTC)
    local: dt.datetime = in_utc(pa.array([moment], LOCAL), zone)[0].as_py().astimezone(dt.UTC)
    return local
