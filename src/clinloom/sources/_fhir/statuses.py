"""Which resources tell a fact: by status, intent and verification, a list for each type.

What is wished for, planned, doubted or withdrawn is none, and neither is what has a status or a
verification that nobody knows. A resource that names none counts.
(FHIR R4, the value sets of each type.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clinloom.errors import instead
from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.event import Refused

RESULTS = ("preliminary", "final", "amended", "corrected")
UNDER_WAY = ("in-progress", "on-hold", "completed", "stopped")
FACTS: dict[str, tuple[str, ...]] = {
    "Encounter": ("arrived", "triaged", "in-progress", "onleave", "finished"),
    "Observation": RESULTS,
    "DiagnosticReport": ("partial", *RESULTS, "appended"),
    "MedicationRequest": ("active", "on-hold", "completed", "stopped"),
    "MedicationAdministration": UNDER_WAY,
    "MedicationDispense": ("completed", "stopped"),  # before, nothing was handed over
    "MedicationStatement": ("active", "on-hold", "completed", "stopped"),
    "Immunization": ("completed",),
    "Procedure": UNDER_WAY,
    "ImagingStudy": ("available",),
    "Condition": ("confirmed",),  # of its verificationStatus
}
ORDERS = ("order", "original-order", "reflex-order", "filler-order", "instance-order")
INTENTS = frozenset({None, *ORDERS})
OTHERS = {
    "Encounter": ("planned", "cancelled"),
    "Observation": ("registered", "cancelled"),
    "DiagnosticReport": ("registered", "cancelled"),
    "MedicationRequest": ("cancelled", "draft", "proposal", "plan", "option", *ORDERS),
    "MedicationAdministration": ("not-done",),
    "MedicationDispense": ("preparation", "in-progress", "on-hold", "cancelled", "declined"),
    "MedicationStatement": ("intended", "not-taken"),
    "Immunization": ("not-done",),
    "Procedure": ("preparation", "not-done"),
    "ImagingStudy": ("registered", "cancelled"),
    "Condition": ("provisional", "differential", "unconfirmed", "refuted"),
}
ANY = ("entered-in-error", "unknown")
KNOWN = {kind: {*told, *OTHERS[kind], *ANY} for kind, told in FACTS.items()}
SNOMED = {  # what hospitals write in place of R4's own words, by SNOMED CT
    "410605003": "confirmed",  # Confirmed present
    "410515003": "confirmed",  # Known present
    "410592001": "provisional",  # Probably present
    "415684004": "provisional",  # Suspected
    "410590009": "unconfirmed",  # Known possible
    "410593005": "refuted",  # Probably NOT present
    "410594000": "refuted",  # Definitely NOT present
    "410516002": "refuted",  # Known absent
}
TEXTS = (  # what a verification says that has none of these codes; the first that fits
    (r"entered[ -]in[ -]error", "entered-in-error"),
    (r"not (confirmed|verified|proven)|unconfirmed|unverified|no longer confirmed", "unconfirmed"),
    (r"refuted|ruled[ -]out|excluded|absent|not present|negative", "refuted"),
    (r"differential", "differential"),
    (r"provisional|suspect|probabl|possib|presum|likely|working", "provisional"),
    (
        r"^ *(confirmed|verified|proven|(known )?present|gesichert|bestätigt)\b",
        "confirmed",
    ),
)
WRITTEN = tuple((re.compile(text, re.IGNORECASE), word) for text, word in TEXTS)


def check(told: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError, with the nearest, for a resource type or status that is none."""
    for kind, words in told.items():
        _check(kind, KNOWN, "a resource type with a status that is read")
        for word in words:
            _check(word, KNOWN[kind], f"a status of {kind}")


def _check(word: str, known: Iterable[str], what: str) -> None:
    listed = sorted(known)
    if word not in listed:
        raise ValueError(f"'{word}' is not {what}; {instead(word, listed)}")


class Facts:
    """The rule of one source; ``told``: statuses of resource types, in place of FACTS."""

    def __init__(self, told: Mapping[str, Sequence[str]]):
        self._told = {
            getattr(r4, kind): frozenset(told.get(kind, usual)) for kind, usual in FACTS.items()
        }

    def told(self, kind: type) -> frozenset[str]:
        """The statuses of a resource type that tell a fact."""
        return self._told[kind]

    def refusal(self, resource: Any) -> Refused | None:
        """Why a resource tells no fact; None where it does."""
        kind = type(resource)
        told = self._told[kind]
        if kind is r4.Condition:
            words = _verification(resource.verificationStatus)
            other = next((word for word in words if word not in told), None)
            return None if other is None else _refused(kind, other, "verificationStatus")
        if resource.status is not None and resource.status not in told:
            return _refused(kind, resource.status, "status")
        if kind is r4.MedicationRequest and resource.intent not in INTENTS:
            return _refused(kind, resource.intent, "intent")
        return None


def _refused(kind: type, word: str, field: str) -> Refused:
    """The status as a reason; what R4 does not know is not repeated."""
    known = word in KNOWN[kind.__name__] and word != "unknown"
    return Refused(word.replace("-", "_") if known else "unknown_status", field=field)


def _verification(told: r4.Concept | None) -> list[str]:
    """The words of R4 in a Condition's verificationStatus: its codes', else its text's.

    What says none of these words is no fact, whatever else it says.
    """
    if told is None:
        return []
    codes = [(coding.code or "").lower() for coding in told.coding or ()]
    words = [SNOMED.get(code, code) for code in codes]
    words = [word for word in words if word in KNOWN["Condition"]]
    if words:
        return words
    texts = (told.text, *(coding.display for coding in told.coding or ()))
    said = next((text for text in texts if text and not text.isspace()), None)
    if said is None:
        return ["unknown"] if any(codes) else []
    return [next((word for known, word in WRITTEN if known.search(said)), "unknown")]
