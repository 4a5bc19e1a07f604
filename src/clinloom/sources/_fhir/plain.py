"""Observations, of which most data consist: those of the usual shape many at a time.

The others are read one by one, their codes remembered too. What is wrong in any way is left to who
reads any resource, in its turn.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.concepts import PANEL, UNREAD, Concepts, Observation
from clinloom.sources._fhir.event import Refused, Rows
from clinloom.sources._fhir.happenings import observation
from clinloom.sources._fhir.identities import Whose
from clinloom.sources._fhir.layouts import Lines
from clinloom.sources._fhir.names import Names
from clinloom.sources._fhir.statuses import Facts
from clinloom.sources._fhir.usual import Noted, Usual
from clinloom.sources._fhir.versions import RANK, edition

_kinds: Any = reduce(or_, [Observation if kind is r4.Observation else kind for kind in r4.KINDS])
_decode = msgspec.json.Decoder(_kinds).decode
NOTHING: Mapping[str, Any] = MappingProxyType({})
# A resource (None: who reads any resource tells what is wrong), its line, and where that starts.
Left = tuple[Any, bytes, int]


class Plain:
    """Reads one source's Observations. ``unread``: counts what else they hold."""

    def __init__(self, names: Names, facts: Facts, whose: Whose, unread: Counter[str]):
        self._names, self._whose, self._concepts = names, whose, Concepts(names, whose)
        self._told = facts.told(r4.Observation) | {None}
        self._usual = Usual(self._concepts, self._told - RANK.keys(), decoded, unread)
        self._unread = unread

    def take(self, data: bytes, start: int, rows: Rows) -> Iterator[Left]:
        """Add the Observations' events to ``rows``; yield what is left, each in its turn.

        ``data``: some lines, the first of which starts at byte ``start`` of the file.
        """
        lines = Lines(data)
        usual = self._usual.read(lines)
        if usual is not None:
            rows.settle(0)
        noted, added = deque(usual.noted if usual is not None else ()), []
        for number in lines.left.tolist():
            self._note(noted, before=number)
            held, line = len(rows), lines[number]
            resource = decoded(line)
            if not self.alone(resource, rows):
                yield resource, line, start + int(lines.begins[number])
            added.append(len(rows) - held)
        self._note(noted, before=len(lines.begins))
        if usual is not None:
            rows.weave(usual.columns, usual.rows, among=np.repeat(lines.left, added))

    def _note(self, noted: deque[Noted], *, before: int) -> None:
        """What the lines before this one tell besides, so that all lines tell it in their order."""
        while noted and noted[0].row < before:
            note = noted.popleft()
            if note.patient is None:
                self._concepts.pass_over(self._concepts.called[note.code], note.times)
            else:
                self._concepts.show(note.code, note.patient)

    def alone(self, o: Any, rows: Rows, pointed: Mapping[str, Any] = NOTHING) -> bool:
        """Add the events of an Observation without peculiarities, where it is that.

        ``pointed``: the resources of its Bundle by their full addresses.
        """
        if type(o) is not Observation or o.status not in self._told or not o.id:
            return False
        called = self._concepts.called
        codes = [called[bytes(said.code)].codes for said in (o, *(o.component or ()))]
        reference = o.subject.reference if all(codes) and o.subject else None
        if reference in pointed:
            patient = self._whose.patient(o.subject, pointed)
            if patient is not None:
                self._whose.seen(patient)
        else:
            patient = self._concepts.patients[reference]
        if patient is None:
            return False
        self._names.patient = patient
        try:
            events = observation(o, f"Observation/{o.id}", patient, self._concepts)
        except Refused:
            return False
        rows.add(events, o.meta, edition(o))
        for name, called_so in UNREAD.items():
            if getattr(o, name) is not r4.UNREAD:
                self._unread[called_so] += 1
        if not events:
            self._unread[PANEL] += 1
        return True


def decoded(line: bytes) -> Any:
    """The resource of a line; None where it is no JSON, or no resource of a kind that is read.

    Nor is one whose bytes are not UTF-8 throughout: of a key that stands twice the first is passed
    over here, whatever it holds.
    """
    try:
        if not line.isascii():
            line.decode()
        return _decode(line)
    except r4.MALFORMED:
        return None
