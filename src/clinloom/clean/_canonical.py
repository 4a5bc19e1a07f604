"""The unit that a code's numbers come to: a known one, the study's, or the commonest of the data.

What the data tell is learned from all of them at once (how many numbers of each code came in each
unit) and holds from then on, for one patient as for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from clinloom import events
from clinloom.tables import UNITS
from clinloom.vocabulary.quantities import BY_CODE, Quantity, plain
from clinloom.vocabulary.ucum import Conversion, reading

if TYPE_CHECKING:
    from clinloom.clean.units import Convert, Options

KEPT, RESPELLED, CONVERTED, ASSUMED, UNKNOWN, SEVERAL = range(6)
ACTIONS = ("kept", "respelled", "converted", "assumed", "unknown_unit", "several_units")
UNCHANGED: Conversion = (1.0, 0.0)
Canonical = Mapping[str, str | None]  # by code; None: of several units none is trusted
Told = dict[str, Counter[str | None]]


class Learned(Quantity):
    """A quantity of which nothing is known but the unit in which most of the data tell it."""


def quantities(
    codes: Sequence[str], convert: Sequence[Convert], learned: Canonical
) -> tuple[np.ndarray, list[Quantity]]:
    """For each code the position of its quantity (-1: none) in the list of quantities.

    A known code's is the vocabulary's, any other's is ``learned``; the study's ``convert`` wins.
    """
    units = {unit: _learned(unit) for unit in {learned[c] for c in codes if c in learned}}
    found = [BY_CODE.get(c, units[learned[c]] if c in learned else None) for c in codes]
    for own in convert:
        fits = events.matching(codes, (own.code,))
        made: dict[int, Quantity] = {}
        for at in np.flatnonzero(fits).tolist():
            before = found[at]
            if id(before) not in made:
                made[id(before)] = _extended(before, own)
            found[at] = made[id(before)]
    distinct = list({id(q): q for q in found if q is not None}.values())
    place = {id(q): number for number, q in enumerate(distinct)}
    return np.array([place.get(id(q), -1) for q in found], np.int64), distinct


def _learned(unit: str | None) -> Learned:
    return Learned(unit, {plain(unit): UNCHANGED}) if unit else Learned("", {})


def _extended(quantity: Quantity | None, own: Convert) -> Quantity:
    """The quantity with the study's conversion; another canonical unit starts afresh."""
    kept = quantity.conversions if quantity and plain(quantity.unit) == plain(own.to) else {}
    conversions = {**kept, plain(own.from_): (own.factor, own.offset), plain(own.to): UNCHANGED}
    return Quantity(own.to, conversions)


def decision(quantity: Quantity, unit: str | None, options: Options) -> tuple[int, float, float]:
    """What happens to values of ``quantity`` in ``unit``: action, factor, offset."""
    if not quantity.unit:
        return SEVERAL, *UNCHANGED
    if unit is None or not unit.strip():
        return (ASSUMED if options.absent == "assumed" else UNKNOWN), *UNCHANGED
    found = quantity.conversion(unit)
    if found is None:
        return (SEVERAL if isinstance(quantity, Learned) else UNKNOWN), *UNCHANGED
    if unit == quantity.unit:
        return KEPT, *UNCHANGED
    return (RESPELLED if found == UNCHANGED else CONVERTED), *found


def settled(counts: pa.Table, options: Options, learned: Canonical | None = None) -> pa.Table:
    """UNITS: what becomes of every unit of every code of which some number has one.

    ``counts``: code, unit (empty: none was told), events; ``learned``: what other data told.
    """
    told: Told = {}
    for row in counts.to_pylist():
        unit = row["unit"] if row["unit"].strip() else None
        told.setdefault(row["code"], Counter())[unit] += row["events"]
    known = learned or {}
    told = {c: units for c, units in sorted(told.items()) if set(units) - {None} or c in known}
    if learned is None:
        learned = {code: _commonest(units, options) for code, units in told.items()}
    place, found = quantities(list(told), options.convert, learned)
    rows = []
    for at, (code, units) in zip(place.tolist(), told.items(), strict=True):
        if at < 0:  # of a code that nothing was learned of, no feature knows
            continue
        for unit, count in sorted(units.items(), key=_rank):
            action = ACTIONS[decision(found[at], unit, options)[0]]
            row = {"code": code, "unit": unit, "events": count, "action": action}
            rows.append({**row, "canonical": found[at].unit or None})
    return UNITS.rows(rows)


def _rank(item: tuple[str | None, int]) -> tuple[int, str]:
    return -item[1], item[0] or ""


def _commonest(units: Counter[str | None], options: Options) -> str | None:
    """The commonest unit of the commonest quantity; None where there are several and the study
    wants none of them."""
    kinds: dict[object, dict[str, Counter[str | None]]] = {}
    read = {plain(unit): found.dimension for unit in units if unit and (found := reading(unit))}
    for unit, count in units.items():
        if unit is not None:
            spelled = plain(unit)
            alike = kinds.setdefault(read.get(spelled, spelled), {})
            alike.setdefault(spelled, Counter())[unit] += count
    if len(kinds) > 1 and options.several == "rejected":
        return None
    kind = min(kinds.values(), key=lambda alike: _first(sum(alike.values(), Counter[str | None]())))
    most = min(kind.values(), key=_first)
    return min(most.items(), key=_rank)[0]


def _first(units: Counter[str | None]) -> tuple[int, str]:
    """In which order counts come: the most events, then the first by name."""
    return -units.total(), min(unit or "" for unit in units)


def canonical(units: pa.Table) -> dict[str, str | None]:
    """What later cleaning is told of UNITS: the unit of each code that no vocabulary knows."""
    listed = zip(*(units.column(n).to_pylist() for n in ("code", "canonical")), strict=True)
    return {code: unit for code, unit in listed if code not in BY_CODE}


def unconverted(units: pa.Table, most: int = 5) -> Iterator[str]:
    """A line for each code that came in several units of which nothing tells how they convert.

    At most ``most`` lines, those with the most numbers refused first, and one for the others.
    """
    told: dict[str, list[dict[str, Any]]] = {}
    for row in units.to_pylist():
        told.setdefault(row["code"], []).append(row)
    refused = {
        code: sum(r["events"] for r in rows if r["action"] == "several_units")
        for code, rows in told.items()
    }
    codes = sorted((c for c, n in refused.items() if n), key=lambda c: (-refused[c], c))
    for code in codes[:most]:
        rows = told[code]
        came = ", ".join(f"{r['unit'] or 'none'} ({r['events']:,})" for r in rows[:5])
        rest = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
        unit = rows[0]["canonical"]
        kept = f"only numbers that become {unit} are kept" if unit else "no number is kept"
        yield (
            f"{code} came in the units {came}{rest}, of which not all convert: {kept},"
            f" {refused[code]:,} refused; say under clean.units.convert how they do"
        )
    if len(codes) > most:
        yield f"{len(codes) - most} more codes came in several units: see tables/units"
