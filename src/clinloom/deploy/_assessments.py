"""The FHIR front's forms: Parameters that ask, and RiskAssessments that answer.

(FHIR R4 2.35 Parameters; 9.8 RiskAssessment; 2.36 Bundle)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from clinloom.deploy._problems import Problem
from clinloom.deploy._standing import Served
from clinloom.deploy.assessment import Assessor, bases, urn
from clinloom.deploy.door import Answer, Refusal

RESOURCES = ("bundle", "resource")


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
_encode = msgspec.json.Encoder().encode


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
    assessor = Assessor.of(served.bundle)
    records = bases(answer.events, answer.predictions, served.door.leans, answer.patients)
    made = [
        assessor.assessment(
            row,
            subject={"reference": answer.patients[row["subject_id"]]},
            basis=next(records),
            rationale="; ".join(reasons[at]) if reasons else "",
        )
        for at, row in enumerate(answer.rows)
    ]
    issues = list(_issues(answer))
    if issues:
        made.append({"resourceType": "OperationOutcome", "issue": issues})
    entries = [{"fullUrl": urn(_encode(one).decode()), "resource": one} for one in made]
    told: dict[str, Any] = {"resourceType": "Bundle", "type": "collection"}
    return {**told, "entry": entries} if entries else told


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
