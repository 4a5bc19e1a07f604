"""What Observations say in few words again and again, as it is written: each is read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.identities import Whose
from clinloom.sources._fhir.names import Names
from clinloom.sources._fhir.values import Value, value

MOST = 1 << 16  # distinct texts that are remembered: a code may carry a text of its own
Text = TypeVar("Text")
Read = TypeVar("Read")


class Part(r4.Valued):
    """Observation.component, its code as it is written."""

    code: msgspec.Raw = r4.UNREAD


class Observation(r4.Observed, tag_field="resourceType", tag="Observation"):
    """R4 10.1, its code as it is written."""

    code: msgspec.Raw = r4.UNREAD
    component: list[Part] | None = None


VALUES = {f.name: msgspec.json.Decoder(f.type).decode for f in msgspec.structs.fields(r4.Valued)}
# Of Observations, what is counted and not read, as the ledger calls it; a panel of members alone.
UNREAD = {name: f"Observation.{name}" for name in r4.LEFT_OUT[r4.Observation]}
PANEL = "Observation.hasMember"
_concept = msgspec.json.Decoder(r4.Concept | None).decode


class Called(NamedTuple):
    """The codes of a concept, the only one, those of the codings that are passed over, and how the
    codings call those of which that is still asked."""

    codes: tuple[str, ...]
    alone: str | None
    left_out: tuple[str, ...]
    shown: tuple[tuple[str, str], ...]


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


class Concepts:
    """What one source's texts mean.

    ``called``: concepts; ``patients``: references, whose patients are seen from then on, None where
    it is nobody; ``said``: values by the names of their fields, None where they are malformed.
    """

    def __init__(self, names: Names, whose: Whose):
        self.names, self._whose = names, whose
        self.answer, self.decimal = names.answer, names.decimal
        self.called: dict[bytes, Called] = _Once(self._read_code)
        self.patients: dict[str | None, str | None] = _Once(self._read_patient)
        self.said: dict[tuple[str, str], Value | None] = _Once(self._read_value)

    def codes(self, concept: msgspec.Raw) -> tuple[str, ...]:
        """The codes of what is not without them; those that are passed over are counted."""
        called = self.called[bytes(concept)]
        self.pass_over(called)
        if called.shown:
            self.show(bytes(concept), self.names.patient)
        return called.codes

    due = codes

    def pass_over(self, called: Called, times: int = 1) -> None:
        """So many records have these codings that are not read."""
        for code in called.left_out:
            self.names.left_out[code] += times

    def show(self, written: bytes, patient: str) -> None:
        """A patient's record calls its codes so; no more is asked where that is settled."""
        called, displays = self.called[written], self.names.displays
        for code, display in called.shown:
            displays.note(code, display, patient)
        if all(code in displays.settled for code, _ in called.shown):
            self.called[written] = called._replace(shown=())

    def _read_code(self, written: bytes) -> Called:
        """What a concept gives: nothing where it is absent or malformed."""
        try:
            concept = _concept(written) if written else None
        except r4.MALFORMED:
            concept = None
        codes, left_out, shown = self.names.named(concept)
        return Called(codes, codes[0] if len(codes) == 1 else None, left_out, shown)

    def _read_patient(self, reference: str | None) -> str | None:
        patient = self._whose.patient(r4.Reference(reference), {}) if reference else None
        if patient is not None:
            self._whose.seen(patient)
        return patient

    def _read_value(self, told: tuple[str, str]) -> Value | None:
        name, written = told
        try:
            said = r4.Valued(**{name: VALUES[name](written)})
        except r4.MALFORMED:
            return None
        return value(said, self.names)
