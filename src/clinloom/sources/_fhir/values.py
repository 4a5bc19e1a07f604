"""What an Observation or its component says: value[x] as a number, a text and a unit."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import pyarrow as pa

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.names import Naming
from clinloom.sources._rows.cells import measured

BEGIN = re.compile(r"\s*(?:[<>≤≥+.,\d-]|nan|$)", re.IGNORECASE)  # of all texts that are no words
Value = tuple[float | None, str | None, str | None]
NONE: Value = (None, None, None)
MISSING: Value = (None, "", None)  # a value that was due
TRUE: Value = (1.0, "true", None)  # an answer, and a number for those who count
FALSE: Value = (0.0, "false", None)


def value(said: Any, names: Naming) -> Value:
    """Number, text and unit of an Observation's or component's value[x]."""
    if said.valueQuantity is not None:
        return quantity(said.valueQuantity, names.decimal)
    if said.valueCodeableConcept is not None:
        concept = said.valueCodeableConcept
        return None, names.answer(concept) or concept.text or "", None
    if said.valueString is not None:
        return parsed(said.valueString, names.decimal)
    if said.valueInteger is not None:
        return parsed(said.valueInteger, names.decimal)
    if said.valueBoolean is not None:
        return TRUE if said.valueBoolean else FALSE
    if said.valueRatio is not None:
        ratio = said.valueRatio
        return None, _between(ratio.numerator, ":", ratio.denominator), None
    if said.valueRange is not None:
        low, high = said.valueRange.low, said.valueRange.high
        return None, _between(low, "-", high), (low or high or r4.Quantity()).unit
    if said.valuePeriod is not None:
        return None, f"{said.valuePeriod.start or ''}/{said.valuePeriod.end or ''}", None
    if said.valueSampledData is not None:
        return NONE  # a curve: that it was recorded is the event
    return None, said.valueDateTime or said.valueTime or "", None


def quantity(given: r4.Quantity, decimal: str = ".") -> Value:
    """A Quantity; with a comparator, as in "<0.1", the text says so beside the number.

    ``decimal``: the decimal mark of numbers that are written as texts.
    """
    unit = given.code or given.unit or None
    if given.value is None:
        return None, "", unit
    if type(given.value) is float and not given.comparator:
        return given.value, None, unit
    number, text, _ = parsed(given.value, decimal)
    if given.comparator and number is not None:
        text = f"{given.comparator}{given.value}"
    return number, text, unit


def parsed(given: float | str, decimal: str = ".") -> Value:
    """A number where the text is one, as in a cell of a table, else the text."""
    if isinstance(given, str):
        return _read(given, decimal) if BEGIN.match(given) else (None, given.strip(), None)
    try:
        return float(given), None, None
    except OverflowError:  # a whole number beyond every float, as 1e400 is
        return (math.inf if given > 0 else -math.inf), None, None


@lru_cache(maxsize=1 << 12)
def _read(given: str, decimal: str) -> Value:
    """What a text says that may be a number, by the one rule of all sources."""
    number, text, _ = measured(pa.array([given], pa.string()), decimal=decimal)
    return number[0].as_py(), text[0].as_py(), None


def _between(one: r4.Quantity | None, mark: str, other: r4.Quantity | None) -> str:
    ends = [_written(one), _written(other)]
    return mark.join(ends) if any(ends) else ""


def _written(end: r4.Quantity | None) -> str:
    if end is None or end.value is None:
        return ""
    return end.value if isinstance(end.value, str) else f"{end.value:g}"
