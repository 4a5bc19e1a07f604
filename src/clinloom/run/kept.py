"""What a stream keeps of its patients, and what a step of it makes of those who have news.

Everything is kept by bucket: events and refusals as they came, and when somebody's next moment is
due. Files are only added: a step writes its own, and some that are small become one. A step hands
whole patients who have news to the kernels of a scoring run, with what was known before and with
what is known now, each at its present: the difference is what it tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import clean as cleaning
from clinloom import cohort as cohorts
from clinloom import events as ev
from clinloom.events import NEVER, STATIC, Flags, Ints
from clinloom.history import History
from clinloom.run import score
from clinloom.spark.blocks import NONE, sorting, subjects
from clinloom.spark.receipts import Writing
from clinloom.store import coded
from clinloom.store.stored import groups, of_keys, of_range, read
from clinloom.study import Cohort
from clinloom.tables import (
    ACQUIRED,
    BIRTH,
    DEATH,
    PREDICTIONS,
    REFUSED,
    REJECTED,
    STREAMED,
    TIME,
    Column,
    Table,
)

OWN = Column("own", pa.int64(), "the hash of the identifier by which it names its patient", False)
HISTORY = Table(
    "history", "events as they came", (*ACQUIRED.columns, OWN), ("subject_id", "time", "code")
)
REFUSALS = Table("refusals", "what the sources refused", (*REFUSED.columns, OWN), ("subject_id",))
WAITING = Table(
    "waiting",
    "patients of whom time alone will change something",
    (
        Column("subject_id", pa.int64(), "pseudonymous patient", False),
        Column("due", TIME, "when it next does", False),
    ),
    ("subject_id",),
)
OF_PATIENTS = (HISTORY, REFUSALS)
LATE = "late"
LASTING = (BIRTH, DEATH)  # of these, as of facts without a time, no moment is too late
AT_ONCE = 1024  # patients who are looked at together
SPAN = 1 << 18  # rows that are merged at once
GROUP = 1 << 14  # rows that are looked through for one patient


@dataclass(frozen=True)
class Asked:
    """What a step asks of every patient.

    ``bundle`` and ``mark``: the bundle, as :func:`clinloom.run.score.scored` takes it; ``before``
    and ``now``: the present of the last step and of this one, in microseconds; ``since``: moments
    before it stand as they are; ``horizon``: events before it are no longer needed.
    """

    bundle: str
    mark: str
    cohort: Cohort
    clean: Mapping[str, Any]
    units: Mapping[str, str | None]
    version: int
    before: int
    now: int
    since: int = STATIC
    horizon: int = STATIC


@dataclass(frozen=True)
class Held:
    """A table's files of one bucket, with their rows: those that were there and this step's."""

    files: tuple[tuple[str, int], ...] = ()
    fresh: tuple[tuple[str, int], ...] = ()

    def of(self, table: Table, keys: Ints, *, fresh: bool) -> pa.Table:
        """The rows of some subjects."""
        files = self.fresh if fresh else self.files
        found = [of_keys(file, keys) for file, _ in files]
        return joined([coded(table).empty_table(), *found])

    def news(self) -> list[Ints]:
        """The subjects of this step's rows."""
        return [subjects(read(file, ["subject_id"])) for file, _ in self.fresh]


@dataclass(frozen=True)
class Bucket:
    """One bucket: its tables, who waits, and which rows left it as (own, subject), ascending."""

    tables: Mapping[str, Held]
    waiting: str | None = None
    gone: tuple[tuple[int, int], ...] = ()


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """Parts of a table in the order of ``blocks.sorting``, as a run would have it."""
    whole = pa.concat_tables(parts, promote_options="default")  # older ones may lack a column
    whole = whole.unify_dictionaries().combine_chunks()
    return whole.take(pa.array(sorting(whole))) if whole.num_rows else whole


