"""How concepts are named: which of their codings give codes, and which are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.event import Refused
from clinloom.sources._fhir.systems import short


class Naming(Protocol):
    """What names the codes of Observations, in whatever form these hold their concepts."""

    def codes(self, concept: Any) -> tuple[str, ...]:
        """The codes, none where there are none."""

    def due(self, concept: Any) -> tuple[str, ...]:
        """The codes. Raises Refused where there is none."""

    def answer(self, concept: r4.Concept) -> str | None:
        """The code of a value."""


class _Coding(NamedTuple):
    """A coding's place among the preferred systems (None: in none), its code, and that alone."""

    rank: int | None
    name: str
    alone: tuple[str]


class Names:
    """How codes are named: the preferred systems, and names for others.

    ``every``: each coding of a preferred system gives a code, else the one whose system stands
    first. A concept that has none of these is named by its first coding. ``left_out`` counts the
    codes that were passed over.
    """

    def __init__(self, preferred: Sequence[str], systems: Mapping[str, str], *, every: bool):
        self._rank = {name: at for at, name in reversed(list(enumerate(preferred)))}
        self._systems, self._every = systems, every
        self._known: dict[tuple[str | None, str], _Coding] = {}
        self.left_out: Counter[str] = Counter()

    def codes(self, concept: r4.Concept | None) -> tuple[str, ...]:
        """``SYSTEM//code`` of each coding that is kept; of the same thing in several systems."""
        kept, others = self.named(concept)
        if others:
            self.left_out.update(others)
        return kept

    def named(self, concept: r4.Concept | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The codes of the codings that are kept, and of those that are passed over."""
        codings = concept.coding if concept is not None else None
        if not codings:
            return (), ()
        if len(codings) > 1:
            return self._several(codings)
        coding = codings[0]
        if not coding.code:
            return (), ()
        return (self._known.get((coding.system, coding.code)) or self._named(coding)).alone, ()

    def due(self, concept: r4.Concept | None) -> tuple[str, ...]:
        """The codes. Raises Refused where there is none."""
        codes = self.codes(concept)
        if not codes:
            raise Refused("no_code")
        return codes

    def answer(self, concept: r4.Concept) -> str | None:
        """The code of a value: of the coding whose system stands first, else of the first."""
        found = [self._named(coding) for coding in concept.coding or () if coding.code]
        kept = [coding for coding in found if coding.rank is not None]
        if kept:
            return min(kept, key=_place).name
        return found[0].name if found else None

    def _named(self, coding: r4.Coding) -> _Coding:
        key = (coding.system, coding.code or "")
        known = self._known.get(key)
        if known is None:
            system = self._systems.get(coding.system or "") or short(coding.system)
            name = f"{system}//{coding.code}"
            known = self._known[key] = _Coding(self._rank.get(system), name, (name,))
        return known

    def _several(self, codings: Sequence[r4.Coding]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = dict.fromkeys(self._named(coding) for coding in codings if coding.code)
        kept = [coding for coding in found if coding.rank is not None]
        if not kept:
            kept = list(found)[:1]
        elif not self._every:
            kept = [min(kept, key=_place)]
        others = [coding for coding in found if coding not in kept]
        return tuple(c.name for c in kept), tuple(c.name for c in others)


def _place(coding: _Coding) -> int:
    return -1 if coding.rank is None else coding.rank
