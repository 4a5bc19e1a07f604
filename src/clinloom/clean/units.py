"""One unit a code: values in other units are converted, values in unknown units refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_serializer

from clinloom import events
from clinloom.clean._sheet import Sheet
from clinloom.study import Model, RuleModel
from clinloom.vocabulary.quantities import BY_CODE, Quantity, plain

REQUIRES: str | None = None
ORDER = 30

RESPELLED, CONVERTED, ASSUMED, UNKNOWN = 1, 2, 3, 4
LEDGER = (
    (RESPELLED, "unit_spelling", "respelled"),
    (CONVERTED, "mixed_units", "converted"),
    (ASSUMED, "absent_unit", "assumed"),
)


class Convert(Model):
    """A conversion of the study's own: value in ``to`` = value in ``from`` * factor + offset."""

    model_config = ConfigDict(populate_by_name=True)

    code: str = Field(description="a code or a pattern with *")
    from_: str = Field(alias="from", description="the unit that the source writes")
    to: str = Field(description="the code's canonical unit (UCUM)")
    factor: float = Field(default=1.0, description="what a value is multiplied by")
    offset: float = Field(default=0.0, description="what is added then")

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        names = {"from_": "from"}
        return {names.get(n, n): getattr(self, n) for n in type(self).model_fields}


class Options(RuleModel):
    """How units are brought together."""

    convert: tuple[Convert, ...] = Field(
        default=(), description="conversions beside the built-in ones; they win over those"
    )
    absent: Literal["assumed", "rejected"] = Field(
        default="assumed", description="a number without a unit: assumed canonical, or refused"
    )


def apply(sheet: Sheet, options: Options) -> None:
    """Convert to the canonical unit of the code.

    Ledger: `mixed_units` converted, `unit_spelling` respelled, `absent_unit` assumed. Refused:
    `unknown_unit`. Only numbers of codes that have a canonical unit are looked at.
    """
    position, codes = sheet.code
    quantity_of, quantities = _quantities(codes, options.convert)
    if not quantities:
        return
    quantity = quantity_of[position]
    rows = np.flatnonzero((quantity >= 0) & (sheet.value == sheet.value))
    unit, units = sheet.unit
    pair = quantity[rows] * (len(units) + 1) + unit[rows] + 1
    size = len(quantities) * (len(units) + 1)
    action, factor, offset = np.zeros(size, np.int8), np.ones(size), np.zeros(size)
    for number in np.flatnonzero(np.bincount(pair, minlength=size)).tolist():
        which, at = divmod(number, len(units) + 1)
        name = units[at - 1] if at else None
        action[number], factor[number], offset[number] = _decision(quantities[which], name, options)
    if not action.any():
        return
    done = action[pair]
    converted = np.flatnonzero(done == CONVERTED)
    if len(converted):
        value = sheet.value[rows[converted]]
        by = pair[converted]
        sheet.set_value(rows[converted], _rounded(value * factor[by] + offset[by]))
    sheet.reject(rows[done == UNKNOWN], "unknown_unit")
    renamed = np.flatnonzero((done > 0) & (done < UNKNOWN))
    if len(renamed):
        canonical = [q.unit for q in quantities]
        sheet.set_unit(rows[renamed], quantity[rows[renamed]], canonical)
    ledger = (
        ("unit_spelling", "respelled"),
        ("mixed_units", "converted"),
        ("absent_unit", "assumed"),
    )
    for number, (rule, what) in enumerate(ledger, start=1):
        sheet.note(rows[done == number], rule=rule, action=what)


def _rounded(value: np.ndarray) -> np.ndarray:
    """To 12 digits, so that 5 mmol/L and 90.08 mg/dL of glucose are the same number."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = 11 - np.floor(np.log10(np.abs(value)))
        scale = 10.0**places
        rounded = np.round(value * scale) / scale
    return np.where((places >= 0) & (places <= 22), rounded, value)


def _decision(quantity: Quantity, unit: str | None, options: Options) -> tuple[int, float, float]:
    """What happens to values of ``quantity`` in ``unit``: action, factor, offset."""
    if unit is None or not unit.strip():
        return (ASSUMED if options.absent == "assumed" else UNKNOWN), 1.0, 0.0
    found = quantity.conversion(unit)
    if found is None:
        return UNKNOWN, 1.0, 0.0
    if unit == quantity.unit:
        return 0, 1.0, 0.0
    return (RESPELLED if found == (1.0, 0.0) else CONVERTED), *found


def _quantities(
    codes: Sequence[str], convert: tuple[Convert, ...]
) -> tuple[np.ndarray, list[Quantity]]:
    """For each code the position of its quantity (-1: none) in the list of quantities."""
    found: list[Quantity | None] = [BY_CODE.get(code) for code in codes]
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


def _extended(quantity: Quantity | None, own: Convert) -> Quantity:
    """The quantity with the study's conversion; another canonical unit starts afresh."""
    kept = quantity.conversions if quantity and plain(quantity.unit) == plain(own.to) else {}
    conversions = {**kept, plain(own.from_): (own.factor, own.offset), plain(own.to): (1.0, 0.0)}
    return Quantity(own.to, conversions)
