"""What a FHIR server is told of a scoring: transactions that may be sent again and change nothing.

A prediction is a RiskAssessment, an Observation of its number, and a Provenance that names the
model, a Device. Each is known by a key: of the first two the identifier, of the Device the bundle's
hash, of a Provenance, which has no identifier, a tag with the hash of what was said. So a
prediction that comes again finds itself, one that changed replaces itself and gets a Provenance
more, and nothing is there twice. (FHIR R4 3.1.0.11 transaction, 3.1.0.7.1 conditional create and
3.1.0.4.3 conditional update, 9.8 RiskAssessment, 6.3 Provenance, 8.9 Device)
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from clinloom.deploy.assessment import instant, urn
from clinloom.deploy.bundle import Bundle

BY = ("identifier", "reference")
BUNDLE, PREDICTION = "urn:clinloom:bundle", "urn:clinloom:prediction"
RISK, TOLD = "urn:clinloom:risk", "urn:clinloom:told"
PARTICIPANT = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
UCUM = "http://unitsofmeasure.org"


class Unsendable(ValueError):
    """A line that cannot be sent; its text is a reason, and no value."""


def key(bundle: str, subject: int, moment: dt.datetime) -> str:
    """What a prediction is known by: the same bundle, subject and moment have the same."""
    text = f"{bundle}|{subject}|{instant(moment)}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def prediction(bundle: str, subject: int, moment: dt.datetime) -> dict[str, str]:
    """The Identifier of a prediction."""
    return {"system": PREDICTION, "value": key(bundle, subject, moment)}


def identified(bundle: str) -> dict[str, Any]:
    """A Reference to the model by the hash of its bundle."""
    return {"type": "Device", "identifier": {"system": BUNDLE, "value": bundle}}


def device(bundle: Bundle) -> dict[str, Any]:
    """The model as a Device: its study, kind, version and hash."""
    name = f"{bundle.scorer.model} of study {bundle.study['name']}"
    return {
        "resourceType": "Device",
        "identifier": [{"system": BUNDLE, "value": bundle.hash}],
        "status": "active",
        "deviceName": [{"name": name, "type": "model-name"}],
        "modelNumber": bundle.mark,
        "version": [{"type": {"text": "SHA-256 of the bundle"}, "value": bundle.hash}],
        "type": {"text": "clinical risk model"},
    }


def parsed(line: bytes, bundle: str) -> dict[str, Any]:
    """A line of a scoring `--as fhir`. Raises Unsendable where it is none of this bundle."""
    try:
        found = msgspec.json.decode(line)
        if found["resourceType"] != "RiskAssessment":
            raise Unsendable("not_a_risk_assessment")
        [told] = found["identifier"]
        model = found["performer"]["identifier"]["value"]
        if told["system"] != PREDICTION or not re.fullmatch(r"[0-9a-f]{32}", told["value"]):
            raise Unsendable("not_of_a_scoring")
        [first] = found["prediction"]
        _ = first["probabilityDecimal"], first["outcome"]["text"]
        _ = found["occurrenceDateTime"], found["method"]
        _ = found["subject"].get("reference"), found["subject"].get("identifier", {}).get("value")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unsendable("malformed_json") from None
    except (KeyError, TypeError, IndexError, AttributeError):
        raise Unsendable("not_of_a_scoring") from None
    except ValueError as error:
        raise error if isinstance(error, Unsendable) else Unsendable("not_of_a_scoring") from None
    if model != bundle:
        raise Unsendable("of_another_bundle")
    assessment: dict[str, Any] = found
    return assessment


def named(assessment: Mapping[str, Any], by: str) -> dict[str, Any]:
    """The assessment as the server is to take it: of whom, by which of the two, and from what.

    By ``identifier`` the server finds its own patient, and no record of another server is named;
    by ``reference`` the server's records are those that were scored. Raises Unsendable.
    """
    subject = assessment["subject"]
    if by == "reference":
        if "reference" not in subject:
            raise Unsendable("no_reference")
        return dict(assessment)
    told = subject.get("identifier") or {}
    if not told.get("value") or not told.get("system"):
        raise Unsendable("no_identifier")
    asked = "|".join(quote(_escaped(str(told[part])), safe=":") for part in ("system", "value"))
    about = {"reference": f"Patient?identifier={asked}"}
    return {**{k: v for k, v in assessment.items() if k != "basis"}, "subject": about}


def _escaped(text: str) -> str:
    """A value of a search, in which some letters part values. (FHIR R4 3.1.1.4.0.1)"""
    return re.sub(r"([\\,$|])", r"\\\1", text)


def transaction(
    assessments: Sequence[Mapping[str, Any]], model: Mapping[str, Any], now: dt.datetime
) -> dict[str, Any]:
    """One Bundle of predictions, named already, with their model.

    ``now``: when a Provenance that is not there yet is recorded.
    """
    name = urn(model["identifier"][0]["value"])
    known = f"identifier={BUNDLE}|{model['identifier'][0]['value']}"
    entries = [_entry(name, model, "POST", "Device", ifNoneExist=known)]
    for told in assessments:
        entries += _entries(told, {"reference": name}, now)
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _entries(
    told: Mapping[str, Any], model: Mapping[str, Any], now: dt.datetime
) -> list[dict[str, Any]]:
    """What one prediction is made of."""
    value = told["identifier"][0]["value"]
    said = hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:32]
    [first] = told["prediction"]
    observation = {
        "resourceType": "Observation",
        "identifier": [{"system": RISK, "value": value}],
        "status": "final",
        "code": {"text": f"Risk: {first['outcome']['text']}"},
        "subject": told["subject"],
        "effectiveDateTime": told["occurrenceDateTime"],
        "valueQuantity": {"value": first["probabilityDecimal"], "system": UCUM, "code": "1"},
        "method": told["method"],
        "device": model,
    }
    urns = [urn(f"{value} {kind}") for kind in ("RiskAssessment", "Observation", "Provenance")]
    provenance = {
        "resourceType": "Provenance",
        "meta": {"tag": [{"system": TOLD, "code": said}]},
        "target": [{"reference": one} for one in urns[:2]],
        "recorded": instant(now),
        "agent": [
            {"type": {"coding": [{"system": PARTICIPANT, "code": "assembler"}]}, "who": model}
        ],
    }
    assessment = {**told, "performer": model}
    mine, number = (f"identifier={system}|{value}" for system in (PREDICTION, RISK))
    return [
        _entry(urns[0], assessment, "PUT", f"RiskAssessment?{mine}"),
        _entry(urns[1], observation, "PUT", f"Observation?{number}"),
        _entry(urns[2], provenance, "POST", "Provenance", ifNoneExist=f"_tag={TOLD}|{said}"),
    ]


def _entry(
    name: str, resource: Mapping[str, Any], method: str, url: str, **more: str
) -> dict[str, Any]:
    request = {"method": method, "url": url, **more}
    return {"fullUrl": name, "resource": resource, "request": request}
