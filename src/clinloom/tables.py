"""Every table of Clinloom, declared once: columns, types, nullability, key, and why it exists.

The events table has the shape of the MEDS 0.4 data schema, the index table of its label schema,
and predictions carry the columns that meds-evaluation reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom.errors import DataError

BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"  # codes of MEDS
TIME = pa.timestamp("us", tz="UTC")
Fault = tuple[str, str | None]  # the reason of a refusal, and the field that was at fault


@dataclass(frozen=True)
class Column:
    """A column: its Arrow type, whether it may be null, and what it means (with its unit)."""

    name: str
    type: pa.DataType
    meaning: str
    nullable: bool = True


@dataclass(frozen=True)
class Table:
    """A declared table. ``key`` names the columns that it is sorted by within a bucket."""

    name: str
    why: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema."""
        return pa.schema([pa.field(c.name, c.type, c.nullable) for c in self.columns])

    @cached_property
    def empty(self) -> pa.Table:
        """The table without a row."""
        return self.arrow.empty_table()

    def rows(self, rows: Iterable[dict[str, Any]]) -> pa.Table:
        """A small table from dictionaries; absent columns are null."""
        return pa.Table.from_pylist(list(rows), schema=self.arrow)


def tally(column: pa.ChunkedArray | pa.Array) -> Counter[str]:
    """How often each text of a column is there."""
    return Counter({each["values"]: each["counts"] for each in column.value_counts().to_pylist()})


def faults(refused: pa.Table) -> Counter[Fault]:
    """How often each reason is among refusals, and of it each field that was at fault."""
    found = refused.group_by(["reason", "field"]).aggregate([([], "count_all")]).to_pylist()
    return Counter({(each["reason"], each["field"]): each["count_all"] for each in found})


