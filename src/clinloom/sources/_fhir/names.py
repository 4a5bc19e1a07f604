"""How concepts are named: which of their codings give codes, and which are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from clinloom.sources._displays import Displays
from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.event import Refused
from clinloom.sources._fhir.systems import short


class Naming(Protocol):
    """What names the codes of Observations, in whatever form these hold their concepts.

    ``decimal``: the decimal mark of numbers that are written as texts.
    """

    decimal: str

    def codes(self, concept: Any) -> tuple[str, ...]:
        """The codes, none where there are none."""

    def due(self, concept: Any) -> tuple[str, ...]:
        """The codes. Raises Refused where there is none."""

    def answer(self, concept: r4.Concept) -> str | None:
        """The code of a value."""


Named = tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, str], ...]]


class _Coding(NamedTuple):
    """A coding's place among the preferred systems (None: in none), its code, and that alone."""

    rank: int | None
    name: str
    alone: tuple[str]


class Names:
    """How codes are named: the preferred systems, and names for others.

    ``every``: each coding of a preferred system gives a code, else the one whose system stands
    first. A concept that has none of these is named by its first coding. ``left_out`` counts the
    codes that were passed over; ``displays`` is told how codings call the codes.
    """

    def __init__(
        self,
        preferred: Sequence[str],
        systems: Mapping[str, str],
        displays: Displays,
        *,
        every: bool,
        decimal: str = ".",
    ):
        self.decimal = decimal
        self._rank = {name: at for at, name in reversed(list(enumerate(preferred)))}
        self._systems, self._every = systems, every
        self._known: dict[tuple[str | None, str], _Coding] = {}
        self.left_out: Counter[str] = Counter()
        self.displays, self.patient = displays, ""  # of whom the concept tells that is named next

    def codes(self, concept: r4.Concept | None) -> tuple[str, ...]:
        """``SYSTEM//code`` of each coding that is kept; of the same thing in several systems."""
        kept, others, shown = self.named(concept)
        if others:
            self.left_out.update(others)
        for code, display in shown:
            self.displays.note(code, display, self.patient)
        return kept

    def named(self, concept: r4.Concept | None) -> Named:
        """The codes of the codings that are kept, of those that are passed over, and how the
        codings call those of which that is still asked."""
        codings = concept.coding if concept is not None else None
        if not codings:
            return (), (), ()
        if len(codings) > 1:
            return self._several(codings)
        coding = codings[0]
        if not coding.code:
            return (), (), ()
        known = self._known.get((coding.system, coding.code)) or self._named(coding)
        display, asked = coding.display, known.name not in self.displays.settled
        return known.alone, (), ((known.name, display),) if display and asked else ()

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

    def _several(self, codings: Sequence[r4.Coding]) -> Named:
        told = [(self._named(coding), coding.display) for coding in codings if coding.code]
        found = dict.fromkeys(coding for coding, _ in told)
        kept = [coding for coding in found if coding.rank is not None]
        if not kept:
            kept = list(found)[:1]
        elif not self._every:
            kept = [min(kept, key=_place)]
        others = tuple(coding.name for coding in found if coding not in kept)
        settled = self.displays.settled
        shown = tuple((c.name, said) for c, said in told if said and c.name not in settled)
        return tuple(coding.name for coding in kept), others, shown


def _place(coding: _Coding) -> int:
    return -1 if coding.rank is None else coding.rank
