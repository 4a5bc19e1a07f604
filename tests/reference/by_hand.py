"""Cohorts' features worked out by another hand: facts are looked through one by one.

A fact is a microsecond (none: static), a code and a number (none: it has none).
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

HOUR, DAY, YEAR = 3_600_000_000, 86_400_000_000, 31_557_600_000_000
UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)

Fact = tuple[int | None, str, float | None]
Facts = dict[str, list[Fact]]
Rows = dict[tuple[str, int], tuple[bool, dict[str, float]]]


class Family(NamedTuple):
    """Features of a kind: of which codes, what of them, and how far back (none: ever)."""

    name: str
    fits: Callable[[str, float | None], bool]
    statistics: tuple[str, ...]
    windows: dict[str, int | None]


def demographics(*, age: bool = True) -> Family:
    """Age at the index time, and sex."""
    names = ("GENDER//", "MEDS_BIRTH") if age else ("GENDER//",)
    return Family("demographics", lambda code, _: code.startswith(names), (), {"all": None})


def started(prefix: str | tuple[str, ...]) -> Callable[[str, float | None], bool]:
    """Codes that begin so."""
    return lambda code, _: code.startswith(prefix)


def numbered(prefix: str) -> Callable[[str, float | None], bool]:
    """Codes that begin so and have a number."""
    return lambda code, value: code.startswith(prefix) and value is not None


def us(*when: int) -> int:
    """Microseconds of a moment in UTC."""
    return round((dt.datetime(*when, tzinfo=dt.UTC) - UNIX) / MICROSECOND)


def moment(text: str) -> int:
    """Microseconds of an instant as FHIR writes it."""
    return (dt.datetime.fromisoformat(text) - UNIX) // MICROSECOND


def before(facts: Iterable[Fact], index: int, span: int | None) -> Iterator[Fact]:
    """The facts of the span before the index time, the index time itself not among them."""
    for fact in facts:
        time = fact[0]
        if time is None or (time < index and (span is None or index - time <= span)):
            yield fact


def slope(points: list[tuple[int, float]]) -> float:
    """Least squares, per day."""
    x = [(time - points[0][0]) / DAY for time, _ in points]
    if len(set(x)) < 2:
        return math.nan
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(v for _, v in points) / len(x)
    square = math.fsum((a - mean_x) ** 2 for a in x)
    both = zip(x, points, strict=True)
    return math.fsum((a - mean_x) * (value - mean_y) for a, (_, value) in both) / square


def summary(statistic: str, found: list[Fact], index: int) -> float:
    """A statistic of one code's facts."""
    if statistic == "present":
        return float(bool(found))
    if statistic == "count":
        return float(len(found))
    if statistic == "age":
        return (index - min(time for time, *_ in found)) / YEAR if found else math.nan
    points = sorted((time, value) for time, _, value in found)
    if not points:
        return math.nan
    values = [value for _, value in points]
    if statistic == "slope":
        return slope(points)
    if statistic == "since":
        return (index - points[-1][0]) / DAY
    mean = math.fsum(values) / len(values)
    if statistic == "sd":
        squares = math.fsum((value - mean) ** 2 for value in values)
        return math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else math.nan
    ends = {"first": values[0], "last": values[-1], "min": min(values), "max": max(values)}
    return {**ends, "mean": mean, "sum": math.fsum(values)}[statistic]


def expected(facts: Facts, moments: list[tuple[str, int, bool]], families: list[Family]) -> Rows:
    """Every feature of every moment, of the codes that some moment saw."""
    wanted: dict[str, tuple[str, str, int | None]] = {}
    for family in families:
        widest = None if None in family.windows.values() else max(family.windows.values())
        seen = {
            code
            for patient, index, _ in moments
            for _, code, value in before(facts[patient], index, widest)
            if family.fits(code, value)
        }
        for code in seen:
            statistics = family.statistics or (("age",) if code == "MEDS_BIRTH" else ("present",))
            for statistic in statistics:
                for name, span in family.windows.items():
                    wanted[f"{family.name}|{code}|{statistic}|{name}"] = code, statistic, span
    rows: Rows = {}
    for patient, index, outcome in moments:
        by_code = defaultdict(list)
        for fact in facts[patient]:
            by_code[fact[1]].append(fact)
        values = {}
        for name, (code, statistic, span) in wanted.items():
            found = list(before(by_code[code], index, span))
            if name.startswith("measurements|"):
                found = [fact for fact in found if fact[2] is not None]
            values[name] = summary(statistic, found, index)
        rows[patient, index] = outcome, values
    return rows
