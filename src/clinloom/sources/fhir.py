"""FHIR R4: bulk-export NDJSON, Bundles, single resources and arrays, gzipped or in zip archives.

A patient's key is ``Patient/<id>`` of this source's server; identifiers stand beside it with their
systems, so that a DICOM file's PatientID or a table's record number finds the same patient where
the study says that they are of that system.
(FHIR R4, http://hl7.org/fhir/R4; Bulk Data Access 2.0.0)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from clinloom.files import FileUnit
from clinloom.sources._fhir import documents, plain, statuses
from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.concepts import PANEL, UNREAD, Observation
from clinloom.sources._fhir.event import Event, Refused, Rows
from clinloom.sources._fhir.happenings import happenings, lacking, person
from clinloom.sources._fhir.identities import Whose
from clinloom.sources._fhir.medicines import Medicines, Waiting
from clinloom.sources._fhir.names import Names
from clinloom.sources._fhir.release import counted, known
from clinloom.sources._fhir.systems import KNOWN
from clinloom.sources._fhir.versions import edition, of_refusal, versions
from clinloom.sources._frames import State
from clinloom.sources._given import FileSource, handed, opened, planned
from clinloom.sources._parcel import Refusals, links, whole, word
from clinloom.sources._rows.cells import measured
from clinloom.sources._time import ASSUMED, assumed, dated, instants, unzoned
from clinloom.study import MICROSECONDS, Codes, Duration, Zone
from clinloom.tables import DEATH, LEDGER, PARCEL_EVENTS

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
    named_by: Literal["record", "number"] = Field(
        default="record",
        description="what names a subject in a fresh output: the record Patient/<id>, which another"
        " record of the patient may replace, or the number of `identifiers`, which another number"
        " may; the latter takes one more pass over the events",
    )
    prefer: Codes = Field(
        default=KNOWN,
        description="the systems whose codings give codes; a concept that has none of them is named"
        " by its first coding",
    )
    codings: Literal["all", "first"] = Field(
        default="all",
        description="all: each coding of a preferred system is an event of the same record; first:"
        " only the one whose system stands first in `prefer`. The ledger counts the others",
    )
    systems: dict[str, str] = Field(default={}, description="short names for further systems")
    statuses: dict[str, tuple[str, ...]] = Field(
        default={},
        description="by resource type, the statuses that tell a fact, in place of the usual ones;"
        " `Condition: [confirmed, provisional]` also takes provisional diagnoses",
    )
    decimal: Literal[".", ","] = Field(
        default=".", description="the decimal mark of numbers that are written as texts"
    )
    zone: Zone | None = Field(
        default=None,
        description="IANA time zone of times that name none; none: UTC, which is counted and said",
    )
    late_after: Duration = Field(
        default=24 * MICROSECONDS["h"],
        description="a result released this long after it was taken is counted in the ledger",
    )
    delays: dict[str, Duration] = Field(
        default={},
        description="by code or pattern with *, how long after the sample (the onset) a result (a"
        " condition) was known whose release (recording) is not told; none: at once, which the"
        " ledger counts",
    )

    @field_validator("server")
    @classmethod
    def _bare(cls, server: str | None) -> str | None:
        return server.rstrip("/") if server else None

    @property
    def own_system(self) -> str | None:
        """The system of Patient/<id>: the server, where the study tells it."""
        return self.server

    @model_validator(mode="after")
    def _told(self) -> Options:
        if self.named_by == "number" and not self.identifiers:
            raise ValueError("`named_by: number` needs the system of the numbers, `identifiers`")
        return self

    @property
    def anchors(self) -> tuple[str, ...]:
        """The systems of its numbers, where these name its patients."""
        if self.named_by == "record" or self.identifiers is None:
            return ()
        told = self.identifiers
        return (told,) if isinstance(told, str) else tuple(told.values())

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

    A result's time is when it was released (``issued``), not when the sample was taken, and a
    condition's when it was recorded; never before it happened, and ``delays`` after that where
    neither is told. ``earlier`` says how long before it was. Reasons of refusal:
    ``malformed_json``, ``malformed_resource``, ``not_a_resource``, ``no_patient``, ``no_code``,
    ``no_time``, ``unreadable_file``, ``empty_file``, or the status, intent or verification that
    tells no fact (``planned``, ``proposal``, ``refuted`` …, see ``statuses``). ``position`` is the
    byte at which the line or resource starts, ``version`` tells the last of several versions of a
    record. Resource types, fields and codings that are not read are counted in the ledger,
    and so are Medications, which give no event of their own.
    """
    reader = _Reader(options, source)
    for piece in handed(units, options, lines=True):
        reader.medicines.reading = piece
        data = whole(piece, reader.refused)
        if data is None:
            continue
        for part, position, lines in documents.parts(piece, data, reader.refused):
            (reader.lines if lines else reader.take)(part, position, piece.name)
            reader.rows.settle()
            if len(reader.rows) >= PARCEL:
                yield reader.parcel()
    reader.end()
    if left := reader.parcel(last=True):
        yield left


