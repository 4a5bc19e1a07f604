"""Who is in the cohort at which moment: each rule as a test of moments.

What is tested lies before the index time; static facts hold at every moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from clinloom import events as ev
from clinloom.cohort._ages import old_enough, young_enough
from clinloom.cohort._moments import Moments
from clinloom.cohort._occurrences import Occurrences
from clinloom.events import Flags, Ints
from clinloom.history import History
from clinloom.study import Cohort, Criterion, Eligibility, Observed
from clinloom.tables import BIRTH, DEATH

OBSERVED = "observed at the index time"
REACHES = "observed long enough before"
ALIVE = "alive at the index time"
FREE = "free of the outcome before (washout)"
Test = Callable[[Moments], Flags]


def tests(
    history: History, definition: Cohort, outcomes: Occurrences
) -> Iterator[tuple[str, Test]]:
    """Each step's name and which moments it keeps; all of it is known at the index time."""
    if definition.observed is not None:
        yield OBSERVED, Periods(history, definition.observed).holds
    yield from _eligible(history, definition.eligibility)
    yield ALIVE, _alive(history, definition)
    if definition.washout != "none":
        yield FREE, _free(history, definition, outcomes)


def prevalent(definition: Cohort) -> bool:
    """Whether what happens at the index time itself is there already, and cannot be predicted."""
    risk = definition.time_at_risk
    return risk.start == "exclusive" or risk.starts > 0


def _alive(history: History, definition: Cohort) -> Test:
    died = Occurrences(history, history.rows_of((DEATH,), static=False))
    inside = prevalent(definition)

    def test(moments: Moments) -> Flags:
        ever = np.full(len(moments.time), ev.STATIC + 1)
        alive: Flags = died.count(moments.patient, ever, moments.time, including_end=inside) == 0
        return alive

    return test


def _eligible(history: History, eligibility: Eligibility) -> Iterator[tuple[str, Test]]:
    low, high = eligibility.age_at_least, eligibility.age_at_most
    if low is not None or high is not None:
        born = history.first_time((BIRTH,))
        if low is not None:
            yield f"age at least {low:g}", lambda m: old_enough(born[m.patient], m.time, low)
        if high is not None:
            yield f"age at most {high:g}", lambda m: young_enough(born[m.patient], m.time, high)
    if eligibility.prior_observation is not None:
        yield REACHES, _seen(history, eligibility.prior_observation)
    for criterion in eligibility.require:
        yield criterion.name, _criterion(history, criterion)
    for criterion in eligibility.exclude:
        yield criterion.name, _not(_criterion(history, criterion))


def _seen(history: History, reach: int) -> Test:
    """Whether the record reaches back so far; being born is not being observed."""
    timed = np.flatnonzero(history.time != ev.STATIC)
    births = history.rows_of((BIRTH,), static=False)
    rows = np.setdiff1d(timed, births, assume_unique=True)[::-1]
    first = np.full(len(history.subjects), ev.NEVER)
    first[history.patient_of(rows)] = history.time[rows]
    return lambda m: first[m.patient] <= m.time - reach


def _not(test: Test) -> Test:
    return lambda moments: ~test(moments)


def _criterion(history: History, criterion: Criterion) -> Test:
    """Whether it holds before the index time."""
    inner = criterion.all_of or criterion.any_of
    if inner:
        needed = len(inner) if criterion.all_of else criterion.at_least
        held = [_criterion(history, part) for part in inner]
        return lambda m: np.sum([test(m) for test in held], axis=0) >= needed
    rows = history.rows_of(criterion.codes, static=True)
    rows = rows[inside(history, rows, criterion.value_above, criterion.value_below)]
    timed = history.time[rows] != ev.STATIC
    known = Occurrences(history, rows[timed])
    always = np.bincount(history.patient_of(rows[~timed]), minlength=len(history.subjects))

    def test(moments: Moments) -> Flags:
        reach = criterion.within
        begin = np.full(len(moments.time), ev.STATIC + 1) if reach is None else moments.time - reach
        found = known.count(moments.patient, begin, moments.time) + always[moments.patient]
        held: Flags = found >= criterion.times
        return held

    return test


def inside(history: History, rows: Ints, above: float | None, below: float | None) -> Flags:
    """Which rows have a value within the bounds; all, where there are none."""
    keep = np.ones(len(rows), bool)
    if above is not None:
        keep &= history.value[rows] > above
    if below is not None:
        keep &= history.value[rows] < below
    return keep


def _free(history: History, definition: Cohort, outcomes: Occurrences) -> Test:
    """Whether the outcome was not there before; the index event itself is no outcome before."""
    both = np.intersect1d(
        history.rows_of(definition.outcome.codes, static=False),
        history.rows_of(definition.index.at, static=False),
    )
    own = Occurrences(history, both)
    reach, at_index = definition.washout, prevalent(definition)

    def test(moments: Moments) -> Flags:
        ever = np.full(len(moments.time), ev.STATIC + 1)
        begin = moments.time - reach if isinstance(reach, int) else ever
        found = outcomes.count(moments.patient, begin, moments.time, including_end=at_index)
        itself = own.count(moments.patient, moments.event, moments.event, including_end=True)
        counted = (begin <= moments.event) & (
            (moments.event < moments.time) | ((moments.event == moments.time) & at_index)
        )
        return found - np.where(counted, itself, 0) <= 0

    return test


class Periods:
    """The periods in which patients are observed."""

    def __init__(self, history: History, observed: Observed):
        self._starts, self._ends = (
            Occurrences(history, history.rows_of(codes, static=False))
            for codes in (observed.starts, observed.ends)
        )

    def holds(self, moments: Moments) -> Flags:
        """Whether the moment lies in one."""
        began = self._starts.latest(moments.patient, moments.time)
        held: Flags = (began != ev.STATIC) & (self.end(moments) >= moments.time)
        return held

    def end(self, moments: Moments) -> Ints:
        """When the period that began last is over (m,); NEVER where that is not told."""
        return self._ends.earliest(
            moments.patient, self._starts.latest(moments.patient, moments.time)
        )
