"""The cohort: at which moments a prediction is made, for whom, and what happened afterwards.

A kernel room: functions of whole patients' events, without Spark, files or state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.cohort._eligibility import ALIVE, FREE, OBSERVED, REACHES, Periods, inside, tests
from clinloom.cohort._moments import Moments, moments
from clinloom.cohort._occurrences import Occurrences
from clinloom.events import Flags, Ints
from clinloom.history import History
from clinloom.study import Cohort
from clinloom.tables import BEFORE, COMPETING, FLOW, INDEX, OUTCOME, STRADDLING

PATIENTS = "patients"
WITH_INDEX = "with index event"
KNOWN = {"data": "followed up within the data", "required": "followed up"}
SURE = "free of an outcome that may lie before"
COUNTED = (PATIENTS, STRADDLING, BEFORE, COMPETING, OUTCOME)  # steps that leave no moment out
CHOSEN = {"first": "the first moment of each patient", "last": "the last moment of each patient"}
REMEDIES = {
    WITH_INDEX: ("index.at", "is it a code of the events?"),
    ALIVE: ("index", "is the index time before death?"),
    OBSERVED: ("observed", "are its codes those of the events?"),
    REACHES: ("eligibility.prior_observation", "make it shorter"),
    FREE: ("washout", "`none` keeps those who had the outcome before, as it may come again"),
    KNOWN["data"]: (
        "time_at_risk.follow_up",
        "the data end before the time at risk does: `assumed` takes who has no outcome for free"
        " of it, and `cohort.data_end` tells when the data end",
    ),
    KNOWN["required"]: ("time_at_risk.follow_up", "`data` asks less"),
}


def cohort(
    events: pa.Table, definition: Cohort, *, data_end: int | None = None
) -> dict[str, pa.Table]:
    """Index times with their outcome, and how many patients and moments each step left.

    ``events`` (EVENTS columns subject_id, time, code, numeric_value; others are not read) hold
    whole patients, sorted by subject_id and time, nulls first. ``data_end``: until when the data
    tell what happened, in microseconds; none: the study's, or for ever.

    Answers ``index`` (INDEX, sorted; ``split`` is null, ``boolean_value`` is true or false) and
    ``flow`` (FLOW; its counts add up over chunks of patients).

    A moment counts where its patient is alive, observed, eligible and free of the outcome before.
    The time at risk runs from index + ``starts`` to index + ``within``. What happens at the index
    time itself counts as before where it could not be predicted. A competing event (death) in the
    time at risk ends follow-up: who had no outcome is free of it, or left out. Everybody else
    without an outcome must be followed up to the end of the time at risk.
    """
    history = History(events)
    flow = _Flow()
    hits = _outcomes(history, definition)
    found = _found(history, definition, hits, flow)
    after = _after(history, definition, hits, found, data_end)
    risk = definition.time_at_risk
    rule = definition.outcome.straddling
    if rule == "excluded" or (rule == "before" and definition.washout != "none"):
        after = after.where(~after.straddling)
        flow.step(SURE, after.moments)
    if risk.competing.counts_as == "excluded":
        after = after.where(~after.competing)
        flow.step("free of competing events", after.moments)
    if risk.follow_up != "assumed":
        after = after.where(~after.unknown)
        flow.step(KNOWN[risk.follow_up], after.moments)
    if rule == "after":
        flow.step(STRADDLING, after.moments.where(after.straddling))
    elif rule == "before" and definition.washout == "none":
        flow.step(BEFORE, after.moments.where(after.straddling & ~after.outcome))
    if risk.competing.counts_as == "negative":
        flow.step(COMPETING, after.moments.where(after.competing))
    flow.step(OUTCOME, after.moments.where(after.outcome))
    return {"index": _index(history, after.moments, after.outcome), "flow": flow.table()}


def due(
    events: pa.Table,
    definition: Cohort,
    *,
    data_end: int | None = None,
    now: int | Ints | None = None,
) -> dict[str, pa.Table]:
    """The moments at which a prediction is due: the cohort's, whatever happens afterwards.

    As :func:`cohort`, but nobody is left out for what is not known yet: where the outcome was not
    seen and may still come, ``boolean_value`` is null. ``now``: moments after it, in
    microseconds, of all patients or of each (p,), are still to come and left out.
    """
    history = History(events)
    flow = _Flow()
    hits = _outcomes(history, definition)
    found = _found(history, definition, hits, flow)
    until = np.broadcast_to(ev.NEVER if now is None else now, len(history.subjects))
    if now is not None:
        found = flow.step("due by now", found.where(found.time <= until[found.patient]))
    after = _after(history, definition, hits, found, data_end)
    unknown = after.unknown | (~after.outcome & (after.end > until[found.patient]))
    return {"index": _index(history, found, after.outcome, unknown), "flow": flow.table()}


def emptied(flow: pa.Table) -> tuple[str, str]:
    """Where in the study, and how to mend it, nobody was left. ``flow``: FLOW."""
    name = _emptying(flow)
    key, mend = REMEDIES.get(name, ("eligibility", f"'{name}' leaves nobody"))
    return f"cohort.{key}", mend


def asked(flow: pa.Table, definition: Cohort) -> tuple[str, ...]:
    """The codes and patterns of the step that left nobody. ``flow``: FLOW."""
    rules = definition.eligibility
    codes = {rule.name: rule.asked for rule in (*rules.require, *rules.exclude)}
    codes |= {WITH_INDEX: definition.index.at, FREE: definition.outcome.codes}
    if definition.observed is not None:
        codes[OBSERVED] = (*definition.observed.starts, *definition.observed.ends)
    return codes.get(_emptying(flow), ())


def _emptying(flow: pa.Table) -> str:
    """The step that left nobody."""
    left = zip(flow.column("name").to_pylist(), flow.column("rows").to_pylist(), strict=True)
    empty = (name for name, rows in left if not rows and name not in COUNTED)
    return next(empty, WITH_INDEX)


def _found(history: History, definition: Cohort, hits: Occurrences, flow: _Flow) -> Moments:
    """The moments at which a patient is in the cohort, by what is known by then."""
    flow.rows.append((PATIENTS, len(history.subjects), 0))
    which, _, eligible = definition.index.which.partition("_")
    found = moments(history, definition.index)
    found = flow.step(WITH_INDEX, found if eligible else found.chosen(which))
    for name, keep in tests(history, definition, hits):
        found = flow.step(name, found.where(keep(found)))
    return flow.step(CHOSEN[which], found.chosen(which)) if eligible else found


@dataclass(frozen=True)
class _After:
    """What happened after each moment (m,).

    ``outcome``; ``straddling``: an outcome that may have happened before the moment, and none that
    did not (under the rule `before`, whether or not there is another);
    ``competing``: a competing event and no outcome; ``unknown``: neither, and not followed to the
    ``end`` of the time at risk (microseconds).
    """

    moments: Moments
    outcome: Flags
    straddling: Flags
    competing: Flags
    unknown: Flags
    end: Ints

    def where(self, keep: Flags) -> _After:
        """The moments that are kept."""
        return _After(
            self.moments.where(keep),
            self.outcome[keep],
            self.straddling[keep],
            self.competing[keep],
            self.unknown[keep],
            self.end[keep],
        )


def _after(
    history: History,
    definition: Cohort,
    hits: Occurrences,
    found: Moments,
    data_end: int | None,
) -> _After:
    risk = definition.time_at_risk
    end = found.time + definition.outcome.within
    begin = found.time + risk.starts
    last = end if risk.end == "inclusive" else end - 1
    inclusive = risk.start == "inclusive"
    seen = hits.count(found.patient, begin, last, including_start=inclusive, including_end=True)
    early = hits.straddling(found.patient, found.time, last)
    unsure = early
    if risk.starts:
        unsure = early - hits.straddling(
            found.patient, found.time, begin - 1 if inclusive else begin
        )
    if definition.outcome.straddling == "before":
        outcome, straddling = seen > unsure, early > 0
    else:
        outcome, straddling = seen > 0, (seen > 0) & (seen <= unsure)
    ends = Occurrences(history, history.rows_of(risk.competing.codes, static=False))
    competing = (ends.count(found.patient, found.time, end, including_end=True) > 0) & ~outcome
    until = _until(history, definition, found, data_end)
    return _After(found, outcome, straddling, competing, ~outcome & ~competing & (end > until), end)


def _until(history: History, definition: Cohort, found: Moments, data_end: int | None) -> Ints:
    """Until when it is known whether a moment's patient had the outcome (m,), microseconds."""
    follow_up = definition.time_at_risk.follow_up
    if follow_up == "assumed":
        return np.full(len(found.time), ev.NEVER)
    last = data_end if definition.data_end is None else ev.microseconds(definition.data_end)
    until = np.full(len(found.time), ev.NEVER if last is None else last)
    if follow_up == "required":  # an event beyond the end of the data proves nothing
        timed = Occurrences(history, np.flatnonzero(history.time != ev.STATIC))
        until = timed.latest(found.patient, until)
    if definition.observed is not None:
        until = np.minimum(until, Periods(history, definition.observed).end(found))
    return until


def _outcomes(history: History, definition: Cohort) -> Occurrences:
    """Every occurrence of the outcome, whenever."""
    outcome = definition.outcome
    rows = history.rows_of(outcome.codes, static=False)
    keep = inside(history, rows, outcome.value_above, outcome.value_below)
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


def _index(
    history: History, found: Moments, outcome: Flags, unknown: Flags | None = None
) -> pa.Table:
    columns = [
        pa.array(history.subjects[found.patient], pa.int64()),
        ev.timestamps(found.time),
        pa.array(outcome, mask=unknown),
        pa.nulls(len(outcome), pa.string()),
    ]
    return pa.table(columns, schema=INDEX.arrow)