class _Reader:
    """What a group of files gave so far."""

    def __init__(self, options: Options, source: str):
        self.options, self.source = options, source
        self.refused = Refusals(source)
        every, displays = options.codings == "all", self.refused.displays
        self.names = Names(
            options.prefer, options.systems, displays, every=every, decimal=options.decimal
        )
        self.facts = statuses.Facts(options.statuses)
        self.medicines = Medicines(options, lambda piece: documents.found(piece, Refusals(source)))
        self.zone = options.zone or ASSUMED
        self.rows = Rows()
        self.waiting: list[tuple[Any, int, str, dict[str, Any]]] = []
        self.unread = Counter(dict.fromkeys((*UNREAD.values(), PANEL), 0))  # in one order
        self.whose = Whose(options.identifiers, options.server)
        self.plain = plain.Plain(self.names, self.facts, self.whose, self.unread)

    def lines(self, data: bytes, position: int, file: str) -> None:
        """Read lines of a resource each; the first starts at byte ``position`` of the file."""
        for resource, line, start in self.plain.take(data, position, self.rows):
            if resource is not None and type(resource) is not Observation:
                self._found(resource, line, start, file)
            elif line and not line.isspace():
                self.take(line, start, file)

    def take(self, data: bytes, position: int, file: str) -> None:
        """Read one resource; whatever is wrong with it is refused with its place."""
        self._found(self._decoded(data, position, file), data, position, file)

    def _found(self, resource: Any, data: bytes, position: int, file: str) -> None:
        if type(resource) is r4.Bundle:
            self._bundle(resource, data, position, file)
        elif resource is not None:
            self._resource(resource, position, file, {})

    def _decoded(self, data: bytes, position: int, file: str) -> Any:
        try:
            return r4.decode(data)
        except msgspec.ValidationError as error:
            self._invalid(data, position, file, r4.element(error))
        except r4.MALFORMED:
            self.refused.add("malformed_json", file=file, position=position)
        return None

    def _invalid(self, data: bytes, position: int, file: str, field: str | None) -> None:
        """Count a resource of a kind that is not read; refuse what is malformed, or none."""
        try:
            kind = r4.decode_kind(data)
        except r4.MALFORMED:
            kind = r4.Kind()
        if kind.resourceType is None:
            self.refused.add("not_a_resource", file=file, position=position)
        elif kind.resourceType in r4.NAMES:
            told = f"{kind.resourceType}/{kind.id}" if kind.id else None
            self.refused.add(
                "malformed_resource", file=file, position=position, record_id=told, field=field
            )
        else:
            self.unread[kind.resourceType] += 1

    def _bundle(self, bundle: r4.Bundle, whole: bytes, position: int, file: str) -> None:
        """A Bundle's resources; ``fullUrl`` tells what its references point to (R4 2.36.4)."""
        inside: list[tuple[Any, bytes, int]] = []
        pointed: dict[str, Any] = {}
        at = 0
        for entry in bundle.entry or ():
            data = bytes(entry.resource)
            if data in (b"", b"null"):
                continue
            at = r4.place(whole, data, at)
            start, at = position + at, at + len(data)
            resource = plain.decoded(data)
            if resource is None:
                resource = self._decoded(data, start, file)  # or tells what is wrong with it
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
            inside.append((resource, data, start))
        for resource, data, start in inside:
            if type(resource) is not Observation:
                self._resource(resource, start, file, pointed)
            elif not self.plain.alone(resource, self.rows, pointed):
                read = self._decoded(data, start, file)
                if read is not None:
                    read.id = resource.id
                    self._resource(read, start, file, pointed)

    def _resource(self, resource: Any, position: int, file: str, pointed: dict[str, Any]) -> None:
        kind = type(resource).__name__
        if kind == "Medication":
            self.medicines.note(resource)  # read where a prescription points to it
            return
        record_id = f"{kind}/{resource.id}" if resource.id else f"{file}@{position}"
        patient = version = None
        try:
            if kind == "Patient":
                patient = record_id if resource.id else None
            else:
                about = resource.patient if kind == "Immunization" else resource.subject
                patient = self.whose.patient(about, pointed)
            if patient is None:
                raise Refused("no_patient")
            self.whose.seen(patient)
            self.names.patient = patient
            if kind == "Patient":
                self.whose.identities(resource, patient, pointed)
                self._told(resource, person(resource, patient))
                if resource.deceasedBoolean and not resource.deceasedDateTime:
                    raise Refused("no_time")
                return
            if refusal := self.facts.refusal(resource):
                version = of_refusal(resource, str(refusal), self.zone)
                raise refusal
            medicine = partial(self.medicines.concept, pointed=pointed)
            events = happenings(resource, record_id, patient, self.names, medicine)
            self._told(resource, events)
            self.unread[PANEL] += not events
        except Waiting:
            self.waiting.append((resource, position, file, pointed))
        except Refused as refused:
            self._told(resource, refused.told)
            self.refused.add(
                str(refused),
                file=file,
                position=position,
                record_id=record_id,
                patient=patient,
                code=DEATH if kind == "Patient" and patient else None,
                version=version,
                field=refused.field or lacking(kind, str(refused)),
            )

    def _told(self, resource: Any, events: Sequence[Event]) -> None:
        """Keep what a resource tells; count what else it holds."""
        self.rows.add(events, resource.meta, edition(resource))
        for name in r4.LEFT_OUT[type(resource)]:
            if getattr(resource, name) is not r4.UNREAD:
                self.unread[f"{type(resource).__name__}.{name}"] += 1

    def end(self) -> None:
        """Everything is read: prescriptions whose medicine is nowhere are refused now."""
        self.medicines.all_read = True
        waiting, self.waiting = self.waiting, []
        for resource, position, file, pointed in waiting:
            self._resource(resource, position, file, pointed)

    def parcel(self, *, last: bool = False) -> dict[str, pa.Table]:
        """What was found since the last parcel. ``last``: with what was counted all along."""
        ledger: list[dict[str, Any]] = []
        out = {}
        if self.rows:
            out["events"] = self._table(ledger)
        if last:
            told = (("not_read", self.unread), ("other_coding", self.names.left_out))
            for rule, counts in told:
                ledger += [self._counted(k, rule, "left_out", n) for k, n in counts.items() if n]
            ledger += [self._counted(*row) for row in self.medicines.counts()]
            ledger += [self._counted(*row) for row in self.whose.counts()]
            ledger += self.refused.counts()
        if ledger:
            out["ledger"] = LEDGER.rows(ledger)
        return {**out, **links(*self.whose.fresh()), **self.refused.take()}

    def _table(self, ledger: list[dict[str, Any]]) -> pa.Table:
        columns = self.rows.arrays()
        patient, time, made, onset, code, number, text, unit, record, updated, editions = columns
        zone, coded = self.zone, code.dictionary_encode()
        if self.options.zone is None:
            self.refused.zoneless += assumed(unzoned(time), coded)
        found = known(
            dated(instants(time, zone=zone), coded, zone),
            coded,
            made=made,
            onset=onset,
            zone=zone,
            late_after=self.options.late_after,
            delays=self.options.delays,
        )
        ledger += [self._counted(*row) for row in found.told]
        like = measured(text, decimal=self.options.decimal).like
        if like is not None:
            like = pc.and_not(like, number.is_valid())  # a Quantity's, which has a comparator
            told = counted(coded, like, "text_like_number", "kept_as_text")
            ledger += [self._counted(*row) for row in told]
        cells = {
            "patient": patient.dictionary_encode(),
            "time": found.time,
            "code": coded,
            "numeric_value": number,
            "text_value": text,
            "unit": unit.dictionary_encode(),
            "source": word(self.source, len(code)),
            "record_id": record,
            "earlier": found.earlier,
            "time_text": found.text,
            "version": versions(updated, editions, zone),
        }
        return pa.table(cells).select(PARCEL_EVENTS.arrow.names)

    def _counted(self, code: str, rule: str, action: str, count: int) -> dict[str, Any]:
        row = {"source": self.source, "code": code, "rule": rule, "action": action}
        return {**row, "count": count}
