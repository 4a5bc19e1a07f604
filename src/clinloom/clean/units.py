"""One unit a code: values in other units are converted; those that nothing converts are refused.

A code that the vocabulary knows has its unit there. Any other has the one in which most of its
numbers came, in all of the data that were learned from; a patient who is scored alone years later
is read by the same.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_serializer

from clinloom.clean._canonical import (
    ASSUMED,
    CONVERTED,
    KEPT,
    RESPELLED,
    SEVERAL,
    UNKNOWN,
    Learned,
    decision,
    quantities,
)
from clinloom.clean._sheet import Sheet
from clinloom.events import Ints
from clinloom.study import Model, RuleModel

REQUIRES: str | None = None
ORDER = 30

LEDGER = (
    (RESPELLED, "unit_spelling", "respelled"),
    (CONVERTED, "mixed_units", "converted"),
    (ASSUMED, "absent_unit", "assumed"),
)
REFUSALS = ((UNKNOWN, "unknown_unit"), (SEVERAL, "several_units"))
TABULATED = 1 << 22  # pairs of a code and a unit, up to which a table of all is made
NONE = np.zeros(0, np.int64)
POWERS = np.array([10.0**n for n in range(23)])  # those that are exact


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
    several: Literal["commonest", "rejected"] = Field(
        default="commonest",
        description="a code that came in units of which nothing tells how they convert: numbers in"
        " the commonest and what converts to it are kept and the others refused, or all of them"
        " are; the facts stay, and the report and the command line say which",
    )


def apply(sheet: Sheet, options: Options) -> None:
    """Convert to the canonical unit of the code.

    Ledger: `mixed_units` converted, `unit_spelling` respelled, `absent_unit` assumed. Refused:
    `unknown_unit`. Where it was the data that told the code's unit, `several_units`; then only the
    number is refused, and the fact stays: that a drug was given is true in any unit. Only numbers
    of codes that have a canonical unit are looked at.
    """
    position, codes = sheet.code
    quantity_of, found = quantities(codes, options.convert, sheet.units)
    if not found:
        return
    unit, units = sheet.unit
    width = len(units) + 1
    wide = np.int64 if len(codes) * width > TABULATED else np.int32
    pair = position * wide(width) + (unit + wide(1))
    used, slots, pair = _used(pair, len(codes) * width)
    size = int(slots.max(initial=-1)) + 1
    action, factor, offset = np.zeros(size, np.int8), np.ones(size), np.zeros(size)
    which = np.zeros(size, np.int64)
    for slot, number in zip(slots.tolist(), used.tolist(), strict=True):
        code, at = divmod(number, width)
        which[slot], name = quantity_of[code], units[at - 1] if at else None
        if which[slot] >= 0:
            action[slot], factor[slot], offset[slot] = decision(found[which[slot]], name, options)
    if not action.any():
        return
    rows = np.flatnonzero((action != KEPT)[pair] & (sheet.value == sheet.value))
    pair = pair[rows]
    kinds = np.unique(action[action != KEPT]).tolist()
    parts = {what: (rows, pair) for what in kinds}
    if len(kinds) > 1:
        done = action[pair]
        parts = {what: (rows[done == what], pair[done == what]) for what in kinds}
    if CONVERTED in parts:
        converted, by = parts[CONVERTED]
        sheet.set_value(converted, _rounded(sheet.value[converted] * factor[by] + offset[by]))
    learned = np.array([isinstance(q, Learned) for q in found])
    for what, reason in REFUSALS:
        if what in parts:
            refused, by = parts[what]
            number_alone = learned[which[by]]
            sheet.reject(refused[~number_alone], reason, "unit")
            sheet.reject_numbers(refused[number_alone], reason, "unit")
    renamed = slice(None) if kinds[-1] < UNKNOWN else action[pair] < UNKNOWN
    if len(rows[renamed]):
        sheet.set_unit(rows[renamed], which[pair[renamed]], [q.unit for q in found])
    for what, rule, told in LEDGER:
        sheet.note(parts.get(what, (NONE, NONE))[0], rule=rule, action=told)


def _used(pair: np.ndarray, size: int) -> tuple[Ints, Ints, np.ndarray]:
    """The distinct numbers below ``size``; where each stands in a table; and of each row where."""
    if size > TABULATED:
        used, place = np.unique(pair, return_inverse=True)
        return used, np.arange(len(used)), place
    used = np.flatnonzero(np.bincount(pair, minlength=size))
    return used, used, pair


def _rounded(value: np.ndarray) -> np.ndarray:
    """To 12 digits, so that 5 mmol/L and 90.08 mg/dL of glucose are the same number."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = 11 - np.floor(np.log10(np.abs(value)))
        sound = (places >= 0) & (places < len(POWERS))
        if sound.all():
            scale = POWERS[places.astype(np.int64)]
            found: np.ndarray = np.round(value * scale) / scale
            return found
        scale = POWERS[np.where(sound, places, 0).astype(np.int64)]
        return np.where(sound, np.round(value * scale) / scale, value)
