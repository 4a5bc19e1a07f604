"""Observations of the usual shape, of which most data consist, many at a time.

Their fields are gathered column by column, and each distinct code and patient is read once.
Whatever is of another shape, or wrong in any way, is left to who reads any resource, in its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Any, NamedTuple, TypeVar

import msgspec

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.event import Refused, Rows
from clinloom.sources._fhir.happenings import effective, observation
from clinloom.sources._fhir.identities import Whose
from clinloom.sources._fhir.names import Names
from clinloom.sources._fhir.statuses import Facts
from clinloom.sources._fhir.values import value
from clinloom.sources._fhir.versions import RANK, Versions

MOST = 1 << 16  # distinct texts that are remembered: a code may carry a text of its own


class Part(r4.Valued):
    """Observation.component, its code as it is written."""

    code: msgspec.Raw = r4.UNREAD


class Observation(r4.Observed, tag_field="resourceType", tag="Observation"):
    """R4 10.1, its code as it is written."""

    code: msgspec.Raw = r4.UNREAD
    component: list[Part] | None = None


_kinds: Any = reduce(or_, [Observation if kind is r4.Observation else kind for kind in r4.KINDS])
_decode = msgspec.json.Decoder(_kinds).decode
_concept = msgspec.json.Decoder(r4.Concept | None).decode
INVALID = r4.Record()  # stands for JSON that is no resource of a kind that is read
OTHER = Observation(subject=r4.Reference())  # stands for what is not of the usual shape
Text = TypeVar("Text")
Read = TypeVar("Read")
# A resource (or INVALID; None: no JSON), its line, and where that starts.
Left = tuple[Any, bytes, int]


class _Called(NamedTuple):
    """The codes of a concept, the only one, those of the codings that are passed over, and how the
    codings call those of which that is still asked."""

    codes: tuple[str, ...]
    alone: str | None
    left_out: tuple[str, ...]
    shown: tuple[tuple[str, str], ...]


Gathered = tuple[list[_Called], tuple[Sequence[Any], ...], list[bool]]


class _Once(dict[Text, Read]):
    """What is read of texts, each of which is read once."""

    def __init__(self, read: Callable[[Text], Read]):
        super().__init__()
        self._read = read

    def __missing__(self, text: Text) -> Read:
        if len(self) >= MOST:
            self.clear()
        found = self[text] = self._read(text)
        return found


class Plain:
    """Reads one source's Observations as long as they are of the usual shape."""

    def __init__(self, names: Names, facts: Facts, whose: Whose, versions: Versions):
        self._names, self._whose, self._versions = names, whose, versions
        self._statuses = facts.told(r4.Observation) - RANK.keys() | {None}
        self._called, self._patients = _Once(self._read_code), _Once(self._read_patient)
        self._some_left_out = False
        self.answer = names.answer

    def take(self, data: bytes, start: int, rows: Rows) -> Iterator[Left]:
        """Add the usual Observations' events to ``rows``; yield the others, each in its turn.

        ``data``: some lines, the first of which starts at byte ``start`` of the file.
        """
        lines = data.split(b"\n")
        resources = _decoded(lines)
        if Observation not in set(map(type, resources)):
            for resource, line in zip(resources, lines, strict=True):
                yield resource, line, start
                start += len(line) + 1
            return
        called, columns, usual = self._columns(resources)
        if all(usual):
            rows.extend(columns)
            self._pass_over(called)
            return
        end = 0
        for fits, run in groupby(usual):
            begin, end = end, end + len(list(run))
            if fits:
                rows.extend([column[begin:end] for column in columns])
                self._pass_over(called[begin:end])
                start += sum(map(len, lines[begin:end])) + end - begin
                continue
            for resource, line in zip(resources[begin:end], lines[begin:end], strict=True):
                if not self._alone(resource, rows):
                    yield resource, line, start
                start += len(line) + 1

    def _columns(self, resources: Sequence[Any]) -> Gathered:
        """What the resources' codes gave, an event of each in columns, and which are usual."""
        told, names = self._statuses, self._names
        known, patients = self._called, self._patients
        kept: list[Any] = [
            r
            if type(r) is Observation
            and r.status in told
            and r.id
            and r.subject is not None
            and not r.component
            and not r.hasMember
            and ((m := r.meta) is None or m.lastUpdated or not m.versionId)
            else OTHER
            for r in resources
        ]
        called = [known[bytes(o.code)] for o in kept]
        code = [c.alone for c in called]
        about = [o.subject.reference for o in kept]
        patient = [patients[a] if c else None for a, c in zip(about, code, strict=True)]
        happened = [effective(o) if (t := o.effectiveDateTime) is None else t for o in kept]
        time = issued = [o.issued for o in kept]
        made: list[str | None] = happened
        if not (all(issued) and all(happened)):
            time = [i or h or "" for i, h in zip(issued, happened, strict=True)]
            made = [(h if i else "") if h else None for i, h in zip(issued, happened, strict=True)]
        said = [
            (q.value, None, q.code or q.unit or None)
            if (q := o.valueQuantity) is not None and type(q.value) is float and not q.comparator
            else value(o, names)
            for o in kept
        ]
        number, text, unit = zip(*said, strict=True)
        record = [f"Observation/{o.id}" for o in kept]
        updated = [m.lastUpdated if (m := o.meta) is not None else None for o in kept]
        onset = [None] * len(kept)
        usual = [
            p is not None and "0" < t < ":"  # a time begins with a digit
            for p, t in zip(patient, time, strict=True)
        ]
        columns = (patient, time, made, onset, code, number, text, unit, record, updated)
        for o, c, p in zip(kept, called, patient, strict=True):
            if c.shown and p is not None:
                self._show(o.code, c, p)
        return called, columns, usual

    def _alone(self, o: Any, rows: Rows) -> bool:
        """Add the events of an Observation with several codes or components, where it is that."""
        if type(o) is not Observation or o.status not in self._statuses or not o.id:
            return False
        codes = [self._called[bytes(said.code)].codes for said in (o, *(o.component or ()))]
        patient = self._patients[o.subject.reference] if all(codes) and o.subject else None
        if patient is None:
            return False
        begin, self._names.patient = len(rows), patient
        try:
            rows.add(observation(o, f"Observation/{o.id}", patient, self), o.meta)
        except Refused:
            return False
        self._versions.note(o, begin, len(rows))
        return True

    def codes(self, concept: msgspec.Raw) -> tuple[str, ...]:
        """The codes of what is not without them; those that are passed over are counted."""
        called = self._called[bytes(concept)]
        self._pass_over((called,))
        if called.shown:
            self._show(concept, called, self._names.patient)
        return called.codes

    due = codes

    def _pass_over(self, called: Iterable[_Called]) -> None:
        if not self._some_left_out:
            return
        counts = self._names.left_out
        for one in called:
            for code in one.left_out:
                counts[code] += 1

    def _show(self, concept: msgspec.Raw, called: _Called, patient: str) -> None:
        """A patient's record calls its codes so; no more is asked where that is settled."""
        displays = self._names.displays
        for code, display in called.shown:
            displays.note(code, display, patient)
        if all(code in displays.settled for code, _ in called.shown):
            self._called[bytes(concept)] = called._replace(shown=())

    def _read_code(self, written: bytes) -> _Called:
        """What a concept gives: nothing where it is absent or malformed."""
        try:
            concept = _concept(written) if written else None
        except r4.MALFORMED:
            concept = None
        codes, left_out, shown = self._names.named(concept)
        self._some_left_out |= bool(left_out)
        return _Called(codes, codes[0] if len(codes) == 1 else None, left_out, shown)

    def _read_patient(self, reference: str | None) -> str | None:
        """The patient of a reference, who is seen from now on."""
        patient = self._whose.patient(r4.Reference(reference), {}) if reference else None
        if patient is not None:
            self._whose.seen(patient)
        return patient


def _decoded(lines: Sequence[bytes]) -> list[Any]:
    """The resources, one a line; INVALID, or None where a line is no JSON."""
    try:
        return list(map(_decode, lines))
    except r4.MALFORMED:
        return [_tried(line) for line in lines]


def _tried(line: bytes) -> Any:
    try:
        return _decode(line)
    except msgspec.ValidationError:
        return INVALID
    except r4.MALFORMED:
        return None
