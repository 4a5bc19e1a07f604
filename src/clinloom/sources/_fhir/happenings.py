"""FHIR R4 resources as events: what each says, when it was known, and whose it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.systems import short
from clinloom.sources._rows import cells

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
COMPARED = re.compile(cells.COMPARED)
SIGNS = {"≤": "<=", "≥": ">="}
Value = tuple[float | None, str | None, str | None]
MISSING: Value = (None, "", None)


# An event whose times are still text, in the order of COLUMNS: a plain tuple, since there are
# hundreds of thousands a second. ``happened`` is a result's own time where ``time`` is that of its
# release, and empty where no release is told.
COLUMNS = ("patient", "time", "happened", "code", "number", "text", "unit", "record_id")
Event = tuple[str, str | None, str | None, str, float | None, str | None, str | None, str]


class Refused(Exception):
    """The resource, or a part of it, is refused: the reason, and what it tells all the same."""

    def __init__(self, reason: str, told: Sequence[Event] = ()):
        super().__init__(reason)
        self.told = told


class Names:
    """How codes are named: the preferred systems, and names for others."""

    def __init__(self, preferred: tuple[str, ...], systems: Mapping[str, str]):
        self._preferred, self._systems = frozenset(preferred), systems
        self._known: dict[tuple[str | None, str], tuple[bool, str]] = {}

    def code(self, concept: r4.Concept | None) -> str | None:
        """``SYSTEM//code`` of the first coding of a preferred system, else of the first."""
        first = None
        for coding in (concept.coding if concept is not None else None) or ():
            if not coding.code:
                continue
            key = (coding.system, coding.code)
            known = self._known.get(key)
            if known is None:
                name = self._systems.get(coding.system or "") or short(coding.system)
                known = self._known[key] = (name in self._preferred, f"{name}//{coding.code}")
            if known[0]:
                return known[1]
            first = first or known[1]
        return first

    def due(self, concept: r4.Concept | None) -> str:
        """The code. Raises Refused where there is none."""
        code = self.code(concept)
        if code is None:
            raise Refused("no_code")
        return code

    def value(self, said: Any) -> Value:
        """Number, text and unit of an Observation's or component's value[x]."""
        if said.valueQuantity is not None:
            return quantity(said.valueQuantity)
        if said.valueCodeableConcept is not None:
            concept = said.valueCodeableConcept
            return None, self.code(concept) or concept.text or "", None
        if said.valueString is not None:
            return parsed(said.valueString)
        if said.valueInteger is not None:
            return parsed(said.valueInteger)
        if said.valueBoolean is not None:
            return float(said.valueBoolean), None, None
        if said.valueRatio is not None:
            ratio = said.valueRatio
            return None, _between(ratio.numerator, ":", ratio.denominator), None
        if said.valueRange is not None:
            low, high = said.valueRange.low, said.valueRange.high
            return None, _between(low, "-", high), (low or high or r4.Quantity()).unit
        if said.valuePeriod is not None:
            return None, f"{said.valuePeriod.start or ''}/{said.valuePeriod.end or ''}", None
        if said.valueSampledData is not None:
            return None, None, None  # a curve: that it was recorded is the event
        return None, said.valueDateTime or said.valueTime or "", None


def quantity(given: r4.Quantity) -> Value:
    """A Quantity; with a comparator, as in "<0.1", the text says so beside the number."""
    unit = given.code or given.unit or None
    if given.value is None:
        return None, "", unit
    if type(given.value) is float and not given.comparator:
        return given.value, None, unit
    number, text, _ = parsed(given.value)
    if given.comparator and number is not None:
        text = f"{given.comparator}{given.value}"
    return number, text, unit


def parsed(given: float | str) -> Value:
    """A number where the text is one, else the text."""
    if not isinstance(given, str):
        return float(given), None, None
    if NUMBER.fullmatch(given):
        return float(given), None, None
    found = COMPARED.match(given.strip())
    if found and NUMBER.fullmatch(found["rest"]):
        mark = SIGNS.get(found["mark"], found["mark"])
        return float(found["rest"]), f"{mark}{found['rest']}", None
    return None, given.strip(), None


def _between(one: r4.Quantity | None, mark: str, other: r4.Quantity | None) -> str:
    ends = [_written(one), _written(other)]
    return mark.join(ends) if any(ends) else ""


def _written(end: r4.Quantity | None) -> str:
    if end is None or end.value is None:
        return ""
    return end.value if isinstance(end.value, str) else f"{end.value:g}"


Medication = Callable[[Any], r4.Concept | None]


def happenings(
    resource: Any, record_id: str, patient: str, names: Names, medication: Medication
) -> list[Event]:
    """The events of any resource but Patient. Raises Refused with the reason."""
    return HANDLERS[type(resource)](resource, record_id, patient, names, medication)


def person(patient: r4.Patient, key: str) -> list[Event]:
    """Birth, gender (FHIR R4 8.1.5.3, administrative) and death.

    Raises Refused where a death has no time.
    """
    out: list[Event] = []
    if patient.birthDate:
        out.append((key, patient.birthDate, None, "MEDS_BIRTH", None, None, None, key))
    if patient.gender:
        out.append((key, None, None, f"GENDER//{patient.gender}", None, None, None, key))
    if patient.deceasedDateTime:
        out.append((key, patient.deceasedDateTime, None, "MEDS_DEATH", None, None, None, key))
    return out


