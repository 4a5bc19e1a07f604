"""The cohort: at which moments a prediction is made, for whom, and what happened afterwards.

A kernel room: functions of whole patients' events, without Spark, files or state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.cohort._ages import old_enough, young_enough
from clinloom.cohort._occurrences import Occurrences
from clinloom.events import Flags, Ints
from clinloom.history import History
from clinloom.study import Cohort, Criterion, Eligibility, IndexTime, Outcome
from clinloom.tables import FLOW, INDEX

BIRTH = "MEDS_BIRTH"


@dataclass(frozen=True)
class Moments:
    """Prediction moments: patient (m,) as a position in the chunk, time (m,) in microseconds."""

    patient: Ints
    time: Ints

    def where(self, keep: Flags) -> Moments:
        """The moments that are kept."""
        return self if keep.all() else Moments(self.patient[keep], self.time[keep])


def cohort(events: pa.Table, definition: Cohort) -> dict[str, pa.Table]:
    """Index times with their outcome, and how many patients and moments each step left.

    ``events`` (EVENTS columns subject_id, time, code, numeric_value; others are not read) hold
    whole patients, sorted by subject_id and time, nulls first.

    Answers ``index`` (INDEX, sorted; ``split`` is null, ``boolean_value`` is true or false) and
    ``flow`` (FLOW; its counts add up over chunks of patients).

    The time at risk runs from index + ``starts`` to index + ``within``. The washout reaches from
    index - ``washout`` up to the index time; it takes in the index time itself where an outcome
    at that moment could not count as predicted, for then the patient has it already. Static facts
    hold at every moment for eligibility and are no outcome. A moment is followed up where the
    outcome was seen or the record reaches the end of the time at risk.
    """
    history = History(events)
    flow = _Flow()
    flow.rows.append(("patients", len(history.subjects), 0))
    moments = flow.step("with index event", _moments(history, definition.index))
    for name, keep in _eligibility(history, definition.eligibility):
        moments = flow.step(name, moments.where(keep(moments)))

    risk = definition.time_at_risk
    outcomes = _outcomes(history, definition.outcome)
    if definition.washout is not None:
        inside = risk.start == "exclusive" or risk.starts > 0
        begin = moments.time - definition.washout
        found = outcomes.between(moments.patient, begin, moments.time, including_end=inside)
        moments = flow.step("free of the outcome before (washout)", moments.where(~found))

    end = moments.time + definition.outcome.within
    outcome = outcomes.between(
        moments.patient,
        moments.time + risk.starts,
        end,
        including_start=risk.start == "inclusive",
        including_end=risk.end == "inclusive",
    )
    if risk.follow_up == "required":
        keep = outcome | (history.last_seen[moments.patient] >= end)
        moments, outcome = flow.step("followed up", moments.where(keep)), outcome[keep]
    flow.step("outcome", moments.where(outcome))
    return {"index": _index(history, moments, outcome), "flow": flow.table()}


def _moments(history: History, index: IndexTime) -> Moments:
    """The index times of every patient, each once."""
    rows = history.rows_of(index.at, static=False)
    patient, time = history.patient_of(rows), history.time[rows]
    new = np.ones(len(rows), bool)
    if index.which == "first":
        new[1:] = patient[1:] != patient[:-1]
    elif index.which == "last":
        new[:-1] = patient[1:] != patient[:-1]
    else:
        new[1:] = (patient[1:] != patient[:-1]) | (time[1:] != time[:-1])
    return Moments(patient[new], time[new] + index.plus)


def _eligibility(history: History, eligibility: Eligibility) -> list[tuple[str, Any]]:
    """Each step's name and its test of moments."""
    steps: list[tuple[str, Any]] = []
    low, high = eligibility.age_at_least, eligibility.age_at_most
    if low is not None or high is not None:
        born = history.first_time((BIRTH,))
        if low is not None:
            steps.append(
                (f"age at least {low:g}", lambda m: old_enough(born[m.patient], m.time, low))
            )
        if high is not None:
            steps.append(
                (f"age at most {high:g}", lambda m: young_enough(born[m.patient], m.time, high))
            )
    steps += [(c.name, _criterion(history, c, wanted=True)) for c in eligibility.require]
    steps += [(c.name, _criterion(history, c, wanted=False)) for c in eligibility.exclude]
    return steps


def _criterion(history: History, criterion: Criterion, *, wanted: bool) -> Any:
    """Whether one of the codes was there before the index time, or always holds."""
    rows = history.rows_of(criterion.codes, static=True)
    known = Occurrences(history, rows[history.time[rows] != ev.STATIC])
    holds = np.zeros(len(history.subjects), bool)
    holds[history.patient_of(rows[history.time[rows] == ev.STATIC])] = True

    def test(moments: Moments) -> Flags:
        reach = criterion.within
        begin = np.full(len(moments.time), ev.STATIC + 1) if reach is None else moments.time - reach
        found = known.between(moments.patient, begin, moments.time) | holds[moments.patient]
        kept: Flags = found == wanted
        return kept

    return test


def _outcomes(history: History, outcome: Outcome) -> Occurrences:
    """Every occurrence of the outcome, whenever."""
    rows = history.rows_of(outcome.codes, static=False)
    keep = np.ones(len(rows), bool)
    if outcome.value_above is not None:
        keep &= history.value[rows] > outcome.value_above
    if outcome.value_below is not None:
        keep &= history.value[rows] < outcome.value_below
    return Occurrences(history, rows[keep])


class _Flow:
    """Collects the steps."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int]] = []

    def step(self, name: str, moments: Moments) -> Moments:
        """Note what a step left."""
        patient = moments.patient
        subjects = int((patient[1:] != patient[:-1]).sum()) + bool(len(patient))
        self.rows.append((name, subjects, len(patient)))
        return moments

    def table(self) -> pa.Table:
        """FLOW."""
        names, subjects, rows = zip(*self.rows, strict=True)
        columns = [pa.array(range(len(names)), pa.int32()), pa.array(names, pa.string())]
        columns += [pa.array(subjects, pa.int64()), pa.array(rows, pa.int64())]
        return pa.table(columns, schema=FLOW.arrow)


def _index(history: History, moments: Moments, outcome: Flags) -> pa.Table:
    columns = [
        pa.array(history.subjects[moments.patient], pa.int64()),
        ev.timestamps(moments.time),
        pa.array(outcome),
        pa.nulls(len(outcome), pa.string()),
    ]
    return pa.table(columns, schema=INDEX.arrow)
