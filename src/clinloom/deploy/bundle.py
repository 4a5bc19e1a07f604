"""The bundle: a model with its study, its features and its evidence, ready to score.

``bundle.json`` (study, features, the units that were learned, evidence, and the names of the other
parts), the scorer (arrays), the reference that a model at work is watched by, and the same model as
a saved ``PipelineModel``. Loading and predicting need no Spark.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from clinloom import clean as cleaning
from clinloom import cohort as cohorts
from clinloom import events as ev
from clinloom import features as featuring
from clinloom import files, plugins, store
from clinloom import study as studies
from clinloom.deploy.scorer import Scorer
from clinloom.errors import DataError, StoreError, UsageError
from clinloom.events import NEVER, Ints
from clinloom.features import Feature
from clinloom.files import Address
from clinloom.history import History
from clinloom.store import layout
from clinloom.study import Study
from clinloom.tables import ACQUIRED, INDEX, PREDICTIONS, conform, tally

if TYPE_CHECKING:
    from clinloom.evaluate.watch import Reference

FORMAT = 3  # with what reasons are told from
READ = (2, FORMAT)  # 2 scores as well
DOCUMENT = layout.BUNDLE
REFUSED = "rejected"
REGISTRY = "models:/"  # MLflow's
SCORED = "clinloom.bundle"  # in the metadata of a file of scores: by which bundle they are


def publish(
    place: Address,
    *,
    scorer: Scorer,
    study: Mapping[str, Any],
    features: Sequence[Feature],
    evidence: Mapping[str, Any],
    check: Callable[[], None],
    units: Mapping[str, str | None] | None = None,
    reference: str | None = None,
    spark: Callable[[Address], None] | None = None,
) -> None:
    """Put a bundle at an address in one step: ``bundle.json`` comes last and names the rest.

    ``spark`` writes the saved ``PipelineModel`` at the address it is given. Whoever loads while
    another bundle is put there gets the old one or the new one, whole. ``check`` raises StoreError
    where another run holds the output by now: it comes right before the step, which replaces the
    document that was there, and no later one.
    """
    mark = uuid.uuid4().hex[:12]
    parts = {"scorer": f"scorer-{mark}.npz"}
    if spark is not None:
        parts["spark"] = f"spark-{mark}"
        spark(place / parts["spark"])
    files.write(place / parts["scorer"], scorer.dump())
    if reference is not None:
        parts["reference"] = f"reference-{mark}.json"
        files.write(place / parts["reference"], reference.encode())
    document = {
        "format": FORMAT,
        "parts": parts,
        "study": study,
        "features": [feature.to_dict() for feature in features],
        "units": dict(units or {}),
        **evidence,
    }
    try:
        store.replace(place / DOCUMENT, json.dumps(document, indent=1).encode(), check)
    except StoreError:  # nothing names them
        for name in parts.values():
            files.remove(place / name)
        raise
    kept = (DOCUMENT, *parts.values())
    others = (
        entry
        for entry in files.listed(place)
        if entry.address.relative_to(place).split("/")[0] not in kept
    )
    store.sweep(others, check)


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle."""

    place: Address
    document: Mapping[str, Any]
    scorer: Scorer

    @classmethod
    def load(cls, place: str | os.PathLike[str]) -> Bundle:
        """Read a bundle, from any storage, or from MLflow's registry (``models:/NAME@ALIAS``).

        Raises StoreError where none is.
        """
        at = _registered(place) or files.address(place)
        mend = "give OUT/bundle of a run"
        try:
            document = json.loads(files.read(at / DOCUMENT))
            if document.get("format") not in READ:
                raise StoreError("the bundle was written by another version", where=str(place))
            scorer = Scorer.parse(files.read(at / document["parts"]["scorer"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise StoreError("this is not a whole bundle", where=str(place), mend=mend) from None
        return cls(at, document, scorer)

    @property
    def spark(self) -> str:
        """Where ``PipelineModel.load`` finds the same model. Raises KeyError where absent."""
        uri: str = (self.place / self.document["parts"]["spark"]).uri
        return uri

    @cached_property
    def reference(self) -> Reference:
        """What its training and test rows were like. Raises StoreError where it was not kept."""
        from clinloom.evaluate.watch import Reference  # which loads SciPy: no request needs it

        parts = self.document["parts"]
        if "reference" not in parts:
            raise StoreError(
                "the bundle keeps no `reference` of its training rows, to watch new ones by",
                where=str(self.place),
                mend="run its study again with this version: what is committed is kept",
            )
        return Reference.parse(json.loads(files.read(self.place / parts["reference"])))

    @property
    def mark(self) -> str:
        """What tells this publication from others at the same address."""
        mark: str = self.document["parts"]["scorer"]
        return mark

    @property
    def scored_by(self) -> dict[str, Any]:
        """What its scores tell of it: study, title, model, mark and threshold."""
        told = {"study": self.study["name"], "title": self.study.get("title")}
        return {
            **told,
            "model": self.scorer.model,
            "mark": self.mark,
            "threshold": self.scorer.threshold,
        }

    @cached_property
    def hash(self) -> str:
        """A hash of its document and of its scorer: what scores, to the last bit."""
        found = hashlib.sha256()
        for name in (DOCUMENT, self.mark):
            found.update(files.read(self.place / name))
        return found.hexdigest()

    @property
    def study(self) -> Mapping[str, Any]:
        """The resolved study, as plain data."""
        resolved: Mapping[str, Any] = self.document["study"]
        return resolved

    @cached_property
    def resolved(self) -> Study:
        """The study itself."""
        return studies.parse(self.study, rooms=plugins, where="bundle")

    @cached_property
    def features(self) -> list[Feature]:
        """The feature list, in the order of the scorer's columns."""
        return [Feature.from_dict(f) for f in self.document["features"]]

    @property
    def units(self) -> Mapping[str, str | None]:
        """The unit in which the model knows each code that no vocabulary does; None: in none."""
        learned: Mapping[str, str | None] = self.document.get("units", {})
        return learned

    def predict(self, events: Any, at: Any = None) -> pa.Table:
        """Clean, find the moments, compute features and score: plain Python, one patient or many.

        ``events``: an Arrow table, a pandas DataFrame or a list of dictionaries with the columns
        of the events table (``subject_id``, ``time``, ``code`` and, where there are any,
        ``numeric_value``, ``text_value``, ``unit``; a dictionary may lack any of these). A
        dictionary's time names its zone; a column without one is UTC's; dates are refused
        (DataError). ``at``: a moment with its zone for every patient, in place of the study's index
        times, of which those still to come are left out. Answers PREDICTIONS; ``boolean_value`` is
        null. What cleaning refused (see :meth:`clean`) is counted by reason in the answer's
        metadata, as JSON under ``rejected``, where there is any.
        """
        made = self.clean(events, ledger=False)
        cleaned = made["events"]
        found = self.risks(cleaned, self.moments(cleaned, at)["index"])
        reasons = tally(made["rejected"].column("reason"))
        return found.replace_schema_metadata({REFUSED: json.dumps(reasons)}) if reasons else found

    def clean(
        self, events: Any, refused: pa.Table | None = None, *, ledger: bool = True
    ) -> dict[str, pa.Table]:
        """Events as the model sees them: ``events`` (EVENTS), ``rejected`` (REJECTED), ``ledger``.

        ``events``: as for :meth:`predict`; ``refused`` (REFUSED): what their source refused.
        """
        rules, given = self.resolved.clean, acquired(events)
        return cleaning.clean(given, rules, refused, self.units, ledger=ledger)

    def risks(self, cleaned: pa.Table, index: pa.Table) -> pa.Table:
        """Score the moments of ``index`` (INDEX) from clean events of whole patients (EVENTS).

        The one road from clean events to risks, in batch as in a request. Answers PREDICTIONS.
        """
        return self.scored(index, self.values(cleaned, index))

    def values(self, cleaned: pa.Table, index: pa.Table) -> np.ndarray:
        """The features (n, f) of the moments of ``index``, in the list's order; NaN: missing."""
        return featuring.matrix(cleaned, index, self.features)

    def scored(self, index: pa.Table, values: np.ndarray) -> pa.Table:
        """The risks of rows of features (n, f), which stand for the moments of ``index``."""
        risk = self.scorer.score(values) if index.num_rows else np.zeros(0)
        columns = [
            index.column("subject_id"),
            index.column("prediction_time"),
            pa.nulls(index.num_rows, pa.bool_()),
            pa.array(risk >= self.scorer.threshold),
            pa.array(risk),
        ]
        return pa.table(columns, schema=PREDICTIONS.arrow)

    def moments(self, events: pa.Table, at: Any = None) -> dict[str, pa.Table]:
        """The ``index`` (INDEX) of clean events: the study's moments that are due, with the
        ``flow`` (FLOW) that led there; or the moment ``at`` of every patient.
        """
        if at is None:
            now = present(events, time.time_ns() // 1000)
            return cohorts.due(events, self.resolved.cohort, now=now)
        if _zoneless(at):
            raise UsageError("it names no zone", where="at", mend="give the datetime its tzinfo")
        subjects = pa.array(np.unique(events.column("subject_id").to_numpy()))
        moment = pa.scalar(at, INDEX.arrow.field("prediction_time").type)
        rows = {"subject_id": subjects, "prediction_time": pa.repeat(moment, len(subjects))}
        return {"index": conform(pa.table(rows), INDEX)}


def published(place: str) -> str | None:
    """What changes whenever another bundle is published at an address; None where none is."""
    if place.startswith(REGISTRY):
        from clinloom.deploy import registry

        return registry.version(place)
    return files.version(files.address(place) / DOCUMENT)


def _registered(place: str | os.PathLike[str]) -> Address | None:
    """Where a bundle of MLflow's registry lies on this machine; None for another address."""
    if not str(place).startswith(REGISTRY):
        return None
    from clinloom.deploy import registry

    return registry.local(str(place))


def present(events: pa.Table, now: int) -> Ints:
    """The present of each patient (p,), in microseconds: ``now``; NEVER where dates were shifted.

    They were where all that is told of the patient, birth aside, lies past ``now``: one fact that
    was by then shows that the dates are true, and what lies ahead of it is planned, mistaken, or
    known at the end of today. Nobody's dates say anything of another's.
    """
    history = History(events)
    if not (history.last_seen > now).any():
        return np.full(len(history.subjects), now)
    return np.where(history.first_begun > now, NEVER, now)


def acquired(events: Any) -> pa.Table:
    """Events in any of the accepted forms as a sorted ACQUIRED table.

    A column of times without a zone is UTC's, as MEDS has it. Raises DataError where a time is a
    date, of which nobody knows when in the day, or where a dictionary's names no zone.
    """
    if isinstance(events, pa.Table):
        table = events
    elif hasattr(events, "columns") and hasattr(events, "to_dict"):
        table = pa.Table.from_pandas(events, preserve_index=False)
    else:
        rows = list(events)
        if any(_zoneless(row.get("time")) for row in rows):
            raise DataError(
                "a time is a date or names no zone",
                where="column 'time'",
                mend="give each datetime its tzinfo; a fact of a day is known at the day's end",
            )
        names = dict.fromkeys(name for row in rows for name in row)  # not the first one's alone
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
    if "time" in table.column_names and pa.types.is_date(table.schema.field("time").type):
        raise DataError(
            "it holds dates, which are no times",
            where="column 'time'",
            mend="give timestamps: a fact of a day is known at the day's end",
        )
    conformed = conform(table, ACQUIRED, words=True)
    subject, time = ev.subjects(conformed), ev.times(ev.column(conformed, "time"))
    later = (subject[1:] > subject[:-1]) | ((subject[1:] == subject[:-1]) & (time[1:] >= time[:-1]))
    return conformed if later.all() else conformed.take(pa.array(np.lexsort((time, subject))))


def _zoneless(time: Any) -> bool:
    """Whether a single time is a date, or names no zone; a missing one (NaT) is neither."""
    single = isinstance(time, (dt.date, np.datetime64)) and time == time
    return bool(single and getattr(time, "tzinfo", None) is None)