def advance(bucket: Bucket, asked: Asked, writing: Writing) -> tuple[int, list[str]]:
    """Write what a step changes in a bucket: predictions, refusals, who waits, merged files.

    Answers when something is due there next (NEVER: nothing), and the files that were merged.
    """
    waiting = WAITING.empty if bucket.waiting is None else read(bucket.waiting, coded=False)
    due = ev.times(ev.column(waiting, "due")) <= asked.now
    news = [subjects(waiting)[due]]
    for table in OF_PATIENTS:
        news += bucket.tables[table.name].news()
    news.append(np.array([subject for _, subject in bucket.gone], np.int64))
    touched = np.unique(np.concatenate(news))
    touched = touched[touched != NONE]
    waits = [waiting.filter(pa.array(~np.isin(subjects(waiting), touched)))]
    for begin in range(0, len(touched), AT_ONCE):
        made = _step(bucket, touched[begin : begin + AT_ONCE], asked)
        waits.append(made.pop("waiting"))
        writing.write(made)
    kept = pa.concat_tables(waits).sort_by("subject_id")
    writing.write({"waiting": kept})
    merged = []
    for name, held in bucket.tables.items():
        gone = bucket.gone if name in (HISTORY.name, REFUSALS.name) else ()
        merged += _merged(name, held, gone, asked.horizon, writing)
    return int(ev.times(ev.column(kept, "due")).min(initial=NEVER)), merged


def _step(bucket: Bucket, some: Ints, asked: Asked) -> dict[str, pa.Table]:
    """What changed of some patients."""
    tables = [(table, bucket.tables[table.name]) for table in OF_PATIENTS]
    old = [held.of(table, some, fresh=False) for table, held in tables]
    fresh = [held.of(table, some, fresh=True) for table, held in tables]
    new = [
        joined([before.filter(pa.array(_stays(before, bucket.gone))), came])
        for before, came in zip(old, fresh, strict=True)
    ]
    before = _judged(old[0], old[1], asked.before, asked)
    after = _judged(new[0], new[1], asked.now, asked)
    return {
        "predictions": _changes(before["predictions"], after["predictions"], asked),
        "told": _fresh(before["rejected"], after["rejected"]),
        "waiting": _wakes(after["events"], asked),
    }


def _judged(events: pa.Table, refused: pa.Table, now: int, asked: Asked) -> dict[str, pa.Table]:
    """Clean events, what cleaning refused and the predictions of whole patients, as of ``now``."""
    made = cleaning.clean(events.drop_columns([OWN.name]), asked.clean, refused, asked.units)
    cleaned = made["events"]
    if not cleaned.num_rows:
        return {**made, "predictions": PREDICTIONS.empty}
    found = score.scored(
        cleaned, bundle=asked.bundle, mark=asked.mark, cohort=asked.cohort, last=None, now=now
    )
    return {**made, "predictions": found.get("predictions", PREDICTIONS.empty)}


def _stays(rows: pa.Table, gone: Sequence[tuple[int, int]]) -> Flags:
    """Which rows did not leave with their identifier for another subject."""
    if not gone:
        return np.ones(rows.num_rows, bool)
    own, subject = np.array(gone, np.int64).T
    at, leaves = _found(rows, own)
    stays: Flags = ~(leaves & (subject[at] == subjects(rows)))
    return stays


def _found(rows: pa.Table, own: Ints) -> tuple[Ints, Flags]:
    """Where in ``own`` each row's identifier is, and whether it is there."""
    theirs = ev.column(rows, OWN.name).to_numpy()
    at = np.minimum(np.searchsorted(own, theirs), len(own) - 1)
    return at, own[at] == theirs


def _changes(before: pa.Table, after: pa.Table, asked: Asked) -> pa.Table:
    """Moments that are new, or have another risk, or are none any more (STREAMED, sorted)."""
    whole = pa.concat_tables([before, after])
    is_new = np.repeat([False, True], [before.num_rows, after.num_rows])
    subject, time = subjects(whole), ev.times(ev.column(whole, "prediction_time"))
    risk = ev.numbers(ev.column(whole, "predicted_boolean_probability"))
    order = np.lexsort((is_new, time, subject))
    subject, time, risk, is_new = subject[order], time[order], risk[order], is_new[order]
    pair = (subject[1:] == subject[:-1]) & (time[1:] == time[:-1])  # the old row, then the new
    told = time >= asked.since
    told[:-1] &= ~pair
    told[1:] &= ~(pair & (risk[1:] == risk[:-1]))
    rows = whole.take(pa.array(order[told]))
    cells = {name: rows.column(name) for name in PREDICTIONS.arrow.names}
    cells["boolean_value"] = pa.nulls(rows.num_rows, pa.bool_())  # none is known when it is told
    cells["version"] = pa.repeat(asked.version, rows.num_rows)
    cells["withdrawn"] = pa.array(~is_new[told])
    return pa.table(cells, schema=STREAMED.arrow)


