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
TABULATED = 1 << 22  # pairs of a quantity and a unit, up to which a table of all is made


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
    quantity = quantity_of[position]
    rows = np.flatnonzero((quantity >= 0) & (sheet.value == sheet.value))
    unit, units = sheet.unit
    width = len(units) + 1
    used, pair = _used(quantity[rows] * width + unit[rows] + 1, len(found) * width)
    action, factor, offset = np.zeros(len(used), np.int8), np.ones(len(used)), np.zeros(len(used))
    for number, (which, at) in enumerate(zip(*divmod(used, width), strict=True)):
        name = units[at - 1] if at else None
        action[number], factor[number], offset[number] = decision(found[which], name, options)
    if not action.any():
        return
    done = action[pair]
    converted = np.flatnonzero(done == CONVERTED)
    if len(converted):
        value = sheet.value[rows[converted]]
        by = pair[converted]
        sheet.set_value(rows[converted], _rounded(value * factor[by] + offset[by]))
    learned = np.array([isinstance(q, Learned) for q in found])[quantity[rows]]
    for what, reason in REFUSALS:
        sheet.reject(rows[(done == what) & ~learned], reason)
        sheet.reject_numbers(rows[(done == what) & learned], reason)
    renamed = np.flatnonzero((done > KEPT) & (done < UNKNOWN))
    if len(renamed):
        canonical = [q.unit for q in found]
        sheet.set_unit(rows[renamed], quantity[rows[renamed]], canonical)
    for what, rule, told in LEDGER:
        sheet.note(rows[done == what], rule=rule, action=told)


def _used(pair: Ints, size: int) -> tuple[Ints, Ints]:
    """The distinct numbers below ``size``, and each one's place among them."""
    if size > TABULATED:
        used, place = np.unique(pair, return_inverse=True)
        return used, place
    used = np.flatnonzero(np.bincount(pair, minlength=size))
    table = np.zeros(size, np.int64)
    table[used] = np.arange(len(used))
    return used, table[pair]


def _rounded(value: np.ndarray) -> np.ndarray:
    """To 12 digits, so that 5 mmol/L and 90.08 mg/dL of glucose are the same number."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = 11 - np.floor(np.log10(np.abs(value)))
        scale = 10.0**places
        rounded = np.round(value * scale) / scale
    return np.where((places >= 0) & (places <= 22), rounded, value)
