"""A folder with `observation.parquet` and `cohort.parquet`, in the columns of OMOP's CDM 5.4.

An observation a prediction: its number is the risk, its source value names study, model and bundle,
its type is "Standard algorithm" (32880); no concept stands for a model, so the concept is 0. In the
cohort is who was at or above the threshold, from that moment for as long as the risk is told;
spells that touch are one, as a cohort's may not overlap. Days and times are UTC. `note` is left
out: a number is no text. (OMOP CDM 5.4, observation, cohort)
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from clinloom import events as ev
from clinloom import files
from clinloom.errors import DataError
from clinloom.files import Address
from clinloom.outputs import AT_ONCE, Scores, writing
from clinloom.store import TableWriter
from clinloom.store.stored import stream
from clinloom.study import Model
from clinloom.tables import Column, Table

REQUIRES: str | None = None
ALGORITHM = 32880  # the Type Concept "Standard algorithm"
SOURCE = 50  # letters that a source value has at most
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
    cohort: int = Field(default=1, ge=1, description="the cohort_definition_id")


def write(scores: Scores, target: Address, options: Options) -> int:
    """Leave both tables. Raises DataError where a patient's identifier is no person_id."""
    study, scorer, version = scores.bundle.study, scores.bundle.scorer, scores.bundle.hash[:12]
    room = SOURCE - len(version) - 1
    made = scores.turned(
        rows,
        [OBSERVATION, COHORT],
        source=f"{scorer.model}/{study['name']}"[:room] + f"@{version}",
        within=scores.bundle.resolved.cohort.outcome.within,
        cohort=options.cohort,
        named=scores.known is not None,
    )
    count = options.first
    with writing(target), ExitStack() as held:
        files.folder(target)
        open_ = {
            table.name: held.enter_context(TableWriter(target / f"{table.name}.parquet", table))
            for table in (OBSERVATION, COHORT)
        }
        for name, parts in made.items():
            for part in parts:
                for some in stream(str(part), None, AT_ONCE, coded=False):
                    if name == OBSERVATION.name:
                        numbers = pa.array(np.arange(count, count + some.num_rows))
                        some = some.set_column(0, "observation_id", numbers)
                        count += some.num_rows
                    open_[name].write(some)
    return count - options.first


def rows(
    events: pa.Table,
    predictions: pa.Table,
    known: pa.Table | None = None,
    *,
    source: str,
    within: int,
    cohort: int,
    named: bool,
) -> dict[str, pa.Table]:
    """The kernel: OBSERVATION (not numbered yet) and COHORT of whole patients.

    ``named``: person_id is the patient's own identifier, else the subject.
    """
    person = persons(predictions) if named else ev.subjects(predictions)
    moment = ev.times(ev.column(predictions, "prediction_time"))
    count = predictions.num_rows
    told = {
        "person_id": pa.array(person),
        "observation_date": _days(moment),
        "observation_datetime": pa.array(moment).cast(pa.timestamp("us")),
        "value_as_number": predictions.column("predicted_boolean_probability"),
        "observation_source_value": pa.array([source] * count, pa.string()),
        "observation_concept_id": pa.array(np.zeros(count, np.int64)),
        "observation_type_concept_id": pa.array(np.full(count, ALGORITHM)),
        "observation_source_concept_id": pa.array(np.zeros(count, np.int64)),
    }
    observed = [
        told[column.name] if column.name in told else pa.nulls(count, column.type)
        for column in OBSERVATION.columns
    ]
    above = predictions.column("predicted_boolean_value").to_numpy(zero_copy_only=False)
    who, start, end = spells(person[above], moment[above], within)
    member = [pa.array(np.full(len(who), cohort)), pa.array(who), _days(start), _days(end)]
    return {
        OBSERVATION.name: pa.table(observed, schema=OBSERVATION.arrow),
        COHORT.name: pa.table(member, schema=COHORT.arrow),
    }


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
