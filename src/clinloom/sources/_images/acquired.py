"""When a DICOM image was acquired."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from clinloom.sources._images.header import text
from clinloom.sources._time import EPOCH, mark, utc

TIMES = ("Acquisition", "Content", "Series", "Study")


def acquired(dataset: Any, zone: str) -> tuple[int | None, str | None]:
    """When the image was acquired: (microseconds since 1970 UTC, or None; a text not understood).

    AcquisitionDateTime (0008,002A), else the first date with its time of Acquisition, Content,
    Series and Study, else the first date alone; ``zone``'s unless the value or
    TimezoneOffsetFromUTC (0008,0201) says otherwise.
    """
    offset = text(dataset, "TimezoneOffsetFromUTC") or ""
    pairs = [(text(dataset, f"{n}Date"), text(dataset, f"{n}Time")) for n in TIMES]
    written = [text(dataset, "AcquisitionDateTime")]
    written += [d.replace(".", "") + t.replace(":", "") for d, t in pairs if d and t]
    written += [d.replace(".", "") for d, _ in pairs if d]
    texts = [one for one in written if one]
    for one in texts:
        time = _microseconds(one, offset, zone)
        if time is not None:
            return time, None
    if not texts:
        return None, None
    return None, texts[0] + ("" if offset else mark(zone))


_MOMENT = re.compile(
    r"(\d{4})(\d{2})(\d{2})(?:(\d{2})(?:(\d{2})(?:(\d{2})(?:\.(\d{1,6}))?)?)?)?([+-]\d{4})?"
)


def _microseconds(text: str, offset: str, zone: str) -> int | None:
    """A DICOM DT (PS3.5 table 6.2-1) down to the day or finer; None where it is not one."""
    found = _MOMENT.fullmatch(text)
    if not found:
        return None
    *parts, fraction, own = found.groups()
    year, month, day, hour, minute, second = (int(p or 0) for p in parts)
    east = re.fullmatch(r"([+-])(\d{2})(\d{2})", own or offset or "+0000")
    if not east:
        return None
    try:
        local = dt.datetime(year, month, day, hour, minute, min(second, 59))  # noqa: DTZ001
    except ValueError:
        return None
    shift = dt.timedelta(hours=int(east[2]), minutes=int(east[3]))
    known = utc(local, "UTC" if own or offset else zone)
    moment = known - shift if east[1] == "+" else known + shift
    micro = int((fraction or "0").ljust(6, "0"))
    return (moment - EPOCH) // dt.timedelta(microseconds=1) + micro
