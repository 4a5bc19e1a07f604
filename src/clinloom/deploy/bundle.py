"""The bundle: a model with its study, its features and its evidence, ready to score.

``bundle.json`` (study, features, metrics, versions), ``scorer/`` (arrays) and ``spark/`` (the same
model as a saved ``PipelineModel``). Loading and predicting need no Spark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clinloom import clean as cleaning
from clinloom import cohort as cohorts
from clinloom import features as featuring
from clinloom import plugins
from clinloom import study as studies
from clinloom.deploy.scorer import Scorer
from clinloom.errors import StoreError
from clinloom.events import STATIC
from clinloom.features import Feature
from clinloom.study import Study
from clinloom.tables import ACQUIRED, INDEX, PREDICTIONS, conform

FORMAT = 1


def write(
    folder: Path,
    *,
    scorer: Scorer,
    study: Mapping[str, Any],
    features: Sequence[Feature],
    evidence: Mapping[str, Any],
) -> None:
    """Write everything but the Spark model into an empty folder."""
    scorer.save(folder / "scorer")
    document = {
        "format": FORMAT,
        "study": study,
        "features": [feature.to_dict() for feature in features],
        **evidence,
    }
    (folder / "bundle.json").write_text(json.dumps(document, indent=1))


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle."""

    folder: Path
    document: Mapping[str, Any]
    scorer: Scorer

    @classmethod
    def load(cls, folder: str | Path) -> Bundle:
        """Read a bundle. Raises StoreError where none is."""
        folder = Path(folder)
        try:
            document = json.loads((folder / "bundle.json").read_text())
            scorer = Scorer.load(folder / "scorer")
        except (OSError, ValueError, KeyError, TypeError):
            raise StoreError(
                "this is not a whole bundle", where=str(folder), mend="give OUT/bundle of a run"
            ) from None
        if document.get("format") != FORMAT:
            raise StoreError("the bundle was written by another version", where=str(folder))
        return cls(folder, document, scorer)

    @property
    def study(self) -> Mapping[str, Any]:
        """The resolved study, as plain data."""
        return self.document["study"]

    @cached_property
    def resolved(self) -> Study:
        """The study itself."""
        return studies.parse(self.study, rooms=plugins, where="bundle")

    @cached_property
    def features(self) -> list[Feature]:
        """The feature list, in the order of the scorer's columns."""
        return [Feature.from_dict(f) for f in self.document["features"]]

    def predict(self, events: Any, at: Any = None) -> pa.Table:
        """Clean, find the moments, compute features and score: plain Python, one patient or many.

        ``events``: an Arrow table, a pandas DataFrame or a list of dictionaries with the columns
        of the events table (``subject_id``, ``time``, ``code`` and, where there are any,
        ``numeric_value``, ``text_value``, ``unit``). ``at``: a moment for every patient, in place
        of the study's index times. Answers PREDICTIONS; ``boolean_value`` is null.
        """
        acquired = _acquired(events)
        cleaned = cleaning.clean(acquired, self.resolved.clean)["events"]
        index = self._moments(cleaned, at)
        values = featuring.matrix(cleaned, index, self.features)
        risk = self.scorer.score(values) if index.num_rows else np.zeros(0)
        columns = [
            index.column("subject_id"),
            index.column("prediction_time"),
            pa.nulls(index.num_rows, pa.bool_()),
            pa.array(risk >= self.scorer.threshold),
            pa.array(risk),
        ]
        return pa.table(columns, schema=PREDICTIONS.arrow)

    def _moments(self, events: pa.Table, at: Any) -> pa.Table:
        if at is None:
            return cohorts.cohort(events, self.resolved.cohort)["index"]
        subjects = pa.array(np.unique(events.column("subject_id").to_numpy()))
        moment = pa.scalar(at, INDEX.arrow.field("prediction_time").type)
        rows = {"subject_id": subjects, "prediction_time": pa.repeat(moment, len(subjects))}
        return conform(pa.table(rows), INDEX)


def _acquired(events: Any) -> pa.Table:
    """Events in any of the accepted forms as a sorted ACQUIRED table."""
    if isinstance(events, pa.Table):
        table = events
    elif hasattr(events, "columns") and hasattr(events, "to_dict"):
        table = pa.Table.from_pandas(events, preserve_index=False)
    else:
        table = pa.Table.from_pylist(list(events))
    conformed = conform(table, ACQUIRED)
    subject = conformed.column("subject_id").to_numpy()
    time = conformed.column("time").cast("int64").fill_null(STATIC).to_numpy()
    later = (subject[1:] > subject[:-1]) | ((subject[1:] == subject[:-1]) & (time[1:] >= time[:-1]))
    return conformed if later.all() else conformed.take(pa.array(np.lexsort((time, subject))))
