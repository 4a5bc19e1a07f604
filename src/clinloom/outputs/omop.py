"""A folder with `observation`, `note` and `cohort.parquet`, in the columns of OMOP's CDM 5.4.

An observation a prediction: its number is the risk, its source value names study, model and bundle,
its type is "Standard algorithm" (32880); no concept stands for a model, so the concept is 0. A note
says each in words, with the reasons where `--reasons` asks for some, and points to its observation.
In the cohort is who was at or above the threshold, from that moment for as long as the risk is
told; spells that touch are one, as a cohort's may not overlap. Days and times are UTC.
(OMOP CDM 5.4, observation, note, cohort)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from clinloom import events as ev
from clinloom import files
from clinloom.deploy.assessment import Assessor
from clinloom.errors import DataError
from clinloom.files import Address
from clinloom.outputs import AT_ONCE, Scores, writing
from clinloom.store import TableWriter
from clinloom.store.stored import stream
from clinloom.study import Model
from clinloom.tables import REASONS, Column, Table

REQUIRES: str | None = None
ALGORITHM = 32880  # the Type Concept "Standard algorithm"
UTF_8, ENGLISH = 32678, 4180186  # a text's encoding and language
OBSERVATION_ID = 1147165  # the field observation.observation_id, as a concept
SOURCE, TITLE = 50, 250  # letters that a source value, and a title, have at most
NULLS = {
    "value_as_string": pa.string(),
    "value_as_concept_id": pa.int64(),
    "qualifier_concept_id": pa.int64(),
    "unit_concept_id": pa.int64(),
    "provider_id": pa.int64(),
    "visit_occurrence_id": pa.int64(),
    "visit_detail_id": pa.int64(),
}
LATER = {
    "unit_source_value": pa.string(),
    "qualifier_source_value": pa.string(),
    "value_source_value": pa.string(),
    "observation_event_id": pa.int64(),
    "obs_event_field_concept_id": pa.int64(),
}
OBSERVATION = Table(
    "observation",
    "the risks as OMOP's observations",
    (
        Column("observation_id", pa.int64(), "in the order of the rows, from `first` on"),
        Column("person_id", pa.int64(), "the patient", False),
        Column("observation_concept_id", pa.int64(), "0: no concept is a model's", False),
        Column("observation_date", pa.date32(), "the day of the prediction, UTC", False),
        Column("observation_datetime", pa.timestamp("us"), "the moment, UTC"),
        Column("observation_type_concept_id", pa.int64(), "Standard algorithm", False),
        Column("value_as_number", pa.float64(), "risk, 0 to 1"),
        *(Column(name, kind, "not told") for name, kind in NULLS.items()),
        Column("observation_source_value", pa.string(), "study, model and bundle"),
        Column("observation_source_concept_id", pa.int64(), "0: none"),
        *(Column(name, kind, "not told") for name, kind in LATER.items()),
    ),
)
NOTE = Table(
    "note",
    "the risks in words as OMOP's notes",
    (
        Column("note_id", pa.int64(), "in the order of the rows, from `notes` on"),
        Column("person_id", pa.int64(), "the patient", False),
        Column("note_date", pa.date32(), "the day of the prediction, UTC", False),
        Column("note_datetime", pa.timestamp("us"), "the moment, UTC"),
        Column("note_type_concept_id", pa.int64(), "Standard algorithm", False),
        Column("note_class_concept_id", pa.int64(), "0: no class is a model's", False),
        Column("note_title", pa.string(), "the study's title"),
        Column("note_text", pa.string(), "risk and threshold, and what adds the most", False),
        Column("encoding_concept_id", pa.int64(), "UTF-8", False),
        Column("language_concept_id", pa.int64(), "English", False),
        Column("provider_id", pa.int64(), "not told"),
        Column("visit_occurrence_id", pa.int64(), "not told"),
        Column("visit_detail_id", pa.int64(), "not told"),
        Column("note_source_value", pa.string(), "study, model and bundle"),
        Column("note_event_id", pa.int64(), "the observation_id of the same prediction"),
        Column("note_event_field_concept_id", pa.int64(), "observation.observation_id"),
    ),
)
COHORT = Table(
    "cohort",
    "spells of patients at or above the threshold",
    (
        Column("cohort_definition_id", pa.int64(), "as the site numbers it", False),
        Column("subject_id", pa.int64(), "the patient: person_id", False),
        Column("cohort_start_date", pa.date32(), "the day of the prediction, UTC", False),
        Column("cohort_end_date", pa.date32(), "the day on which the risk's time ends, UTC", False),
    ),
)


class Options(Model):
    """The site's own numbers."""

    first: int = Field(default=1, ge=1, description="the observation_id of the first row")
    notes: int = Field(default=1, ge=1, description="the note_id of the first row")
    cohort: int = Field(default=1, ge=1, description="the cohort_definition_id")


def write(scores: Scores, target: Address, options: Options) -> int:
    """Leave the tables. Raises DataError where a patient's identifier is no person_id."""
    study, scorer, version = scores.bundle.study, scores.bundle.scorer, scores.bundle.hash[:12]
    room = SOURCE - len(version) - 1
    made = scores.turned(
        rows,
        [OBSERVATION, NOTE, COHORT],
        source=f"{scorer.model}/{study['name']}"[:room] + f"@{version}",
        assessor=Assessor.of(scores.bundle),
        cohort=options.cohort,
        named=scores.known is not None,
    )
    numbers = {"observation_id": options.first, "note_id": options.notes}
    numbers["note_event_id"] = options.first  # rows of both tables have one order
    with writing(target), ExitStack() as held:
        files.folder(target)
        open_ = {
            table.name: held.enter_context(TableWriter(target / f"{table.name}.parquet", table))
            for table in (OBSERVATION, NOTE, COHORT)
        }
        for name, parts in made.items():
            for part in parts:
                for some in stream(str(part), None, AT_ONCE, coded=False):
                    open_[name].write(_numbered(some, open_[name].rows, numbers))
    return open_[OBSERVATION.name].rows


