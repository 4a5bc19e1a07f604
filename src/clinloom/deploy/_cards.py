"""A risk as a card: what it is, what weighs in it, and how far it can be believed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.explain import Reason
from clinloom.report.figures import count, interval, number, percent
from clinloom.report.summary import MOST_EXTREME, MOST_TIMID
from clinloom.study.cds_hooks import CdsHooks, Suggestion

MOST = 139  # characters of a summary: fewer than 140
WHOSE = {  # the element that says whose a resource is, where that is not `subject`
    **dict.fromkeys(
        (
            "AllergyIntolerance",
            "BodyStructure",
            "Claim",
            "Consent",
            "CoverageEligibilityRequest",
            "DetectedIssue",
            "Device",
            "EpisodeOfCare",
            "FamilyMemberHistory",
            "Immunization",
            "ImmunizationRecommendation",
            "NutritionOrder",
            "RelatedPerson",
            "SupplyDelivery",
            "VisionPrescription",
        ),
        "patient",
    ),
    "Task": "for",
    "Coverage": "beneficiary",
    "ResearchSubject": "individual",
}
TOO_FEW = "not told: too few test patients had, or had not, the outcome"


@dataclass(frozen=True)
class Risk:
    """A patient's risk at a moment (ISO 8601), its reasons, and what was not read, by reason."""

    risk: float
    moment: str
    reasons: Sequence[Reason] | None
    refused: Mapping[str, int]


def indicator(risk: float, options: CdsHooks, threshold: float) -> str:
    """``info``, ``warning`` or ``critical``; ``threshold``: the model's own."""
    if options.critical is not None and risk >= options.critical:
        return "critical"
    warn = threshold if options.warning is None else options.warning
    return "warning" if risk >= warn else "info"


def card(bundle: Bundle, options: CdsHooks, found: Risk, patient: str) -> dict[str, Any] | None:
    """The card of a risk, with a ``uuid`` of its own; None where there is nothing to say.

    ``patient``: the FHIR id of who a suggestion's resources are for.
    """
    urgency = indicator(found.risk, options, bundle.scorer.threshold)
    if urgency == "info" and options.silent:
        return None
    title = str(bundle.study.get("title") or bundle.study["name"])
    made: dict[str, Any] = {
        "uuid": str(uuid.uuid4()),
        "summary": summary(title, found.risk),
        "detail": detail(bundle, options, found),
        "indicator": urgency,
        "source": {"label": options.source, **({"url": options.about} if options.about else {})},
    }
    if options.overrides:
        made["overrideReasons"] = [reason.model_dump() for reason in options.overrides]
    if options.suggestions and urgency != "info":
        made["suggestions"] = [_suggestion(s, patient) for s in options.suggestions]
        made["selectionBehavior"] = "any"
    return made


def summary(title: str, risk: float) -> str:
    """One line: the risk, and of what."""
    told = f"Risk {percent(risk)}: {' '.join(title.split())}"
    return told if len(told) <= MOST else told[: MOST - 1].rstrip() + "…"


def _of(resource: Mapping[str, Any], patient: str) -> dict[str, Any]:
    """The resource of a patient: said where its type says it (FHIR R4)."""
    kind, whose = resource["resourceType"], {"reference": f"Patient/{patient}"}
    if kind == "Appointment":
        others = resource.get("participant", ())
        return {**resource, "participant": [{"actor": whose, "status": "needs-action"}, *others]}
    return {**resource, WHOSE.get(kind, "subject"): whose}


def _suggestion(suggestion: Suggestion, patient: str) -> dict[str, Any]:
    made = {
        "label": suggestion.label,
        "uuid": str(uuid.uuid4()),
        "isRecommended": suggestion.recommended,
        "actions": [
            {
                "type": "create",
                "description": action.description,
                "resource": _of(action.resource, patient),
            }
            for action in suggestion.actions
        ],
    }
    return made if suggestion.actions else {k: v for k, v in made.items() if k != "actions"}


def detail(bundle: Bundle, options: CdsHooks, found: Risk) -> str:
    """In Markdown: the risk at its moment, its reasons, the evidence, and what was not read."""
    warn = bundle.scorer.threshold if options.warning is None else options.warning
    parts = [
        f"**Risk {percent(found.risk)}** at {found.moment}; a warning begins at {percent(warn)}."
    ]
    if found.reasons is None:
        parts.append("This model was trained before reasons were kept: it tells none.")
    elif found.reasons:
        lines = [
            f"- {'raises' if r.contribution > 0 else 'lowers'} it: {escaped(r.text)}"
            for r in found.reasons
        ]
        parts.append("\n".join(["What weighs most in the model (not causes):", "", *lines]))
    parts.append("\n".join(["How far to believe it:", "", *(f"- {s}" for s in evidence(bundle))]))
    if found.refused:
        told = ", ".join(f"{escaped(why)} ({n})" for why, n in sorted(found.refused.items()))
        parts.append(f"Not read of this patient's record: {told}.")
    return "\n\n".join(parts)


def evidence(bundle: Bundle) -> list[str]:
    """What the test said of the model, in lines of Markdown."""
    document = bundle.document
    test = document.get("evidence", {}).get("test", {})
    auroc = test.get("auroc", {})
    out = [f"AUROC {_measured(auroc, 3)}", _calibrated(test.get("calibration_slope", {}))]
    return [*out, _learned(document), *map(escaped, document.get("warnings", ()))]


def _learned(document: Mapping[str, Any]) -> str:
    """Of how many patients the model was learned, and how many the figures are of."""
    patients = document.get("patients", {})
    train, test = patients.get("train"), patients.get("test")
    if "train" not in patients and test is not None:  # judged in turn
        return f"learned from {count(test)} patients; tested on each by models of the others"
    if train is None:
        return "of how many patients it was learned is not told"
    if document.get("learned", {}).get("rows") != "all" or not test:
        tested = f", tested on {count(test)} others" if test else ""
        return f"learned from {count(train)} patients{tested}"
    return (
        f"learned from {count(train + test)} patients; tested on {count(test)} of them by the model"
        f" of the other {count(train)}"
    )


def _measured(metric: Mapping[str, float | None], digits: int) -> str:
    value = metric.get("value")
    if value is None:
        return TOO_FEW
    between = interval(metric, digits)
    return f"{number(value, digits)} ({between})" if between else number(value, digits)


def _calibrated(slope: Mapping[str, float | None]) -> str:
    """Whether risks can be taken at their word."""
    value = slope.get("value")
    if value is None:
        return f"calibration {TOO_FEW}"
    means = (
        "risks can be taken about at their word"
        if MOST_EXTREME <= value <= MOST_TIMID
        else "risks are too extreme"
        if value < MOST_EXTREME
        else "risks are too timid"
    )
    return f"calibration slope {_measured(slope, 2)}: {means}"


def escaped(text: str) -> str:
    """Text of a source that Markdown shows as it is, and no link or tag."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", " ".join(text.split()))