def _fresh(before: pa.Table, after: pa.Table) -> pa.Table:
    """What is refused now and was not."""
    if not after.num_rows:
        return REJECTED.empty
    known = {tuple(row.values()) for row in before.to_pylist()}
    return REJECTED.rows(r for r in after.to_pylist() if tuple(r.values()) not in known)


def _wakes(cleaned: pa.Table, asked: Asked) -> pa.Table:
    """Whose answer time alone will change, and when it next does (WAITING).

    A moment that is still to come is due then; of a patient all of whose events lie ahead, each
    moment is due until the first event has passed (see ``clinloom.deploy.bundle.present``).
    """
    if not cleaned.num_rows:
        return WAITING.empty
    index, history = cohorts.due(cleaned, asked.cohort)["index"], History(cleaned)
    subject, due = subjects(index), ev.times(ev.column(index, "prediction_time"))
    ahead = due > asked.now
    subject, due = subject[ahead], due[ahead]
    first = history.first_begun[np.searchsorted(history.subjects, subject)]
    due = np.minimum(due, np.where(first > asked.now, first, NEVER))
    order = np.lexsort((due, subject))
    subject, due = subject[order], due[order]
    first = np.ones(len(subject), bool)
    first[1:] = subject[1:] != subject[:-1]
    columns = [pa.array(subject[first]), ev.timestamps(due[first])]
    return pa.table(columns, schema=WAITING.arrow)


def relocated(unit: Mapping[str, Any]) -> Iterator[dict[str, pa.Table]]:
    """What is kept of identifiers whose subject changed, under the new one.

    ``unit``: the files of a bucket's ``history`` and ``refusals``, and who ``moved``, as (own,
    subject, new subject), ascending.
    """
    own, old, new = np.array(unit["moved"], np.int64).T
    for kind, table in (("events", HISTORY), ("rejected", REFUSALS)):
        for file in unit[table.name]:
            rows = of_keys(file, np.unique(old))
            at, leaves = _found(rows, own)
            leaves &= old[at] == subjects(rows)
            kept = rows.filter(pa.array(leaves))
            place = rows.schema.get_field_index("subject_id")
            field = rows.schema.field(place)
            yield {kind: kept.set_column(place, field, pa.array(new[at][leaves]))}


def _merged(
    name: str,
    held: Held,
    gone: Sequence[tuple[int, int]],
    horizon: int,
    writing: Writing,
) -> list[str]:
    """Make one file of the small ones, without rows that left or are no longer needed.

    Files are merged while the next larger is no larger than all smaller ones together: few remain,
    and each row is written again as often as its bucket doubles.
    """
    files = sorted((*held.files, *held.fresh), key=lambda each: each[1])
    count = total = 0
    for number, (_, rows) in enumerate(files):
        if number and rows > total and not gone:
            break
        count, total = number + 1, total + rows
    if count < 2 and not (gone and files):
        return []
    chosen = [file for file, _ in files[:count]]
    for low, high in _ranges(chosen):
        whole = joined([of_range(file, low, high) for file in chosen])
        whole = whole.filter(pa.array(_stays(whole, gone) & _needed(whole, horizon)))
        for begin in range(0, whole.num_rows, GROUP):
            writing.write({name: whole.slice(begin, GROUP)})
    return chosen


def _ranges(files: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges of subjects in which these files have some SPAN rows together."""
    found = sorted(each for file in files for each in groups(file))
    low, rows = NONE + 1, 0  # what is of no subject is not kept
    for least, _, count in found:
        if rows >= SPAN and least > low:
            yield low, least
            low, rows = least, 0
        rows += count
    yield low, NEVER


def _needed(rows: pa.Table, horizon: int) -> Flags:
    """Which rows may still count: those of any later moment, and what holds for ever."""
    if horizon == STATIC or "time" not in rows.column_names:
        return np.ones(rows.num_rows, bool)
    needed: Flags = ~passed(rows, horizon)
    return needed


def passed(rows: pa.Table, moment: int) -> Flags:
    """Which events lie before a moment, and are none that holds for ever."""
    time = ev.times(ev.column(rows, "time"))
    lasting = pc.is_in(ev.column(rows, "code").cast(pa.string()), pa.array(LASTING))
    before: Flags = (time != STATIC) & (time < moment) & ~lasting.to_numpy(zero_copy_only=False)
    return before
