"""Event times that a source wrote in no declared form: read by a list of formats, else refused."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from clinloom import events, zones
from clinloom import study as studies
from clinloom.clean._sheet import Sheet
from clinloom.study import RuleModel, Zone
from clinloom.tables import BIRTH

REQUIRES: str | None = None
ORDER = 10

CLOCKS = ("", " %H:%M", " %H:%M:%S")
MONTH_FIRST = tuple(f"%m/%d/%Y{clock}" for clock in CLOCKS)  # United States
DAY_FIRST = tuple(f"%d/%m/%Y{clock}" for clock in CLOCKS)
FORMATS = (  # which no other order of day and month can be
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y%m%d%H%M%S",  # HL7 v2.x, DTM
    "%Y%m%d%H%M%S%z",
    "%Y%m%d%H%M",
    "%Y%m%d",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y",
    "%d-%b-%Y %H:%M",
    "%d-%b-%Y",
)
ZONE = r"\[(?P<zone>[A-Za-z][A-Za-z0-9_+/-]*)\]$"  # of its source, which named none in the text
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DIGITS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
DIRECTIVES = {
    **{name: f"(?P<{name}>[0-9]{{{width}}})" for name, width in DIGITS.items()},
    "f": "(?P<f>[0-9]{1,6})",
    "b": f"(?P<b>(?i:{'|'.join(MONTHS)}))",
    "z": "(?P<z>Z|[+-][0-9]{2}:?[0-9]{2})",
}
LIMITS = {"Y": (1, 9999), "m": (1, 12), "d": (1, 31), "H": (0, 23), "M": (0, 59), "S": (0, 59)}


class Options(RuleModel):
    """How times in free form are read."""

    formats: tuple[str, ...] | None = Field(
        default=None,
        description="tried in this order, and no others; none: the usual ones",
    )
    order: Literal["day", "month"] | None = Field(
        default=None,
        description="what stands first in dates like 03/05/2024; none: those that could be either"
        " are refused, the others read",
    )
    zone: Zone = Field(
        default="UTC", description="IANA time zone of times that name none, of sources without one"
    )

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for written in formats or ():
            expression(written)
        return formats

    @model_validator(mode="after")
    def _one(self) -> Options:
        if self.formats is not None and self.order is not None:
            raise ValueError("give `formats`, which tell the order, or `order`")
        return self


@lru_cache(maxsize=64)
def expression(written: str) -> str:
    """A strptime format as a regular expression with a group for each directive.

    Days, months and hours may lack their leading zero where a separator follows. Raises
    ValueError for a directive that is not read here.
    """
    out, at = "", 0
    for found in re.finditer("%(.)", written):
        name = found[1]
        if name not in DIRECTIVES:
            known = " ".join(f"%{d}" for d in DIRECTIVES)
            raise ValueError(f"'%{name}' in a date format is none of {known}")
        start, end = found.span()
        apart = written[end : end + 1] != "%" and (start < 2 or written[start - 2] != "%")
        part = DIRECTIVES[name]
        if apart and name in "mdH":
            part = part.replace("{2}", "{1,2}")
        out += re.escape(written[at:start]).replace("\\ ", " ") + part
        at = end
    if {"Y", "d"} - set(re.findall("%(.)", written)):
        raise ValueError(f"the date format '{written}' needs a year and a day")
    return "^" + out + re.escape(written[at:]) + "$"


def apply(sheet: Sheet, options: Options) -> None:
    """Read ``time_text``; ledger `date_format`, else refused: `invalid_date`, `ambiguous_date`.

    A date without an hour is known at the end of its day, and may have happened from its begin on;
    a birth is the begin of its day at midnight UTC, for ages are counted on the calendar.
    """
    text = sheet.column("time_text")
    if text.null_count == len(text):
        return
    present = events.valid(text)
    written = np.ones(sheet.rows, bool) if present is None else present
    rows = np.flatnonzero(written & (sheet.time == events.STATIC))
    if not len(rows):
        return
    left = pc.utf8_trim_whitespace(text.take(pa.array(rows)).cast(pa.string()))
    code, codes = sheet.code
    born = events.looked_up(events.matching(codes, (BIRTH,)), code[rows])
    read, begin, either = _read(left, born, options)
    good = read != events.STATIC
    if good.any():
        sheet.set_time(rows[good], read[good])
        wide = good & (begin < read)
        if wide.any():
            sheet.set_earlier(rows[wide], read[wide] - begin[wide])
        sheet.note(rows[good], rule="date_format", action="converted")
    sheet.reject(rows[either], "ambiguous_date", "time_text")
    sheet.reject(rows[~good & ~either], "invalid_date", "time_text")


def _read(
    text: pa.Array, born: np.ndarray, options: Options
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Microseconds (n,), when their day began, and which could be two days (n,).

    STATIC where a text is no time. ``born``: which are births.
    """
    marks = pc.struct_field(pc.extract_regex(text, ZONE), "zone")
    read, either = np.full(len(text), events.STATIC), np.zeros(len(text), bool)
    begin = read.copy()
    plain = pc.replace_substring_regex(text, ZONE, "")
    for zone in pc.unique(marks).to_pylist():
        same = pc.equal(marks, zone).fill_null(zone is None)
        rows = np.flatnonzero(same.to_numpy(zero_copy_only=False))
        try:
            where = studies.zone(zone or options.zone)
        except ValueError:
            continue  # no source's mark, but a part of what was written
        for some, there in ((rows[~born[rows]], where), (rows[born[rows]], "UTC")):
            if not len(some):
                continue
            begin[some], day, either[some] = _ordered(plain.take(pa.array(some)), options, there)
            read[some] = begin[some]
            days = some[day & ~born[some] & (begin[some] != events.STATIC)]
            read[days] = events.period_ends(begin[days], "D", where)
    return read, begin, either


