"""Times that no patient can have: before birth, long after death, outside every calendar in use."""

from __future__ import annotations

import datetime as dt

import numpy as np
from pydantic import Field

from clinloom import events
from clinloom.clean._sheet import Sheet
from clinloom.events import DAY, Flags, Ints
from clinloom.study import MICROSECONDS, Duration, RuleModel

REQUIRES: str | None = None
ORDER = 15

BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
SEVERAL = 3  # facts against a birth or a death, and more than there are for it: that one is wrong
EVER = np.iinfo(np.int64).max


class Options(RuleModel):
    """Between what times facts of a patient can lie."""

    earliest: dt.date = Field(
        default=dt.date(1850, 1, 1), description="before this day nothing was recorded"
    )
    latest: dt.date = Field(
        default=dt.date(2300, 1, 1), description="from this day on nothing is; 9999 means `unknown`"
    )
    before_birth: Duration = Field(
        default=MICROSECONDS["d"],
        description="how long before a birth, which is told as a day, facts may lie",
    )
    after_death: Duration = Field(
        default=90 * MICROSECONDS["d"],
        description="how long after a death results and letters may still come",
    )
    oldest: float = Field(default=125, gt=0, description="years that nobody outlives")


def apply(sheet: Sheet, options: Options) -> None:
    """Refuse as `impossible_time`, `before_birth`, `after_death`; ``oldest`` is a time, too.

    Where at least three of a patient's facts, and more than half, contradict the birth or the
    death, it is that one that is refused: `impossible_birth`, `impossible_death`.
    """
    time = sheet.time
    timed = time != events.STATIC
    outside = ((time < _day(options.earliest)) & timed) | (time >= _day(options.latest))
    if outside.any():
        sheet.reject(np.flatnonzero(outside), "impossible_time")
    born, died = _rows(sheet, BIRTH, timed), _rows(sheet, DEATH, timed)
    if not len(born) and not len(died):
        return
    patients = _Patients(sheet, born, died)
    for _ in range(2):  # again, without births and deaths that proved wrong
        span = patients.span(options)
        low, high, last = (np.repeat(edge, patients.rows) for edge in span)
        early = timed & (time < low)
        if not early.any() and not (time > np.minimum(high, last)).any():
            return
        early, old, late = (f & sheet.kept for f in (early, time > high, time > last))
        late &= patients.others()
        if not patients.doubt(sheet, early | old, late, timed):
            break
    sheet.reject(np.flatnonzero(early), "before_birth")
    sheet.reject(np.flatnonzero(late), "after_death")
    sheet.reject(np.flatnonzero(old), "impossible_time")


class _Patients:
    """Births and deaths of the sheet's patients, the least birth and the latest death of each."""

    def __init__(self, sheet: Sheet, born: Ints, died: Ints):
        _, starts = events.patients(sheet.subject)
        self.starts, self.rows = starts, np.diff(starts)
        self._time = sheet.time
        self._events = {BIRTH: born, DEATH: died}

    def others(self) -> Flags:
        """All rows but births and deaths."""
        out = np.ones(len(self._time), bool)
        for rows in self._events.values():
            out[rows] = False
        return out

    def _patient(self, rows: Ints) -> Ints:
        return np.searchsorted(self.starts, rows, "right") - 1

    def span(self, options: Options) -> tuple[Ints, Ints, Ints]:
        """From when on facts may lie, until when by age, and until when by death (p,)."""
        size = len(self.rows)
        first, last = np.full(size, EVER), np.full(size, events.STATIC)
        born, died = self._events[BIRTH], self._events[DEATH]
        np.minimum.at(first, self._patient(born), self._time[born])
        np.maximum.at(last, self._patient(born), self._time[born])
        end = np.full(size, events.STATIC)
        np.maximum.at(end, self._patient(died), self._time[died])
        years = round(options.oldest * MICROSECONDS["y"])
        low = np.where(first == EVER, events.STATIC, first - options.before_birth)
        high = np.where(last == events.STATIC, EVER, last + years)
        return low, high, np.where(end == events.STATIC, EVER, end + options.after_death)

    def doubt(self, sheet: Sheet, against: Flags, late: Flags, timed: Flags) -> bool:
        """Refuse births and deaths that most facts contradict; whether there were any."""
        others = timed & sheet.kept & self.others()
        total = self._sum(others)
        found = False
        for code, flags, reason in (
            (BIRTH, against, "impossible_birth"),
            (DEATH, late, "impossible_death"),
        ):
            contrary = self._sum(flags & others)
            wrong = (contrary >= SEVERAL) & (2 * contrary > total)
            rows = self._events[code]
            bad = wrong[self._patient(rows)]
            if bad.any():
                sheet.reject(rows[bad], reason)
                self._events[code] = rows[~bad]
                found = True
        return found

    def _sum(self, flags: Flags) -> Ints:
        done = np.concatenate([[0], np.cumsum(flags)])
        summed: Ints = done[self.starts[1:]] - done[self.starts[:-1]]
        return summed


def _rows(sheet: Sheet, name: str, timed: Flags) -> Ints:
    code, codes = sheet.code
    if name not in codes:
        return np.zeros(0, np.int64)
    return np.flatnonzero((code == codes.index(name)) & timed & sheet.kept)


def _day(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * DAY