def _due(*times: str | None) -> str:
    for time in times:
        if time and not time.isspace():
            return time
    raise Refused("no_time")


def _start(period: r4.Period | None) -> str | None:
    return period.start if period is not None else None


def _one(
    patient: str, time: str, code: str, record_id: str, value: Value = (None, None, None)
) -> list[Event]:
    return [(patient, time, None, code, *value, record_id)]


def _encounter(e: r4.Encounter, record_id: str, patient: str, *_: Any) -> list[Event]:
    kind = (e.class_.code if e.class_ is not None else None) or "UNKNOWN"
    period = e.period or r4.Period()
    _due(period.start, period.end)
    ends = (("START", period.start), ("END", period.end))
    return [
        (patient, time, None, f"ENCOUNTER//{kind}//{end}", None, None, None, record_id)
        for end, time in ends
        if time
    ]


def _condition(c: r4.Condition, record_id: str, patient: str, names: Names, _: Any) -> list[Event]:
    time = _due(c.recordedDate, c.onsetDateTime, _start(c.onsetPeriod))
    return _one(patient, time, names.due(c.code), record_id)


def _observation(
    o: r4.Observation, record_id: str, patient: str, names: Names, _: Any
) -> list[Event]:
    happened = o.effectiveDateTime
    if happened is None:
        period = o.effectivePeriod
        happened = (period.end or period.start) if period is not None else o.effectiveInstant
    time = o.issued or happened
    if not time or time.isspace():
        raise Refused("no_time")
    released = (happened if o.issued else "") if happened else None
    number, text, unit = value = names.value(o)
    out: list[Event] = []
    if not ((o.component or o.hasMember) and value == MISSING):  # a panel speaks by its parts
        code = names.due(o.code)
        out.append((patient, time, released, code, number, text, unit, record_id))
    nameless = False
    for part in o.component or ():
        called = names.code(part.code)
        if called is None:
            nameless = True
            continue
        out.append((patient, time, released, called, *names.value(part), record_id))
    if nameless:
        raise Refused("no_code", out)
    return out


def _medicated(
    time: Callable[[Any], tuple[str | None, ...]], dose: Callable[[Any], Any] | None = None
) -> Callable[..., list[Event]]:
    """A handler for a resource on a medicine, whose times are tried in order."""

    def handler(
        m: Any, record_id: str, patient: str, names: Names, medication: Medication
    ) -> list[Event]:
        if getattr(m, "doNotPerform", None):
            raise Refused("not_done")
        code = names.due(m.medicationCodeableConcept or medication(m))
        amount = dose(m) if dose is not None else None
        value: Value = (None, None, None)  # that it was given is a fact without a dose, too
        if amount is not None and amount.value is not None:
            value = quantity(amount)
        return _one(patient, _due(*time(m)), code, record_id, value)

    return handler


def _immunization(
    i: r4.Immunization, record_id: str, patient: str, names: Names, _: Any
) -> list[Event]:
    time = _due(i.recorded, i.occurrenceDateTime)
    return _one(patient, time, names.due(i.vaccineCode), record_id)


def _procedure(p: r4.Procedure, record_id: str, patient: str, names: Names, _: Any) -> list[Event]:
    time = _due(p.performedDateTime, _start(p.performedPeriod))
    return _one(patient, time, names.due(p.code), record_id)


def _report(
    d: r4.DiagnosticReport, record_id: str, patient: str, names: Names, _: Any
) -> list[Event]:
    period = d.effectivePeriod or r4.Period()
    time = _due(d.issued, d.effectiveDateTime, period.end, period.start)
    return _one(patient, time, names.due(d.code), record_id)


def _imaging(s: r4.ImagingStudy, record_id: str, patient: str, *_: Any) -> list[Event]:
    codings: Sequence[r4.Coding | None]
    codings = s.modality or [series.modality for series in s.series or ()]
    found = dict.fromkeys(c.code for c in codings if c is not None and c.code)
    time = _due(s.started)
    return [
        (patient, time, None, f"IMAGINGSTUDY//{code}", None, None, None, record_id)
        for code in found or ("UNKNOWN",)
    ]


HANDLERS: dict[type[msgspec.Struct], Callable[..., list[Event]]] = {
    r4.Encounter: _encounter,
    r4.Condition: _condition,
    r4.Observation: _observation,
    r4.MedicationRequest: _medicated(lambda m: (m.authoredOn,)),
    r4.MedicationAdministration: _medicated(
        lambda m: (m.effectiveDateTime, _start(m.effectivePeriod)),
        lambda m: m.dosage.dose if m.dosage is not None else None,
    ),
    r4.MedicationDispense: _medicated(lambda m: (m.whenHandedOver, m.whenPrepared)),
    r4.MedicationStatement: _medicated(
        lambda m: (m.dateAsserted, m.effectiveDateTime, _start(m.effectivePeriod))
    ),
    r4.Immunization: _immunization,
    r4.Procedure: _procedure,
    r4.DiagnosticReport: _report,
    r4.ImagingStudy: _imaging,
}