def _ordered(
    text: pa.Array, options: Options, zone: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By the formats, then by day and month in the order that is told, or in the only possible.

    Microseconds, which are days without an hour, and which could be two days.
    """
    read, whole = parsed(text, FORMATS if options.formats is None else options.formats, zone)
    either = np.zeros(len(text), bool)
    rows = np.flatnonzero(read == events.STATIC)
    if options.formats is not None or not len(rows):
        return read, whole, either
    some = text.take(pa.array(rows))
    nothing = np.full(len(rows), events.STATIC), np.zeros(len(rows), bool)
    month, of_month = parsed(some, MONTH_FIRST, zone) if options.order != "day" else nothing
    day, of_day = parsed(some, DAY_FIRST, zone) if options.order != "month" else nothing
    either[rows] = (month != day) & (month != events.STATIC) & (day != events.STATIC)
    found = np.where(month == events.STATIC, day, month)
    read[rows] = np.where(either[rows], events.STATIC, found)
    whole[rows] = np.where(month == events.STATIC, of_day, of_month)
    return read, whole, either


def parsed(
    text: pa.Array, formats: tuple[str, ...], zone: str = "UTC"
) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds (n,) of texts by the first format that fits, and which are days without an
    hour; STATIC where none fits."""
    out = np.full(len(text), events.STATIC)
    whole = np.zeros(len(text), bool)
    todo = np.arange(len(text))
    for written in formats:
        if not len(todo):
            break
        fields = pc.extract_regex(text, expression(written))
        present = events.valid(fields)
        fits = np.arange(len(todo)) if present is None else np.flatnonzero(present)
        if not len(fits):
            continue
        moment = _moments(fields.take(pa.array(fits)), zone)
        out[todo[fits]] = moment
        whole[todo[fits]] = "%H" not in written
        missed = np.ones(len(todo), bool)
        missed[fits[moment != events.STATIC]] = False
        todo = todo[missed]
        text = text.filter(pa.array(missed))
    return out, whole


def _moments(fields: pa.StructArray, zone: str) -> np.ndarray:
    """Calendar fields as microseconds; STATIC where the calendar has no such moment."""
    names = {field.name for field in fields.type}
    sound = np.ones(len(fields), bool)
    part: dict[str, np.ndarray] = {}
    for name, (low, high) in LIMITS.items():
        if name in names:
            part[name] = fields.field(name).cast(pa.int64()).to_numpy()
            sound &= (part[name] >= low) & (part[name] <= high)
        else:
            part[name] = np.full(len(fields), low)
    if "b" in names:
        month = pc.index_in(pc.utf8_lower(fields.field("b")), pa.array(MONTHS))
        part["m"] = month.to_numpy().astype(np.int64) + 1
    month = (part["Y"] - 1970) * 12 + part["m"] - 1
    first = month.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    after = (month + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    sound &= part["d"] <= after - first
    seconds = (first + part["d"] - 1) * 86400 + part["H"] * 3600 + part["M"] * 60 + part["S"]
    moment = seconds * 1_000_000
    if "f" in names:
        moment += pc.utf8_rpad(fields.field("f"), 6, "0").cast(pa.int64()).to_numpy()
    if "z" in names:
        moment -= _offsets(fields.field("z"))
    elif zone != "UTC":
        known = zones.in_utc(pa.array(moment).view(zones.LOCAL), zone)
        moment = known.view(pa.int64()).to_numpy()
    return np.where(sound, moment, events.STATIC)


def _offsets(written: pa.Array) -> np.ndarray:
    """Microseconds east of Greenwich of ``Z``, ``+01:00``, ``-0500``."""
    plain = pc.replace_substring(pc.replace_substring(written, "Z", "+0000"), ":", "")
    hhmm = pc.utf8_slice_codeunits(plain, 1).cast(pa.int64()).to_numpy()
    sign = np.where(pc.starts_with(plain, "-").to_numpy(zero_copy_only=False), -1, 1)
    east: np.ndarray = sign * (hhmm // 100 * 60 + hhmm % 100) * 60_000_000
    return east
