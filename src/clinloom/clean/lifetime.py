"""Times that no patient can have: before birth, long after death, outside every calendar in use."""

from __future__ import annotations

import datetime as dt

import numpy as np
from pydantic import Field

from clinloom import events
from clinloom.clean._sheet import Sheet
from clinloom.events import DAY, NEVER, Flags, Ints
from clinloom.study import MICROSECONDS, Duration, RuleModel
from clinloom.tables import BIRTH, DEATH

REQUIRES: str | None = None
ORDER = 15

SEVERAL = 3  # facts against a birth or a death, and more than there are for it: that one is wrong
NONE = np.zeros(0, np.int64)


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
    patients = _Patients(sheet)
    low, high = patients.reached()
    earliest, latest = _day(options.earliest), _day(options.latest)
    rows = patients.facts((low < earliest) | (high >= latest))
    time = sheet.time[rows]
    sheet.reject(rows[(time < earliest) | (time >= latest)], "impossible_time", "time")
    if not patients.tell_births_or_deaths():
        return
    begin, oldest, end = patients.span(options)
    rows = patients.facts((low < begin) | (high > np.minimum(oldest, end)))
    if not len(rows):
        return
    patients.doubt(rows, options)
    early, old, late = patients.contradict(rows, options)
    sheet.reject(rows[early], "before_birth", "time")
    sheet.reject(rows[late], "after_death", "time")
    sheet.reject(rows[old], "impossible_time", "time")


class _Patients:
    """The sheet's patients (p,), with their births and deaths."""

    def __init__(self, sheet: Sheet):
        _, self._starts = events.patients(sheet.subject)
        self._sheet, self._time = sheet, sheet.time
        self._told: dict[str, Ints] = {}

    def reached(self) -> tuple[Ints, Ints]:
        """Between what times each patient's facts lie (p,); NEVER and STATIC where none has one."""
        static = self._time == events.STATIC
        known = np.where(static, NEVER, self._time) if static.any() else self._time
        begins = self._starts[:-1]
        return np.minimum.reduceat(known, begins), np.maximum.reduceat(self._time, begins)

    def facts(self, patients: Flags) -> Ints:
        """The rows of some patients that have a time and were not refused yet."""
        spans = zip(self._starts[:-1][patients], self._starts[1:][patients], strict=True)
        rows = np.concatenate([NONE, *(np.arange(*span) for span in spans)])
        found: Ints = rows[self._sheet.kept[rows] & (self._time[rows] != events.STATIC)]
        return found

    def tell_births_or_deaths(self) -> bool:
        """Whether there are any that have a time."""
        code, codes = self._sheet.code
        for name in (BIRTH, DEATH):
            rows = np.flatnonzero(code == codes.index(name)) if name in codes else NONE
            self._told[name] = rows[self._sheet.kept[rows] & (self._time[rows] != events.STATIC)]
        return any(len(rows) for rows in self._told.values())

    def _patient(self, rows: Ints) -> Ints:
        return np.searchsorted(self._starts, rows, "right") - 1

    def span(self, options: Options) -> tuple[Ints, Ints, Ints]:
        """From when on facts may lie, until when by age, and until when by death (p,).

        By the first birth that is told for what is before it, else by the last of each.
        """
        size = len(self._starts) - 1
        first, last = np.full(size, NEVER), np.full(size, events.STATIC)
        born, died = self._told[BIRTH], self._told[DEATH]
        np.minimum.at(first, self._patient(born), self._time[born])
        np.maximum.at(last, self._patient(born), self._time[born])
        end = np.full(size, events.STATIC)
        np.maximum.at(end, self._patient(died), self._time[died])
        years = round(options.oldest * MICROSECONDS["y"])
        low = np.where(first == NEVER, events.STATIC, first - options.before_birth)
        high = np.where(last == events.STATIC, NEVER, last + years)
        return low, high, np.where(end == events.STATIC, NEVER, end + options.after_death)

    def contradict(self, rows: Ints, options: Options) -> tuple[Flags, Flags, Flags]:
        """Which of the rows lie before birth, beyond every age, and long after death."""
        low, high, last = (edge[self._patient(rows)] for edge in self.span(options))
        time = self._time[rows]
        return time < low, time > high, (time > last) & self._others(rows)

    def _others(self, rows: Ints) -> Flags:
        """Which of the rows are neither births nor deaths."""
        others: Flags = ~np.isin(rows, np.concatenate(list(self._told.values())))
        return others

    def doubt(self, rows: Ints, options: Options) -> None:
        """Refuse births and deaths that ``rows``, most of the patient's facts, contradict."""
        early, old, late = self.contradict(rows, options)
        facts = self._others(rows)
        told = ((BIRTH, early | old, "impossible_birth"), (DEATH, late, "impossible_death"))
        for code, flags, reason in told:
            contrary = np.bincount(
                self._patient(rows[flags & facts]), minlength=len(self._starts) - 1
            )
            wrong = contrary >= SEVERAL
            for patient in np.flatnonzero(wrong).tolist():
                mine = self.facts(np.arange(len(wrong)) == patient)
                wrong[patient] = 2 * contrary[patient] > self._others(mine).sum()
            bad = wrong[self._patient(self._told[code])]
            self._sheet.reject(self._told[code][bad], reason, "time")
            self._told[code] = self._told[code][~bad]


def _day(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * DAY
