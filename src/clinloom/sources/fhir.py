"""FHIR R4: bulk-export NDJSON, Bundles, single resources and arrays, gzipped or in zip archives.

A patient's key is ``Patient/<id>`` of this source's server; identifiers stand beside it with their
systems, so that a DICOM file's PatientID or a table's record number finds the same patient where
the study says that they are of that system.
(FHIR R4, http://hl7.org/fhir/R4; Bulk Data Access 2.0.0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal

import msgspec
import pyarrow as pa
from pydantic import Field, field_validator

from clinloom.files import FileUnit
from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir import statuses
from clinloom.sources._fhir.happenings import Event, Names, Refused, happenings, person
from clinloom.sources._fhir.identities import Whose
from clinloom.sources._fhir.release import known
from clinloom.sources._fhir.systems import KNOWN
from clinloom.sources._frames import State
from clinloom.sources._given import FileSource, handed, opened, planned
from clinloom.sources._parcel import Refusals, first_byte, links, whole, word
from clinloom.sources._time import instants
from clinloom.study import MICROSECONDS, Codes, Duration, Zone
from clinloom.tables import LEDGER, PARCEL_EVENTS

REQUIRES: str | None = None
LINKS = True  # whether it tells which identifiers belong together
PARCEL = 1 << 17  # events that are handed on at once


class Options(FileSource):
    """FHIR files and how their codes and identifiers are chosen."""

    TELLS_SYSTEMS: ClassVar[bool] = True

    type: Literal["fhir"] = Field(default="fhir", description="which kind of source")
    identifiers: str | dict[str, str] | None = Field(
        default=None,
        description="which systems' identifiers tell that records are of one patient: one, or"
        " {system in the data: the name that other sources give it}, '' for those that name none;"
        " none: medical record numbers (type MR), or all identifiers of a patient who has none,"
        " each by its own system",
    )
    server: str | None = Field(
        default=None,
        description="the address of the server that the resources are from, such as"
        " https://ehr.example/fhir: sources of one server share its Patient/<id>, and references to"
        " other servers are other patients; none: all are this source's own",
    )
    prefer: Codes = Field(
        default=KNOWN, description="a concept's first coding of these systems gives its code"
    )
    systems: dict[str, str] = Field(default={}, description="short names for further systems")
    statuses: dict[str, tuple[str, ...]] = Field(
        default={},
        description="by resource type, the statuses that tell a fact, in place of the usual ones;"
        " `Condition: [confirmed, provisional]` also takes provisional diagnoses",
    )
    zone: Zone = Field(default="UTC", description="IANA time zone of times that name none")
    late_after: Duration = Field(
        default=24 * MICROSECONDS["h"],
        description="a result released this long after it was taken is counted in the ledger",
    )
    delays: dict[str, Duration] = Field(
        default={},
        description="by code or pattern with *, how long after the sample a result was known whose"
        " release is not told; none: with the sample, which the ledger counts",
    )

    @field_validator("server")
    @classmethod
    def _bare(cls, server: str | None) -> str | None:
        return server.rstrip("/") if server else None

    @property
    def own_system(self) -> str | None:
        """The system of Patient/<id>: the server, where the study tells it."""
        return self.server

    @field_validator("statuses")
    @classmethod
    def _known(cls, given: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        statuses.check(given)
        return given


def plan(options: Options, where: str) -> Iterator[FileUnit | State]:
    """Its files, a large one of lines as ranges of them.

    Raises SourceError where nothing is there.
    """
    return planned(options, where, lines=True)


frame = opened


def read(units: Iterable[FileUnit], options: Options, source: str) -> Iterator[dict[str, pa.Table]]:
    """Parcels of events, links, rejected and ledger for a group of files, or of given bytes.

    A result's time is when it was released (``issued``), not when the sample was taken; never
    before it was made, and ``delays`` after that where no release is told. Reasons of refusal:
    ``malformed_json``, ``malformed_resource``, ``not_a_resource``, ``no_patient``, ``no_code``,
    ``no_time``, ``unreadable_file``, ``empty_file``, or the status, intent or verification that
    tells no fact (``planned``, ``proposal``, ``refuted`` …, see ``statuses``). ``position`` is the
    byte at which the line or resource starts. Resource types that are not read are counted in the
    ledger.
    """
    reader = _Reader(options, source)
    for piece in handed(units, options):
        data = whole(piece, reader.refused)
        if data is None:
            continue
        for resource, position in _found(piece, data, reader.refused):
            reader.take(resource, position, piece.name)
            if len(reader.events) >= PARCEL:
                yield reader.parcel()
    left = reader.parcel(last=True)
    if left:
        yield left


def _found(piece: FileUnit, data: bytes, refused: Refusals) -> Iterator[r4.Found]:
    """The resources of a file."""
    if piece.start is None and not data.strip(b"\xef\xbb\xbf \t\r\n"):
        refused.add("empty_file", file=piece.name)
        return
    skip = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    data = data[skip:] if skip else data
    if piece.start is not None or r4.is_lines(piece.name, data):
        yield from r4.lines(data, first_byte(piece) + skip)
    elif data.lstrip().startswith(b"["):
        try:
            yield from r4.elements(data)
        except (msgspec.DecodeError, RecursionError):
            refused.add("malformed_json", file=piece.name, position=0)
    else:
        yield data, skip


class _Reader:
    """What a group of files gave so far."""

    def __init__(self, options: Options, source: str):
        self.options, self.source = options, source
        self.names = Names(options.prefer, options.systems)
        self.facts = statuses.Facts(options.statuses)
        self.refused = Refusals(source)
        self.events: list[Event] = []
        self.unread: Counter[str] = Counter()
        self.whose = Whose(options.identifiers, options.server)

    def take(self, data: bytes, position: int, file: str) -> None:
        """Read one resource; whatever is wrong with it is refused with its place."""
        resource = self._decoded(data, position, file)
        if type(resource) is r4.Bundle:
            self._bundle(resource, data, position, file)
        elif resource is not None:
            self._resource(resource, position, file, {})

    def _decoded(self, data: bytes, position: int, file: str) -> Any:
        try:
            return r4.decode(data)
        except msgspec.ValidationError:
            pass
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.refused.add("malformed_json", file=file, position=position)
            return None
        try:
            kind = r4.decode_kind(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            kind = r4.Kind()
        if kind.resourceType is None:
            self.refused.add("not_a_resource", file=file, position=position)
        elif kind.resourceType in r4.NAMES:
            self.refused.add(
                "malformed_resource",
                file=file,
                position=position,
                record_id=f"{kind.resourceType}/{kind.id}" if kind.id else None,
            )
        else:
            self.unread[kind.resourceType] += 1
        return None

    def _bundle(self, bundle: r4.Bundle, whole: bytes, position: int, file: str) -> None:
        """A Bundle's resources; ``fullUrl`` tells what its references point to (R4 2.36.4)."""
        inside: list[tuple[Any, int]] = []
        pointed: dict[str, Any] = {}
        at = 0
        for entry in bundle.entry or ():
            data = bytes(entry.resource)
            if data in (b"", b"null"):
                continue
            at = max(whole.find(data, at), at)
            start = position + at
            at += len(data)
            resource = self._decoded(data, start, file)
            if resource is None:
                continue
            if isinstance(resource, r4.Bundle):
                self._bundle(resource, data, start, file)
                continue
            if entry.fullUrl:
                resource.id = resource.id or entry.fullUrl.replace(":", "/").rsplit("/", 1)[-1]
                if isinstance(resource, (r4.Patient, r4.Medication)):
                    pointed[entry.fullUrl] = resource
            if isinstance(resource, r4.Medication):
                pointed[f"Medication/{resource.id}"] = resource
            inside.append((resource, start))
        for resource, start in inside:
            self._resource(resource, start, file, pointed)

    def _resource(self, resource: Any, position: int, file: str, pointed: dict[str, Any]) -> None:
        kind = type(resource).__name__
        if kind == "Medication":
            return  # read where a prescription points to it
        record_id = f"{kind}/{resource.id}" if resource.id else f"{file}@{position}"
        patient = None
        try:
            if kind == "Patient":
                patient = record_id if resource.id else None
            else:
                about = resource.patient if kind == "Immunization" else resource.subject
                patient = self.whose.patient(about, pointed)
            if patient is None:
                raise Refused("no_patient")
            self.whose.seen(patient)
            if kind == "Patient":
                self.whose.identities(resource, patient, pointed)
                self.events += person(resource, patient)
                if resource.deceasedBoolean and not resource.deceasedDateTime:
                    raise Refused("no_time")
                return
            if reason := self.facts.refusal(resource):
                raise Refused(reason)
            self.events += happenings(
                resource, record_id, patient, self.names, lambda m: _medication(m, pointed)
            )
        except Refused as refused:
            self.events += refused.told
            self.refused.add(
                str(refused),
                file=file,
                position=position,
                record_id=record_id,
                patient=patient,
                code="MEDS_DEATH" if kind == "Patient" and patient else None,
            )

    def parcel(self, *, last: bool = False) -> dict[str, pa.Table]:
        """What was found since the last parcel. ``last``: with what was counted all along."""
        ledger: list[dict[str, Any]] = []
        out = {}
        if self.events:
            out["events"] = self._table(ledger)
            self.events = []
        if last:
            ledger += [self._counted(k, "not_read", "left_out", n) for k, n in self.unread.items()]
            ledger += [self._counted(*row) for row in self.whose.counts()]
        if ledger:
            out["ledger"] = LEDGER.rows(ledger)
        return {**out, **links(*self.whose.fresh()), **self.refused.take()}

    def _table(self, ledger: list[dict[str, Any]]) -> pa.Table:
        columns = [list(column) for column in zip(*self.events, strict=True)]
        patient, time, happened, code, number, text, unit, record = columns
        text_of, zone = pa.string(), self.options.zone
        read = instants(pa.array(time, text_of), zone=zone)
        coded = pa.array(code, text_of).dictionary_encode()
        moment, told = known(
            read.time,
            pa.array(happened, text_of),
            coded,
            zone=zone,
            late_after=self.options.late_after,
            delays=self.options.delays,
        )
        ledger += [self._counted(*row) for row in told]
        cells = {
            "patient": pa.array(patient, text_of).dictionary_encode(),
            "time": moment,
            "code": coded,
            "numeric_value": pa.array(number, pa.float64()),
            "text_value": pa.array(text, text_of),
            "unit": pa.array(unit, text_of).dictionary_encode(),
            "source": word(self.source, len(code)),
            "record_id": pa.array(record, text_of),
            "time_text": read.text,
        }
        return pa.table(cells).select(PARCEL_EVENTS.arrow.names)

    def _counted(self, code: str, rule: str, action: str, count: int) -> dict[str, Any]:
        row = {"source": self.source, "code": code, "rule": rule, "action": action}
        return {**row, "count": count}


def _medication(resource: Any, pointed: dict[str, Any]) -> r4.Concept | None:
    """The code of a medicine that is contained, or elsewhere in the same Bundle."""
    reference = resource.medicationReference
    text = reference.reference if reference is not None else None
    if not text:
        return None
    if text.startswith("#"):
        for raw in resource.contained or ():
            try:
                inner = r4.decode(raw)
            except msgspec.DecodeError:
                continue
            if isinstance(inner, r4.Medication) and inner.id in (text, text[1:]):
                return inner.code
        return None
    target = pointed.get(text.split("/_history/", 1)[0])
    return target.code if isinstance(target, r4.Medication) else None
