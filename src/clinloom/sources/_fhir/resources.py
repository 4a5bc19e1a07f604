"""FHIR R4 resources, as far as they are read, and the documents that carry them.

Only the fields used are declared: whatever else a resource holds is skipped unread, which is what
makes this fast. (FHIR R4, http://hl7.org/fhir/R4/resourcelist.html)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec


class Record(msgspec.Struct, gc=False):
    """The base of every part of a resource."""


UNREAD = msgspec.Raw(b"")  # a field of which only is told that it is there


class Meta(Record):
    """FHIR R4 2.14.0.5: which version of a resource this is."""

    versionId: str | int | float | None = None
    lastUpdated: str | None = None


class Coding(Record):
    """FHIR R4 2.24.0.4."""

    system: str | None = None
    code: str | None = None
    display: str | None = None


class Concept(Record):
    """CodeableConcept."""

    coding: list[Coding] | None = None
    text: str | None = None


class Quantity(Record):
    """A measured amount; ``value`` may be dirty text."""

    value: float | str | None = None
    comparator: str | None = None
    unit: str | None = None
    code: str | None = None


class Period(Record):
    """A span of time."""

    start: str | None = None
    end: str | None = None


class Ratio(Record):
    """A titre, such as 1:128."""

    numerator: Quantity | None = None
    denominator: Quantity | None = None


class Range(Record):
    """An interval of amounts."""

    low: Quantity | None = None
    high: Quantity | None = None


class Identifier(Record):
    """A business identifier, such as a medical record number."""

    system: str | None = None
    value: str | None = None
    type: Concept | None = None


class Reference(Record):
    """A pointer to another resource."""

    reference: str | None = None
    identifier: Identifier | None = None


class Link(Record):
    """Another record of the same patient."""

    other: Reference | None = None


class SampledData(Record):
    """A curve, such as an electrocardiogram; not read."""


class Valued(Record):
    """What Observation and its components share: a value[x]."""

    valueQuantity: Quantity | None = None
    valueCodeableConcept: Concept | None = None
    valueString: str | None = None
    valueInteger: int | float | str | None = None
    valueBoolean: bool | None = None
    valueRatio: Ratio | None = None
    valueRange: Range | None = None
    valueDateTime: str | None = None
    valueTime: str | None = None
    valuePeriod: Period | None = None
    valueSampledData: SampledData | None = None


class Measured(Valued):
    """Observation.component."""

    code: Concept | None = None


class Resource(Record, tag_field="resourceType"):
    """The base of the resources; ``id`` is the logical id."""

    id: str | None = None
    meta: Meta | None = None


class Patient(Resource, tag="Patient"):
    """R4 8.1."""

    identifier: list[Identifier] | None = None
    gender: str | None = None
    birthDate: str | None = None
    deceasedDateTime: str | None = None
    deceasedBoolean: bool | None = None
    link: list[Link] | None = None


class Encounter(Resource, tag="Encounter"):
    """R4 8.11."""

    status: str | None = None
    class_: Coding | None = msgspec.field(default=None, name="class")
    subject: Reference | None = None
    period: Period | None = None
    type: msgspec.Raw = UNREAD
    reasonCode: msgspec.Raw = UNREAD
    hospitalization: msgspec.Raw = UNREAD  # from where, and to where: dischargeDisposition


class Condition(Resource, tag="Condition"):
    """R4 9.2."""

    verificationStatus: Concept | None = None
    code: Concept | None = None
    subject: Reference | None = None
    recordedDate: str | None = None
    onsetDateTime: str | None = None
    onsetPeriod: Period | None = None
    abatementDateTime: msgspec.Raw = UNREAD
    abatementAge: msgspec.Raw = UNREAD
    abatementPeriod: msgspec.Raw = UNREAD
    abatementRange: msgspec.Raw = UNREAD
    abatementString: msgspec.Raw = UNREAD


class Observed(Valued):
    """Observation without its code and components."""

    id: str | None = None
    meta: Meta | None = None
    status: str | None = None
    subject: Reference | None = None
    issued: str | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    effectiveInstant: str | None = None
    hasMember: list[Reference] | None = None
    interpretation: msgspec.Raw = UNREAD


class Observation(Observed, tag_field="resourceType", tag="Observation"):
    """R4 10.1."""

    code: Concept | None = None
    component: list[Measured] | None = None


class Medicated(Resource):
    """What the resources on medicines share."""

    status: str | None = None
    subject: Reference | None = None
    medicationCodeableConcept: Concept | None = None
    medicationReference: Reference | None = None
    contained: list[msgspec.Raw] | None = None
    reasonCode: msgspec.Raw = UNREAD


class Dose(Record):
    """MedicationAdministration.dosage."""

    dose: Quantity | None = None


class MedicationRequest(Medicated, tag="MedicationRequest"):
    """R4 11.1."""

    intent: str | None = None
    authoredOn: str | None = None
    doNotPerform: bool | None = None
    dosageInstruction: msgspec.Raw = UNREAD


class MedicationAdministration(Medicated, tag="MedicationAdministration"):
    """R4 11.2."""

    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    dosage: Dose | None = None


class MedicationDispense(Medicated, tag="MedicationDispense"):
    """R4 11.3."""

    whenHandedOver: str | None = None
    whenPrepared: str | None = None
    dosageInstruction: msgspec.Raw = UNREAD


class MedicationStatement(Medicated, tag="MedicationStatement"):
    """R4 11.4."""

    dateAsserted: str | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    dosage: msgspec.Raw = UNREAD


class Medication(Resource, tag="Medication"):
    """R4 11.5: what a medicationReference points to."""

    code: Concept | None = None


class Immunization(Resource, tag="Immunization"):
    """R4 11.7."""

    status: str | None = None
    vaccineCode: Concept | None = None
    patient: Reference | None = None
    occurrenceDateTime: str | None = None
    recorded: str | None = None
    reasonCode: msgspec.Raw = UNREAD


class Procedure(Resource, tag="Procedure"):
    """R4 9.3."""

    status: str | None = None
    code: Concept | None = None
    subject: Reference | None = None
    performedDateTime: str | None = None
    performedPeriod: Period | None = None
    reasonCode: msgspec.Raw = UNREAD


class DiagnosticReport(Resource, tag="DiagnosticReport"):
    """R4 10.3."""

    status: str | None = None
    code: Concept | None = None
    subject: Reference | None = None
    issued: str | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    conclusionCode: msgspec.Raw = UNREAD


class Series(Record):
    """A series of an imaging study."""

    modality: Coding | None = None


class ImagingStudy(Resource, tag="ImagingStudy"):
    """R4 10.4."""

    status: str | None = None
    subject: Reference | None = None
    started: str | None = None
    modality: list[Coding] | None = None
    series: list[Series] | None = None


class Entry(Record):
    """An entry of a Bundle, its resource still as bytes."""

    resource: msgspec.Raw = msgspec.Raw(b"")
    fullUrl: str | None = None


class Bundle(Resource, tag="Bundle"):
    """R4 2.36: transaction, batch, collection, searchset, document …"""

    entry: list[Entry] | None = None


class Kind(Record):
    """What any JSON object says of itself."""

    resourceType: str | None = None
    id: str | None = None


KINDS = (
    Patient,
    Encounter,
    Condition,
    Observation,
    MedicationRequest,
    MedicationAdministration,
    MedicationDispense,
    MedicationStatement,
    Medication,
    Immunization,
    Procedure,
    DiagnosticReport,
    ImagingStudy,
    Bundle,
)
LEFT_OUT = {  # of each type, the fields that are counted and not read
    kind: tuple(f.name for f in msgspec.structs.fields(kind) if f.default is UNREAD)
    for kind in KINDS
}
NAMES = frozenset(kind.__struct_config__.tag for kind in KINDS)
_union: Any = KINDS[0]
for _kind in KINDS[1:]:
    _union = _union | _kind
decode = msgspec.json.Decoder(_union).decode
PATH = re.compile(r"`\$\.?([^`]+)`$")
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def element(error: msgspec.ValidationError) -> str | None:
    """The path of the element that is of another type than R4 has it, as ``code.coding[0].code``.

    msgspec tells it at the end of its message; of names it knows only those of R4.
    """
    found = PATH.search(str(error))
    return found[1] if found else None


decode_kind = msgspec.json.Decoder(Kind).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


BEGIN = 48  # bytes: a search for long ones prepares more than it saves
BLOCK = 1 << 20  # bytes of lines that are read at once, and held by the processor's cache
Found = tuple[bytes, int]  # a resource, and the byte of its file at which it starts


def blocks(data: bytes, start: int) -> Iterator[Found]:
    """Lines, many at a time, the line end of the last left out; the first starts at ``start``."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at + BLOCK)
        end = len(data) if end < 0 else end
        yield data[at:end], start + at
        at = end + 1


def lines(data: bytes, start: int) -> Iterator[Found]:
    """The lines that are not blank; the first starts at byte ``start`` of its file."""
    position = start
    for line in data.split(b"\n"):
        if line and not line.isspace():
            yield line, position
        position += len(line) + 1


def elements(data: bytes) -> Iterator[Found]:
    """The elements of a JSON array. Raises msgspec.DecodeError where it is none."""
    at = 0
    for element in _decode_array(data):
        part = bytes(element)
        at = place(data, part, at)
        yield part, at
        at += len(part)


def place(data: bytes, part: bytes, at: int) -> int:
    """Where a part is in the data, at ``at`` or later, found by how it begins."""
    begin, found = part[:BEGIN], data.find(part[:BEGIN], at)
    while found >= 0 and not data.startswith(part, found):
        found = data.find(begin, found + 1)
    return max(found, at)
