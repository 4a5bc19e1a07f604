"""FHIR R4 resources as events: what each says, when it was known, and whose it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.event import Event, Refused
from clinloom.sources._fhir.names import Names, Naming
from clinloom.sources._fhir.values import MISSING, NONE, Value, quantity, value
from clinloom.tables import BIRTH, DEATH

MEDICINES = {
    f"Medication{name}": "medication[x]"
    for name in ("Request", "Administration", "Dispense", "Statement")
}
LACKING: dict[str, dict[str, str]] = {  # by reason and type, "": of all others
    "no_patient": {"": "subject", "Immunization": "patient", "Patient": "id"},
    "no_code": {"": "code", "Immunization": "vaccineCode", **MEDICINES},
    "no_time": {
        "Patient": "deceased[x]",
        "Encounter": "period",
        "Condition": "recordedDate",
        "Observation": "effective[x]",
        "DiagnosticReport": "effective[x]",
        "MedicationRequest": "authoredOn",
        "MedicationAdministration": "effective[x]",
        "MedicationDispense": "whenHandedOver",
        "MedicationStatement": "effective[x]",
        "Immunization": "occurrence[x]",
        "Procedure": "performed[x]",
        "ImagingStudy": "started",
    },
}
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
        out += _each(key, patient.birthDate, (BIRTH,), key)
    if patient.gender:
        out += _each(key, None, (f"GENDER//{patient.gender}",), key)
    if patient.deceasedDateTime:
        out += _each(key, patient.deceasedDateTime, (DEATH,), key)
    return out


def lacking(kind: str, reason: str) -> str | None:
    """The element for want of which a resource of this type is refused."""
    absent = LACKING.get(reason, {})
    return absent.get(kind, absent.get(""))


def _told(*times: str | None) -> str | None:
    """The first time that is told."""
    for time in times:
        if time and not time.isspace():
            return time
    return None


def _due(*times: str | None) -> str:
    time = _told(*times)
    if time is None:
        raise Refused("no_time")
    return time


def _first(known: str | None, happened: str | None) -> tuple[str, str | None]:
    """When it was known, and when it happened: empty where only that is told."""
    known, happened = _told(known), _told(happened)
    return _due(known, happened), happened if known else ""


def _start(period: r4.Period | None) -> str | None:
    return period.start if period is not None else None


def _each(
    patient: str,
    time: str | None,
    codes: Iterable[str],
    record_id: str,
    said: Value = NONE,
    *,
    made: str | None = None,
    onset: str | None = None,
) -> list[Event]:
    """The same fact under each of its codes."""
    return [(patient, time, made, onset, code, *said, record_id) for code in codes]


def _encounter(e: r4.Encounter, record_id: str, patient: str, *_: Any) -> list[Event]:
    kind = (e.class_.code if e.class_ is not None else None) or "UNKNOWN"
    period = e.period or r4.Period()
    _due(period.start, period.end)
    out: list[Event] = []
    for end, time in (("START", period.start), ("END", period.end)):
        if time:
            out += _each(patient, time, (f"ENCOUNTER//{kind}//{end}",), record_id)
    return out


def _condition(c: r4.Condition, record_id: str, patient: str, names: Names, _: Any) -> list[Event]:
    time, onset = _first(c.recordedDate, _told(c.onsetDateTime, _start(c.onsetPeriod)))
    return _each(patient, time, names.due(c.code), record_id, onset=onset)


def effective(o: r4.Observed) -> str | None:
    """When what has no effectiveDateTime was observed."""
    period = o.effectivePeriod
    return (period.end or period.start) if period is not None else o.effectiveInstant


def observation(
    o: Any, record_id: str, patient: str, names: Naming, _: Medication | None = None
) -> list[Event]:
    """What an Observation and its components say, known when it is released.

    Raises Refused with the reason.
    """
    happened = o.effectiveDateTime
    if happened is None:
        happened = effective(o)
    time = o.issued or happened
    if not time or time.isspace():
        raise Refused("no_time")
    made = (happened if o.issued else "") if happened else None
    number, text, unit = said = value(o, names)
    out: list[Event] = []
    if not ((o.component or o.hasMember) and said == MISSING):  # a panel speaks by its parts
        for code in names.due(o.code):
            out.append((patient, time, made, None, code, number, text, unit, record_id))
    nameless = False
    for part in o.component or ():
        called = names.codes(part.code)
        if not called:
            nameless = True
            continue
        number, text, unit = value(part, names)
        for code in called:
            out.append((patient, time, made, None, code, number, text, unit, record_id))
    if nameless:
        raise Refused("no_code", out, field="component.code")
    return out


def _medicated(
    time: Callable[[Any], tuple[str | None, ...]], dose: Callable[[Any], Any] | None = None
) -> Callable[..., list[Event]]:
    """A handler for a resource on a medicine, whose times are tried in order."""

    def handler(
        m: Any, record_id: str, patient: str, names: Names, medication: Medication
    ) -> list[Event]:
        if getattr(m, "doNotPerform", None):
            raise Refused("not_done", field="doNotPerform")
        codes = names.due(m.medicationCodeableConcept or medication(m))
        amount = dose(m) if dose is not None else None
        said = NONE  # that it was given is a fact without a dose, too
        if amount is not None and amount.value is not None:
            said = quantity(amount, names.decimal)
        return _each(patient, _due(*time(m)), codes, record_id, said)

    return handler


def _immunization(
    i: r4.Immunization, record_id: str, patient: str, names: Names, _: Any
) -> list[Event]:
    time, onset = _first(i.recorded, i.occurrenceDateTime)
    return _each(patient, time, names.due(i.vaccineCode), record_id, onset=onset or None)


def _procedure(p: r4.Procedure, record_id: str, patient: str, names: Names, _: Any) -> list[Event]:
    time = _due(p.performedDateTime, _start(p.performedPeriod))
    return _each(patient, time, names.due(p.code), record_id)


def _report(
    d: r4.DiagnosticReport, record_id: str, patient: str, names: Names, _: Any
) -> list[Event]:
    period = d.effectivePeriod or r4.Period()
    time, made = _first(d.issued, _told(d.effectiveDateTime, period.end, period.start))
    return _each(patient, time, names.due(d.code), record_id, made=made)


def _imaging(s: r4.ImagingStudy, record_id: str, patient: str, *_: Any) -> list[Event]:
    codings: Sequence[r4.Coding | None]
    codings = s.modality or [series.modality for series in s.series or ()]
    found = dict.fromkeys(c.code for c in codings if c is not None and c.code)
    names = [f"IMAGINGSTUDY//{code}" for code in found or ("UNKNOWN",)]
    return _each(patient, _due(s.started), names, record_id)


HANDLERS: dict[type[msgspec.Struct], Callable[..., list[Event]]] = {
    r4.Encounter: _encounter,
    r4.Condition: _condition,
    r4.Observation: observation,
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
