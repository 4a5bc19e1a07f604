"""When a DICOM image was acquired, and so could be known.

DICOM PS3.3: General Image, Series and Study (C.7.6.1, C.7.3.1, C.7.2.1), SOP Common (C.12.1); the
forms of dates and times: PS3.5 table 6.2-1.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, NamedTuple

from clinloom.events import DAY
from clinloom.sources._images.header import Refused, text
from clinloom.sources._time import EPOCH, mark, utc

YEARS = range(1901, 2300)  # 1900 and 2999 stand for none; shifted dates reach past 2200


class Told(NamedTuple):
    """The first and the last microsecond (since 1970, UTC) of what a level tells; one if exact."""

    begin: int
    end: int


def acquired(dataset: Any, zone: str, after: int = 0) -> tuple[int | None, str | None]:
    """When the image was known: (microseconds since 1970 UTC, or None; a text not understood).

    What the first of these levels tells: Acquisition, Content, Series, Study, Instance Creation;
    Content only within a day of Series or Study where one of them tells, for it is that of the
    reprocessing. A level's date and time stay together; a date without a time is known when its
    period ends, in ``zone`` unless the value or TimezoneOffsetFromUTC (0008,0201) says otherwise.
    ``after``: microseconds from the acquisition to the image's availability.

    Raises Refused: ``implausible_time`` where all years are outside of 1901 to 2299,
    ``invalid_date`` where ``after`` belongs to a text that is not understood.
    """
    read = _Reader(dataset, zone)
    found = read.level("Acquisition", "AcquisitionDateTime")
    if found is None:
        content, series, study = (read.level(n) for n in ("Content", "Series", "Study"))
        near = [other for other in (series, study) if other]
        if content and (not near or any(_near(content, other) for other in near)):
            found = content
        found = found or series or study or read.level("InstanceCreation")
    if found is not None:
        return found.end + after, None
    if read.implausible:
        raise Refused("implausible_time")
    if read.unread is not None and after:
        raise Refused("invalid_date")
    return None, read.unread


def zoned(dataset: Any) -> bool:
    """Whether the image names the zone of its times: in any way that ``acquired`` reads."""
    own = re.search(r"[+-]\d{4}$", text(dataset, "AcquisitionDateTime") or "")
    return bool(own or text(dataset, "TimezoneOffsetFromUTC"))


def _near(one: Told, other: Told) -> bool:
    return one.begin <= other.end + DAY and other.begin <= one.end + DAY


class _Reader:
    """Reads the levels of a data set; keeps the first text that it did not understand."""

    def __init__(self, dataset: Any, zone: str):
        self._dataset, self._zone = dataset, zone
        self._offset = text(dataset, "TimezoneOffsetFromUTC") or ""
        self.implausible = False
        self.unread: str | None = None

    def level(self, name: str, whole: str | None = None) -> Told | None:
        """What the level's date and time tell, or its ``whole`` date-time, the exacter of them."""
        date, time = (text(self._dataset, f"{name}{part}") for part in ("Date", "Time"))
        written = [text(self._dataset, whole)] if whole else []
        if date:
            date = date.replace(".", "")
            written += [date + (time or "").replace(":", ""), date]
        found = [told for one in written if one and (told := self._read(one))]
        texts = [one for one in written if one]
        if not found and texts and self.unread is None:
            self.unread = texts[0] + ("" if self._offset else mark(self._zone))
        return min(found, key=lambda told: told.end - told.begin, default=None)

    def _read(self, written: str) -> Told | None:
        found = told(written, self._offset, self._zone)
        if found and int(written[:4]) not in YEARS:
            self.implausible = True
            return None
        return found


_MOMENT = re.compile(
    r"(\d{4})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?)?)?)?"
    r"([+-]\d{4})?",
    re.ASCII,
)


def told(written: str, offset: str, zone: str) -> Told | None:
    """A DICOM DT: a moment, or the whole day, month or year; None where it is not one."""
    found = _MOMENT.fullmatch(written)
    if not found:
        return None
    *parts, fraction, own = found.groups()
    year, month, day, hour, minute, second = (int(p or 0) for p in parts)
    east = re.fullmatch(r"([+-])(\d{2})(\d{2})", own or offset or "+0000", re.ASCII)
    if not east:
        return None
    shift = dt.timedelta(hours=int(east[2]), minutes=int(east[3]))
    shift = -shift if east[1] == "-" else shift

    def since(local: dt.datetime) -> int:
        known = utc(local, "UTC" if own or offset else zone) - shift
        return (known - EPOCH) // dt.timedelta(microseconds=1)

    try:
        begins = dt.datetime(year, month or 1, day or 1, hour, minute, min(second, 59))  # noqa: DTZ001
        begin = since(begins) + int((fraction or "0").ljust(6, "0"))
        if parts[3] is not None:
            return Told(begin, begin)
        if parts[2] is not None:
            after = begins + dt.timedelta(days=1)
        else:
            after = dt.datetime(year + (month in (0, 12)), month % 12 + 1 if month else 1, 1)  # noqa: DTZ001
        return Told(begin, since(after) - 1)
    except (ValueError, OverflowError):
        return None