def _numbered(some: pa.Table, before: int, first: Mapping[str, int]) -> pa.Table:
    """Rows, which come after others, with their numbers."""
    counted = np.arange(before, before + some.num_rows)
    for at, name in enumerate(some.column_names):
        if name in first:
            some = some.set_column(at, name, pa.array(counted + first[name]))
    return some


def rows(
    events: pa.Table,
    predictions: pa.Table,
    known: pa.Table | None = None,
    *,
    source: str,
    assessor: Assessor,
    cohort: int,
    named: bool,
) -> dict[str, pa.Table]:
    """The kernel: OBSERVATION and NOTE (not numbered yet) and COHORT of whole patients.

    ``named``: person_id is the patient's own identifier, else the subject.
    """
    person = persons(predictions) if named else ev.subjects(predictions)
    moment = ev.times(ev.column(predictions, "prediction_time"))
    day, instant = _days(moment), pa.array(moment).cast(pa.timestamp("us"))
    observed = {
        "person_id": pa.array(person),
        "observation_date": day,
        "observation_datetime": instant,
        "value_as_number": predictions.column("predicted_boolean_probability"),
        "observation_source_value": source,
        "observation_concept_id": 0,
        "observation_type_concept_id": ALGORITHM,
        "observation_source_concept_id": 0,
    }
    noted = {
        "person_id": pa.array(person),
        "note_date": day,
        "note_datetime": instant,
        "note_type_concept_id": ALGORITHM,
        "note_class_concept_id": 0,
        "note_title": assessor.outcome[:TITLE],
        "note_text": pa.array(texts(predictions, assessor), pa.string()),
        "encoding_concept_id": UTF_8,
        "language_concept_id": ENGLISH,
        "note_source_value": source,
        "note_event_field_concept_id": OBSERVATION_ID,
    }
    above = predictions.column("predicted_boolean_value").to_numpy(zero_copy_only=False)
    who, start, end = spells(person[above], moment[above], assessor.within)
    member = [pa.array(np.full(len(who), cohort)), pa.array(who), _days(start), _days(end)]
    return {
        OBSERVATION.name: _table(OBSERVATION, observed, predictions.num_rows),
        NOTE.name: _table(NOTE, noted, predictions.num_rows),
        COHORT.name: pa.table(member, schema=COHORT.arrow),
    }


def _table(table: Table, told: Mapping[str, Any], rows: int) -> pa.Table:
    """A table of cells, or of one value in all rows; null where nothing is told."""
    cells = [
        cell
        if isinstance(cell := told.get(column.name), (pa.Array, pa.ChunkedArray))
        else pa.repeat(pa.scalar(cell, column.type), rows)
        for column in table.columns
    ]
    return pa.table(cells, schema=table.arrow)


def texts(predictions: pa.Table, assessor: Assessor) -> Iterator[str]:
    """A risk in words a row, and what adds the most to it where that is told."""
    names = ["predicted_boolean_probability", "predicted_boolean_value"]
    names += [name for name in predictions.column_names if name == REASONS.name]
    for row in predictions.select(names).to_pylist():
        above = "at or above" if row["predicted_boolean_value"] else "below"
        yield (
            f"{assessor.outcome}: a risk of {row['predicted_boolean_probability']:.1%},"
            f" {above} the threshold of {assessor.threshold:.1%}, by {assessor.method}."
        ) + "".join(f"\n- {reason['text']}" for reason in row.get(REASONS.name) or ())


def persons(predictions: pa.Table) -> ev.Ints:
    """The person_id of each row of SCORES. Raises DataError where an identifier is none."""
    text = ev.column(predictions, "patient").cast(pa.string())
    whole = pc.match_substring_regex(text.fill_null(""), r"^\d{1,18}$")
    if not pc.all(whole, min_count=0).as_py():
        raise DataError(
            "patients' identifiers are no whole numbers, which person_id has to be",
            where="predictions",
            mend="--set deploy.identifier=false: person_id is then the subject",
        )
    found: ev.Ints = text.cast(pa.int64()).to_numpy()
    return found


def spells(who: ev.Ints, moment: ev.Ints, within: int) -> tuple[ev.Ints, ev.Ints, ev.Ints]:
    """Who, from when and until when (microseconds): overlapping days of one person are one spell.

    ``who``, ``moment``: a person's together, in the order of time.
    """
    first, last = moment // ev.DAY, (moment + within) // ev.DAY
    fresh = np.ones(len(who), bool)
    fresh[1:] = (who[1:] != who[:-1]) | (first[1:] > last[:-1])
    starts = np.flatnonzero(fresh)
    ends = np.r_[starts[1:], len(who)][: len(starts)] - 1
    return who[starts], moment[starts], moment[ends] + within


def _days(moment: ev.Ints) -> pa.Array:
    return pa.array((moment // ev.DAY).astype(np.int32)).cast(pa.date32())
