"""The FHIR front's forms: Parameters that ask, and RiskAssessments that answer.

(FHIR R4 2.35 Parameters; 9.8 RiskAssessment; 2.36 Bundle)
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from clinloom import events as ev
from clinloom.deploy._problems import Problem
from clinloom.deploy._standing import Served
from clinloom.deploy.door import Answer, Refusal

RESOURCES = ("bundle", "resource")
REFERENCE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")  # R4 2.24.0.3: a resource's id


class Reference(msgspec.Struct):
    """R4 2.3."""

    reference: str | None = None


class Parameter(msgspec.Struct):
    """R4 2.35, Parameters.parameter, as far as it is read."""

    name: str
    resource: msgspec.Raw = msgspec.Raw(b"")
    valueReference: Reference | None = None
    valueString: str | None = None
    valueDateTime: str | None = None
    valueInstant: str | None = None
    valueBoolean: bool | None = None


class Parameters(msgspec.Struct, tag_field="resourceType", tag="Parameters"):
    """R4 2.35."""

    parameter: list[Parameter] = []


class Asked(NamedTuple):
    """What is asked: resources, whose they have to be, when, and whether with reasons."""

    resources: bytes
    subject: str | None = None
    at: str | None = None
    explain: bool = False

    def or_else(self, subject: str | None, at: str | None) -> tuple[str | None, str | None]:
        """Whose and when, as asked here or in the query. Raises Problem where these differ."""
        for name, own, other in (("subject", self.subject, subject), ("at", self.at, at)):
            if own is not None and other is not None and own != other:
                raise Problem(400, "unknown_parameter", detail=f"{name} is told twice")
        return self.subject or subject, self.at or at


_decode = msgspec.json.Decoder(Parameters).decode


def asked(body: bytes) -> Asked:
    """Take Parameters apart; anything else is the resources themselves. Raises Problem."""
    if b'"Parameters"' not in body:
        return Asked(body)
    try:
        given = _decode(body).parameter
    except msgspec.ValidationError:  # another resource, in which the word stands
        return Asked(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal("malformed_json") from None
    resources: list[bytes] = []
    told: dict[str, Any] = {}
    for one in given:
        if one.name in told:
            raise Problem(400, "unknown_parameter", detail=f"{one.name} is told twice")
        if one.name in RESOURCES and bytes(one.resource):
            resources.append(bytes(one.resource))
        elif one.name == "subject":
            told["subject"] = one.valueReference.reference if one.valueReference else None
            told["subject"] = told["subject"] or one.valueString
        elif one.name == "at":
            told["at"] = one.valueInstant or one.valueDateTime
        elif one.name == "explain" and one.valueBoolean is not None:
            told["explain"] = one.valueBoolean
        else:
            raise Problem(400, "unknown_parameter", detail="bundle, resource, subject, at, explain")
        if told.get(one.name, 0) is None:
            raise Problem(400, "unknown_parameter", detail=f"the value of {one.name} is of no type")
    data = resources[0] if len(resources) == 1 else b"[" + b",".join(resources) + b"]"
    return Asked(data, **told)


def assessments(served: Served, answer: Answer, reasons: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A Bundle of RiskAssessments, and an OperationOutcome where there is more to tell.

    ``reasons``: of each prediction, in words; none: not asked for.
    """
    name, cohort = served.name, served.bundle.study["cohort"]
    outcome = served.bundle.study.get("title") or ", ".join(cohort["outcome"]["codes"])
    threshold = served.bundle.scorer.threshold
    within = served.bundle.resolved.cohort.outcome.within
    bases = _bases(served, answer)
    made = []
    for at, row in enumerate(answer.rows):
        moment = row["prediction_time"]
        above = "at or above" if row["predicted_boolean_value"] else "below"
        end = moment + dt.timedelta(microseconds=within)
        prediction = {
            "outcome": {"text": outcome},
            "probabilityDecimal": row["predicted_boolean_probability"],
            "qualitativeRisk": {"text": f"{above} the threshold of {threshold:.6g}"},
            "whenPeriod": {"start": instant(moment), "end": instant(end)},
        }
        if reasons and reasons[at]:
            prediction["rationale"] = "; ".join(reasons[at])
        made.append(
            {
                "resourceType": "RiskAssessment",
                "status": "final",
                "method": {"text": f"{name['model']} of study {name['study']}, {name['mark']}"},
                "subject": {"reference": answer.patients[row["subject_id"]]},
                "occurrenceDateTime": instant(moment),
                "basis": [{"reference": record} for record in next(bases)],
                "prediction": [prediction],
            }
        )
        made[-1] = {k: v for k, v in made[-1].items() if v}  # FHIR has no empty lists
    issues = list(_issues(answer))
    if issues:
        made.append({"resourceType": "OperationOutcome", "issue": issues})
    entries = {"entry": [{"resource": resource} for resource in made]} if made else {}
    return {"resourceType": "Bundle", "type": "collection", **entries}


def instant(moment: dt.datetime) -> str:
    """A moment as FHIR writes it."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _bases(served: Served, answer: Answer) -> Iterator[list[str]]:
    """For each prediction, the records known before it of codes that the model uses."""
    events = answer.events
    position, codes = ev.coded(ev.column(events, "code"))
    leant = ev.looked_up(np.array([code in served.door.leans for code in codes], bool), position)
    rows = np.flatnonzero(leant)
    subject = ev.subjects(events)[rows]
    time = ev.times(ev.column(events, "time"))[rows]
    record = ev.column(events, "record_id").take(pa.array(rows)).to_pylist()
    index = answer.predictions
    moments = ev.times(ev.column(index, "prediction_time")).tolist()
    for one, moment in zip(ev.subjects(index).tolist(), moments, strict=True):
        at = np.flatnonzero((subject == one) & (time < moment)).tolist()
        found = dict.fromkeys(record[row] for row in at)
        own = answer.patients[one]
        named = (own if text and text.startswith("patient#") else text for text in found)
        yield [text for text in dict.fromkeys(named) if text and REFERENCE.fullmatch(text)]


def _issues(answer: Answer) -> Iterator[dict[str, Any]]:
    if not answer.predictions.num_rows:
        empty = next((name for name, rows in list(answer.flow.items())[1:] if not rows), None)
        text = f"no prediction is due: nobody is left by '{empty}'" if empty else "nobody is left"
        yield _issue("information", "business-rule", text)
    for reason, count in sorted(answer.refused.items()):
        yield _issue("information", "processing", f"not taken: {reason}: {count}")
    for refusal in answer.unscored.values():
        yield _issue("warning", "business-rule", f"a patient is not scored: {refusal.message}")


def _issue(severity: str, code: str, text: str) -> dict[str, Any]:
    return {"severity": severity, "code": code, "details": {"text": text}}
