"""The medicines that prescriptions point to: contained, in the same Bundle, or in other files.

A bulk export writes Medication into files of its own, named after the type (Bulk Data Access
2.0.0); those that a prescription asks for are read once by each worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from clinloom import files
from clinloom.errors import SourceError
from clinloom.files import FileUnit, Piece
from clinloom.sources._fhir import resources as r4
from clinloom.sources._given import FileSource

NAMED = re.compile(r"(.*[^a-z])?medications?([^a-z].*)?", re.IGNORECASE)
Found = Callable[[FileUnit], Iterable[r4.Found]]
Codes = dict[str, r4.Concept | None]
_held: dict[str, Codes] = {}  # by fingerprint, of one source: what a worker read last


class Waiting(Exception):
    """The medicine may come later: in what is still to be read."""


class Medicines:
    """The medicines of one source, as far as they are known."""

    def __init__(self, options: FileSource, found: Found):
        self._options, self._found = options, found
        self._seen: Codes = {}
        self._others: Codes | None = None
        self._noted = 0
        self.reading: FileUnit | None = None
        self.all_read = False

    def note(self, medication: r4.Medication) -> None:
        """A Medication of its own, to which any prescription may point."""
        self._noted += 1
        if medication.id:
            self._seen[medication.id] = medication.code

    def counts(self) -> Iterator[tuple[str, str, str, int]]:
        """What the ledger tells (code, rule, action, count): nobody here knows whether a
        prescription that another worker reads points to one."""
        if self._noted:
            yield "Medication", "by_reference", "no_event", self._noted

    def concept(self, resource: Any, pointed: Mapping[str, Any]) -> r4.Concept | None:
        """The medicine of a resource that names it by reference; ``pointed``: in its Bundle.

        Raises Waiting where it may still come.
        """
        reference = resource.medicationReference
        text = reference.reference if reference is not None else None
        if not text:
            return None
        if text.startswith("#"):
            return _contained(resource, text)
        plain = text.split("/_history/", 1)[0]
        target = pointed.get(plain)
        if isinstance(target, r4.Medication):
            return target.code
        key = re.split("[/:]", plain)[-1]
        if key not in self._seen:
            if self._others is None:
                self._others = self._read()
            if key in self._others:
                return self._others[key]
            if not self.all_read:
                raise Waiting
        return self._seen.get(key)

    def _read(self) -> Codes:
        """The source's files that are named after Medication; none where bytes were handed."""
        if self._options.open != "workers" or not isinstance(self.reading, Piece):
            return {}
        try:
            listed = files.listing(self._options.path, include=self._options.include)
            pieces = [piece for piece in listed if NAMED.fullmatch(_stem(piece.name))]
        except SourceError:
            return {}
        key = files.fingerprint(pieces)
        if key not in _held:
            _held.clear()
            _held[key] = {m.id: m.code for piece in pieces for m in self._medicines(piece) if m.id}
        return _held[key]

    def _medicines(self, piece: FileUnit) -> Iterable[r4.Medication]:
        for data, _ in self._found(piece):
            try:
                resource = r4.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # refused where the file itself is read
            if isinstance(resource, r4.Medication):
                yield resource


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].removesuffix(".gz").rsplit(".", 1)[0]


def _contained(resource: Any, text: str) -> r4.Concept | None:
    for raw in resource.contained or ():
        try:
            inner = r4.decode(raw)
        except msgspec.DecodeError:
            continue
        if isinstance(inner, r4.Medication) and inner.id in (text, text[1:]):
            return inner.code
    return None
