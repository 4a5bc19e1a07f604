"""Whose a FHIR resource is, and which identifiers and records are of one patient.

A record is ``Patient/<id>``; who is known by an identifier alone is called as a conditional
reference would: ``Patient?identifier=system|value``. (FHIR R4 2.3.0 References, 3.1.0.11.2
conditional references, 8.1 Patient)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from clinloom.identity.placeholders import nobody
from clinloom.identity.sharing import SERVER, UNLINKED
from clinloom.sources._fhir import resources as r4

CONDITION = "Patient?identifier="
RECORD_NUMBER = "MR"  # HL7 v2 table 0203: medical record number
Pairs = list[tuple[str, str]]


class Whose:
    """The patients of a source's resources, and what links them.

    ``wanted``: the systems whose identifiers count, or their names; ``server``: the source's own.
    """

    def __init__(self, wanted: str | Mapping[str, str] | None, server: str | None):
        self._wanted, self._server = wanted, server
        self._names = wanted if isinstance(wanted, Mapping) else {}
        self._pairs: dict[tuple[str, str, str], None] = {}  # patient, the other's system, other
        self._told: set[tuple[str, str, str]] = set()
        self._keys: dict[str, str | None] = {}
        self._logical: dict[tuple[str | None, str | None], str | None] = {}
        self._left: Counter[str] = Counter()
        self._servers: Counter[str] = Counter()

    def seen(self, patient: str) -> None:
        """A patient of whom a resource tells."""
        self._pairs[patient, "", patient] = None

    def patient(self, about: r4.Reference | None, pointed: Mapping[str, Any]) -> str | None:
        """The key of the patient that a reference points to; None where it names nobody.

        ``pointed``: the resources of its Bundle by their full addresses.
        """
        if about is None:
            return None
        text = about.reference
        if not text:
            given = about.identifier
            return self._known_by(given.system, given.value) if given is not None else None
        if text in pointed:
            target = pointed[text]
            return f"Patient/{target.id}" if isinstance(target, r4.Patient) else None
        if text not in self._keys:
            self._keys[text] = self._elsewhere(text)
        return self._keys[text]

    def _elsewhere(self, text: str) -> str | None:
        if text.startswith(CONDITION):
            system, _, value = text.removeprefix(CONDITION).rpartition("|")
            return self._known_by(system, value)
        server, key = _key(text)
        if key is None or not server:
            return key
        if self._server is None:
            self._servers[server] += 1
            return key
        if server == self._server:
            return key
        foreign = f"{server}/{key}"
        self._pairs[foreign, server, key] = None
        return foreign

    def _known_by(self, system: str | None, value: str | None) -> str | None:
        """The key of who is known by an identifier alone, linked to it; None of a placeholder."""
        if (system, value) not in self._logical:
            plain, key = (value or "").strip(), None
            if plain and not nobody(pa.array([plain]))[0].as_py():
                key = f"{CONDITION}{self._system(system)}|{plain}"
                self._pairs[key, self._system(system), plain] = None
            self._logical[system, value] = key
        return self._logical[system, value]

    def _system(self, told: str | None) -> str:
        """An identifier's system, as the study calls it; "": none is told."""
        return self._names.get(told or "", told or "")

    def identities(self, patient: r4.Patient, key: str, pointed: Mapping[str, Any]) -> None:
        """Note which identifiers, and which other records, are this patient's."""
        given = [i for i in patient.identifier or () if i.value]
        if self._wanted is None:
            chosen = [i for i in given if _is_record_number(i)] or given
        else:
            systems = (self._wanted,) if isinstance(self._wanted, str) else self._wanted
            chosen = [i for i in given if (i.system or "") in systems]
        if len(chosen) < len(given):
            self._left.update(i.system or "" for i in given if i not in chosen)
        for identifier in chosen:
            value = (identifier.value or "").strip()
            self._pairs[key, self._system(identifier.system), value] = None
        for link in patient.link or ():
            other = self.patient(link.other, pointed)
            if other is not None:
                self._pairs[key, "", other] = None

    def fresh(self) -> tuple[Pairs, list[str | None]]:
        """The pairs that were not told yet, and the systems of their other ends."""
        fresh = sorted(self._pairs.keys() - self._told)
        self._told.update(fresh)
        self._pairs = {}
        return [(one, other) for one, _, other in fresh], [system or None for _, system, _ in fresh]

    def counts(self) -> Iterator[tuple[str, str, str, int]]:
        """Ledger rows: identifiers that link nobody, by system; references, by the server named."""
        yield from ((system, UNLINKED, "not_linked", n) for system, n in self._left.items())
        yield from (
            (server, SERVER, "taken_as_own", n) for server, n in sorted(self._servers.items())
        )


def _is_record_number(identifier: r4.Identifier) -> bool:
    codings = (identifier.type.coding if identifier.type else None) or ()
    return any(coding.code == RECORD_NUMBER for coding in codings)


def _key(reference: str) -> tuple[str, str | None]:
    """The server of an absolute reference, and ``Patient/<id>`` of any form; None of others."""
    if reference.startswith("urn:"):
        return "", f"Patient/{reference.rsplit(':', 1)[-1]}"
    parts = reference.split("/_history/", 1)[0].rsplit("/", 2)
    if len(parts) < 2 or parts[-2] != "Patient" or not parts[-1]:
        return "", None
    return "".join(parts[:-2]), f"Patient/{parts[-1]}"