def conform(table: pa.Table, declared: Table, *, words: bool = False) -> pa.Table:
    """``table`` with exactly the declared columns, order and types; absent nullable ones are null.

    ``words``: texts that come dictionary-encoded (WORD) stay so, unless a word stands twice or is
    null. Raises DataError where a required column is absent, holds a null or cannot be cast.
    """
    arrays, there = [], frozenset(table.column_names)
    for column in declared.columns:
        if column.name not in there:
            if not column.nullable:
                raise DataError(f"column '{column.name}' is absent", where=declared.name)
            arrays.append(pa.nulls(table.num_rows, column.type))
            continue
        values = table.column(column.name)
        stays = words and column.type == WORD.value_type and _words(values)
        if values.type != column.type and not stays:
            try:
                values = values.cast(column.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise DataError(
                    f"column '{column.name}' is {values.type}, not {column.type}",
                    where=declared.name,
                ) from None
        if not column.nullable and values.null_count:
            raise DataError(f"column '{column.name}' holds nulls", where=declared.name)
        arrays.append(values)
    if words:
        return pa.table(arrays, declared.arrow.names)
    return pa.table(arrays, schema=declared.arrow)


def _words(values: pa.ChunkedArray) -> bool:
    """Whether each position stands for a word of its own."""
    if values.type != WORD:
        return False
    each = [part.dictionary for part in values.chunks]
    return not any(d.null_count or len(d.unique()) < len(d) for d in each)


WORD = pa.dictionary(pa.int32(), pa.string())  # a column of few distinct texts
_string, _long, _int, _double = pa.string(), pa.int64(), pa.int32(), pa.float64()
_subject = Column("subject_id", _long, "pseudonymous patient", nullable=False)
_patient = Column("patient", _string, "the source's own identifier of the patient", nullable=False)
_moment = Column("prediction_time", TIME, "when the prediction is made (index time)", False)
_outcome = Column("boolean_value", pa.bool_(), "the outcome in the time at risk; null: not known")
_side = Column(
    "split", _string, "train, test, or null: in neither; judged in turn: its site, or crossed"
)
_fact = (
    Column("time", TIME, "when the fact was known; null: static"),
    Column("code", _string, "vocabulary//code", nullable=False),
    Column("numeric_value", _double, "the value, in `unit`"),
    Column("text_value", _string, "a coded or textual value; empty: a value was due but absent"),
    Column("unit", _string, "UCUM unit"),
    Column("source", _string, "the source's name in the study"),
    Column("record_id", _string, "the record that it came from; patient#…: the patient's own"),
    Column(
        "earlier",
        _long,
        "by how many microseconds before `time` it may have happened (at a sample, an onset, the"
        " begin of a day of which no hour is told); null: not before",
    ),
)
_time_text = Column(
    "time_text", _string, "a time in no declared format, [zone] of its source, for the cleaning"
)
_version = Column(
    "version", _long, "of several versions of a record the last is the greatest; null: 0"
)
_image = (
    Column("study_uid", _string, "(0020,000D)"),
    Column("series_uid", _string, "(0020,000E)"),
    Column("sop_uid", _string, "(0008,0018), or the image's name"),
    Column("modality", _string, "(0008,0060)"),
    Column("body_part", _string, "(0018,0015)"),
    Column("view", _string, "(0018,5101), such as AP, PA, LATERAL"),
    Column("laterality", _string, "(0020,0062) or (0020,0060): L, R, B or U"),
    Column("manufacturer", _string, "(0008,0070)"),
    Column("burned_in", pa.bool_(), "(0028,0301): whether pixels show who it is; null: not told"),
    Column("content", _string, "image; or localizer, segmentation, dose, report: not measured"),
    Column("quantity", _string, "the unit of its pixels as DICOM names it: HU, GML, BQML; or null"),
    Column("time", TIME, "when the image was available"),
    Column("rows", _int, "height in pixels"),
    Column("columns", _int, "width in pixels"),
    Column("file", _string, "where the original lies"),
    Column("source", _string, "the source's name in the study"),
)
_refusal = (
    Column("source", _string, "the source's name in the study"),
    Column("record_id", _string, "the record refused"),
    Column("code", _string, "the event's code"),
    Column("stage", _string, "which stage refused it"),
    Column("reason", _string, "why: a short name, never a value"),
    Column(
        "field",
        _string,
        "what of it was at fault: a table's column, a resource's element, at cleaning a column of"
        " `acquired`; null: all of it, or not known",
    ),
    Column("file", _string, "where the original lies"),
    Column("position", _long, "line number or byte offset in that file"),
)

EVENTS = Table(
    "events",
    "the waist: everything that happens to a patient, an image's measurements included",
    (_subject, *_fact),
    ("subject_id", "time", "code"),
)
ACQUIRED = Table(
    "acquired",
    "events as the sources gave them, clustered by patient, before cleaning",
    (_subject, *_fact, _time_text, _version),
    ("subject_id", "time", "code"),
)
IMAGES = Table("images", "one row an image, with its DICOM identity", (_subject, *_image))
REJECTED = Table(
    "rejected",
    "what was refused and why: nothing is dropped silently",
    (Column("subject_id", _long, "pseudonymous patient, where known"), *_refusal),
)
REFUSED = Table(
    "rejected",
    "what the sources refused, on its way to cleaning",
    (*REJECTED.columns, _version),
)
LEDGER = Table(
    "ledger",
    "what acquisition, cleaning and preparation changed, counted by code and rule",
    (
        Column("source", _string, "the source's name in the study"),
        Column("code", _string, "the events' code, or a feature's name"),
        Column("rule", _string, "which rule", nullable=False),
        Column("action", _string, "what it did", nullable=False),
        Column("count", _long, "how many", nullable=False),
    ),
)
UNITS = Table(
    "units",
    "in which units the numbers of each code came, and what became of each: one unit a code",
    (
        Column("code", _string, "the events' code", nullable=False),
        Column("unit", _string, "as the sources write it; null: none was told"),
        Column("events", _long, "how many numbers, before cleaning", nullable=False),
        Column("canonical", _string, "the code's unit; null: of several none is trusted"),
        Column(
            "action",
            _string,
            "kept, respelled, converted, assumed, or refused as unknown_unit or several_units",
            nullable=False,
        ),
    ),
)
ASSUMED_ZONE = "assumed_zone"  # the ledger's rule that counts times of which nobody tells the zone
REASSIGNED = "reassigned"  # the reason of what a later version tells of another patient
TAKEN_BACK = "identity"  # the stage of a refusal that says so to cleaning, and is no record itself
KNOWN_AT_END = "known_at_end"  # the ledger's action on a time of which no hour is told
CONTESTED = "contested_record"  # the ledger's rule that counts records of several patients
DISPLAYS = Table(
    "displays",
    "what the sources call codes, where enough patients bear witness: for the report",
    (
        Column("code", _string, "vocabulary//code", nullable=False),
        Column("display", _string, "what people call it", nullable=False),
    ),
    ("code",),
)
CALLED = "display of a code"  # the ledger's rule on its way: action is what a source calls a code
CROSSWALK = Table(
    "crosswalk",
    "the only link from source identifiers to subjects; it stays in the guarded store",
    (
        Column("system", _string, "the system of the identifier; #source: of that source alone"),
        Column("identifier", _string, "as the source writes it", False),
        _subject,
    ),
)
LINKAGE = Table(
    "linkage",
    "subjects whose sources contradict each other: are they one patient?",
    (
        _subject,
        Column("fact", _string, "birth: dates a day or more apart; sex: unlike ones", False),
        Column("values", _long, "how many different ones", False),
        Column("sources", _long, "how many sources tell them", False),
    ),
    ("subject_id",),
)
MOVED = Table(
    "moved",
    "subjects by their own identifiers that turned out to be others, while events are clustered",
    (
        Column("own", _long, "the hash of the identifier", False),
        Column("true", _long, "the subject", False),
    ),
    ("own",),
)
EXTENT = Table(
    "extent",
    "how far the whole input reaches",
    (Column("last", TIME, "the time of the last event"),),
)
COUNTS = Table(
    "counts",
    "how many rows of each table there are by source, stage and reason, for the report",
    (
        Column("table", _string, "the table counted", False),
        Column("source", _string, "the source's name in the study"),
        Column("stage", _string, "which stage refused"),
        Column("reason", _string, "why"),
        Column("field", _string, "what was at fault"),
        Column("rows", _long, "how many", False),
    ),
)
INDEX = Table(
    "index",
    "the moments at which a prediction is made, with the outcome (MEDS label schema) and the split",
    (
        _subject,
        _moment,
        _outcome,
        _side,
    ),
    ("subject_id", "prediction_time"),
)
LABELS = Table(
    "labels",
    "outcomes of scored moments (MEDS label schema): the index, a later scoring, or a site's own",
    (_subject, _moment, _outcome),
    ("subject_id", "prediction_time"),
)
STRATA = Table(
    "strata",
    "how many patients each salt of the split's and the folds' hashes would put where",
    (
        Column("division", _string, "split or fold", False),
        Column("salt", _long, "by which hash", False),
        Column("part", _long, "of the split 0: train, 1: test; of the folds their number", False),
        Column("positive", _long, "1: patients who ever had the outcome, 0: the others", False),
        Column("subjects", _long, "patients", False),
    ),
)
STRADDLING = "outcome that may lie before"  # steps at FLOW's end, which leave nobody out
BEFORE = "outcome taken to lie before"
COMPETING = "competing event"
OUTCOME = "outcome"
FLOW = Table(
    "flow",
    "how many patients and moments each step of the cohort left",
    (
        Column("step", _int, "order", nullable=False),
        Column("name", _string, "the step", nullable=False),
        Column("subjects", _long, "patients left", nullable=False),
        Column("rows", _long, "prediction moments left", nullable=False),
    ),
)
VOCABULARY = Table(
    "vocabulary",
    "in how many training rows each code was seen: what the feature list is learned from",
    (
        Column("family", _string, "feature family", nullable=False),
        Column("code", _string, "code", nullable=False),
        Column("rows", _long, "training rows", nullable=False),
        Column("timed", _long, "of these, rows that saw it with a time", nullable=False),
    ),
)
SEEN = Table(
    "seen",
    "how many patients have each code, and numbers of it in each unit: what new data are held to",
    (
        Column("code", _string, "the events' code, before cleaning", False),
        Column("unit", _string, "as the sources write it; empty: none was told; null: any or none"),
        Column("patients", _long, "how many", False),
    ),
)
DATASET = Table(
    "dataset",
    "the integrated dataset: a row per patient and moment with outcome, split and features",
    (
        _subject,
        _moment,
        _outcome,
        _side,
        Column("values", pa.list_(_double), "one number a feature; NaN: missing", False),
    ),
    ("subject_id", "prediction_time"),
)
FEATURES = Table(
    "features",
    "a row per patient and moment; NaN: missing",
    (_subject, _moment, Column("values", pa.list_(_double), "one number a feature", False)),
    ("subject_id", "prediction_time"),
)
PREDICTIONS = Table(
    "predictions",
    "a probability and a decision for each moment (meds-evaluation's columns)",
    (
        _subject,
        _moment,
        Column("boolean_value", pa.bool_(), "the outcome, where it can be known"),
        Column("predicted_boolean_value", pa.bool_(), "at or above the threshold", False),
        Column("predicted_boolean_probability", _double, "risk, 0 to 1", nullable=False),
    ),
    ("subject_id", "prediction_time"),
)
SCORES = Table(
    "predictions",
    "predictions with the source's own identifier, where the study lets it leave",
    (
        *PREDICTIONS.columns,
        Column("patient", _string, "the source's own identifier"),
        Column("system", _string, "the system of that identifier; #source: of that source alone"),
    ),
    PREDICTIONS.key,
)
REASONS = Column(
    "reasons",
    pa.list_(pa.struct([("feature", _string), ("text", _string), ("contribution", _double)])),
    "what adds the most to the risk, either way, the weightiest first",
)
STREAMED = Table(
    "predictions",
    "predictions of a stream: of several rows of a moment that of the greatest version counts",
    (
        *PREDICTIONS.columns,
        Column("version", _long, "which step of the stream tells it; they ascend", False),
        Column("withdrawn", pa.bool_(), "the moment is none any more; its last risk", False),
    ),
    PREDICTIONS.key,
)

JUDGED = Table(
    "predictions",
    "predictions of the rows that are judged, each by a model that has not seen its patient",
    (
        *PREDICTIONS.columns,
        Column("repeat", _long, "by repeated kfold, which time; else 1", nullable=False),
        Column("part", _string, "test, the fold, or the site that was judged", nullable=False),
    ),
    (*PREDICTIONS.key, "repeat"),
)
RISKS = Table(
    "risks",
    "the test rows as every model sees them: what the bootstrap draws from",
    (
        _subject,
        Column("boolean_value", pa.bool_(), "the outcome in the time at risk", False),
        Column("part", _long, "the number of the part that the row is judged in", False),
        Column("values", pa.list_(_double), "one risk a model", False),
        Column("member", _long, "a bit a subgroup that the row is in", False),
        Column("month", _long, "of the prediction, since January 1970", False),
    ),
    ("subject_id",),
)
GROUPS = Table(
    "groups",
    "the judged rows of each model and part by risk, at most 65,536 groups: what metrics need",
    (
        Column("model", _string, "which model", nullable=False),
        Column("part", _long, "the number of the part that was judged", nullable=False),
        Column("score", _double, "mean risk of the group's rows", nullable=False),
        Column("positive", _long, "rows with the outcome", nullable=False),
        Column("total", _long, "rows", nullable=False),
        Column("low", _double, "least risk in the group", nullable=False),
        Column("high", _double, "greatest risk in the group", nullable=False),
    ),
)
TRIALS = Table(
    "trials",
    "the rows that validated a point in a fold, by risk: until the model is trained",
    (
        Column("part", _long, "the part that is judged by the model so tuned", nullable=False),
        Column("fold", _long, "the fold that validated", nullable=False),
        *GROUPS.columns[2:],
    ),
)

_key = Column(
    "key",
    _long,
    "a subgroup's number, or 2^32 and the month, 2^33 and the quarter, 2^34 and the year",
    False,
)
SUBGROUPS = Table(
    "subgroups",
    "the test rows of the selected model by subgroup or month, and risk",
    (*GROUPS.columns[2:], _key),
)
PATIENTS = Table(
    "patients",
    "how many test patients of each subgroup or month have, and have not, the outcome",
    (
        _key,
        Column("having", _long, "patients with a row that has it", False),
        Column("lacking", _long, "patients with a row that has it not", False),
    ),
)
SAMPLED = Table(
    "sampled",
    "some test rows, drawn by a hash, on which a model is explained",
    (
        Column("drawn", pa.uint64(), "the hash, which rises", False),
        _subject,
        Column("boolean_value", pa.bool_(), "the outcome in the time at risk", False),
        Column("values", pa.list_(_double), "one number a feature; NaN: missing", False),
    ),
    ("drawn",),
)

# What a source kernel yields before identities are resolved: `patient` instead of `subject_id`, and
# beside it `system`, beside `other` `other_system`, where the data tell it; else the source's own.
PARCEL_EVENTS = Table("events", ACQUIRED.why, (_patient, *_fact, _time_text, _version))
PARCEL_IMAGES = Table("images", IMAGES.why, (_patient, *_image))
PARCEL_REJECTED = Table(
    "rejected", REJECTED.why, (Column("patient", _string, _patient.meaning), *_refusal, _version)
)
PARCEL_LINKS = Table(
    "links",
    "which identifiers belong together; (p, p) for each patient seen",
    (_patient, Column("other", _string, "another identifier of the same patient", False)),
)
LINKS = Table(
    "links",
    "names (system|value, with a mark before it) that belong together; (p, p) for each name seen",
    PARCEL_LINKS.columns,
)
PARCELS = {t.name: t for t in (PARCEL_EVENTS, PARCEL_IMAGES, PARCEL_REJECTED, PARCEL_LINKS, LEDGER)}


def matrix(dataset: pa.Table, column: str = "values") -> np.ndarray:
    """A column of equally long arrays, ``values`` unless told, as an (n, f) matrix."""
    values = dataset.column(column).combine_chunks()
    rows: np.ndarray = values.flatten().to_numpy(zero_copy_only=False).reshape(dataset.num_rows, -1)
    return rows
