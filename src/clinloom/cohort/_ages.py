"""Ages as people count them: completed years on the calendar."""

from __future__ import annotations

import numpy as np

from clinloom.events import DAY, STATIC, Flags, Ints
from clinloom.study import MICROSECONDS


def completed_years(born: Ints, moment: Ints) -> Ints:
    """Birthdays had by the day of ``moment``; both in microseconds. -1 where birth is unknown.

    Somebody born on 29 February has the birthday on 1 March of other years.
    """
    known = born != STATIC
    birth, today = _calendar(np.where(known, born, 0)), _calendar(moment)
    years = today[0] - birth[0] - (today[1] < birth[1])
    return np.where(known, years, -1)


def _calendar(time: Ints) -> tuple[Ints, Ints]:
    """The year, and month * 32 + day."""
    day = np.floor_divide(time, DAY).astype("datetime64[D]")
    month = day.astype("datetime64[M]")
    year = month.astype("datetime64[Y]")
    of_year = (month - year.astype("datetime64[M]")).astype(np.int64)
    of_month = (day - month.astype("datetime64[D]")).astype(np.int64)
    return year.astype(np.int64), of_year * 32 + of_month


def old_enough(born: Ints, moment: Ints, years: float) -> Flags:
    """Whether the age at ``moment`` is at least ``years``; never where birth is unknown.

    Whole years are birthdays; parts of years are counted in years of 365.25 days.
    """
    if float(years).is_integer():
        old: Flags = (born != STATIC) & (completed_years(born, moment) >= years)
        return old
    reached: Flags = (born != STATIC) & (moment - born >= years * MICROSECONDS["y"])
    return reached


def young_enough(born: Ints, moment: Ints, years: float) -> Flags:
    """Whether the age at ``moment`` is at most ``years``: 90 takes in all who are 90."""
    if float(years).is_integer():
        young: Flags = (born != STATIC) & (completed_years(born, moment) <= years)
        return young
    within: Flags = (born != STATIC) & (moment - born <= years * MICROSECONDS["y"])
    return within
