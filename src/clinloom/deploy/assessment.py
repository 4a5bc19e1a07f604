"""A prediction as a FHIR RiskAssessment: one form, in answers of the service as in batch.

(FHIR R4 9.8 RiskAssessment)
"""

from __future__ import annotations

import datetime as dt
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.deploy.bundle import Bundle

REFERENCE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")  # R4 2.24.0.3: a resource's id


class Assessor(NamedTuple):
    """What all RiskAssessments of a bundle say alike. ``within``: microseconds."""

    outcome: str
    method: str
    threshold: float
    within: int

    @classmethod
    def of(cls, bundle: Bundle) -> Assessor:
        """The bundle's."""
        study, scorer = bundle.study, bundle.scorer
        outcome = study.get("title") or ", ".join(study["cohort"]["outcome"]["codes"])
        method = f"{scorer.model} of study {study['name']}, {bundle.mark}"
        return cls(outcome, method, scorer.threshold, bundle.resolved.cohort.outcome.within)

    def assessment(
        self,
        row: Mapping[str, Any],
        *,
        subject: Mapping[str, Any],
        basis: list[str],
        rationale: str = "",
    ) -> dict[str, Any]:
        """The resource of a row of PREDICTIONS.

        ``subject``: a Reference; ``basis``: references to the records that were known.
        """
        moment = row["prediction_time"]
        above = "at or above" if row["predicted_boolean_value"] else "below"
        end = moment + dt.timedelta(microseconds=self.within)
        prediction = {
            "outcome": {"text": self.outcome},
            "probabilityDecimal": row["predicted_boolean_probability"],
            "qualitativeRisk": {"text": f"{above} the threshold of {self.threshold:.6g}"},
            "whenPeriod": {"start": instant(moment), "end": instant(end)},
        }
        if rationale:
            prediction["rationale"] = rationale
        made = {
            "resourceType": "RiskAssessment",
            "status": "final",
            "method": {"text": self.method},
            "subject": subject,
            "occurrenceDateTime": instant(moment),
            "basis": [{"reference": record} for record in basis],
            "prediction": [prediction],
        }
        return {key: value for key, value in made.items() if value}  # FHIR has no empty lists


def instant(moment: dt.datetime) -> str:
    """A moment as FHIR writes it."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def urn(text: str) -> str:
    """A name within a Bundle, the same each time."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}"


def bases(
    events: pa.Table, index: pa.Table, leans: frozenset[str], own: Mapping[int, str | None]
) -> Iterator[list[str]]:
    """For each row of ``index``, references to records known before it of codes in ``leans``.

    ``events``: clean ones, sorted by subject; ``own``: the reference of each subject itself.
    """
    position, codes = ev.coded(ev.column(events, "code"))
    leant = ev.looked_up(np.array([code in leans for code in codes], bool), position)
    kept = np.flatnonzero(leant)
    time = ev.times(ev.column(events, "time"))[kept]
    record = ev.column(events, "record_id").take(pa.array(kept)).to_pylist()
    subject = ev.subjects(index)
    begin, end = ev.located(ev.subjects(events)[kept], subject)
    moments = ev.times(ev.column(index, "prediction_time"))
    for one, first, last, moment in zip(
        subject.tolist(), begin.tolist(), end.tolist(), moments.tolist(), strict=True
    ):
        at = (first + np.flatnonzero(time[first:last] < moment)).tolist()
        found = dict.fromkeys(record[row] for row in at)
        named = (own.get(one) if text and text.startswith("patient#") else text for text in found)
        yield [text for text in dict.fromkeys(named) if text and REFERENCE.fullmatch(text)]
