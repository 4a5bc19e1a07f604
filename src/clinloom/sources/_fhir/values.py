"""What an Observation or its component says: value[x] as a number, a text and a unit."""

from __future__ import annotations

import math
import re
from typing import Any

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.names import Naming
from clinloom.sources._rows import cells

NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
COMPARED = re.compile(cells.COMPARED)
SIGNS = {"≤": "<=", "≥": ">="}
Value = tuple[float | None, str | None, str | None]
NONE: Value = (None, None, None)
MISSING: Value = (None, "", None)  # a value that was due
TRUE: Value = (1.0, "true", None)  # an answer, and a number for those who count
FALSE: Value = (0.0, "false", None)


def value(said: Any, names: Naming) -> Value:
    """Number, text and unit of an Observation's or component's value[x]."""
    if said.valueQuantity is not None:
        return quantity(said.valueQuantity)
    if said.valueCodeableConcept is not None:
        concept = said.valueCodeableConcept
        return None, names.answer(concept) or concept.text or "", None
    if said.valueString is not None:
        return parsed(said.valueString)
    if said.valueInteger is not None:
        return parsed(said.valueInteger)
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


def quantity(given: r4.Quantity) -> Value:
    """A Quantity; with a comparator, as in "<0.1", the text says so beside the number."""
    unit = given.code or given.unit or None
    if given.value is None:
        return None, "", unit
    if type(given.value) is float and not given.comparator:
        return given.value, None, unit
    number, text, _ = parsed(given.value)
    if given.comparator and number is not None:
        text = f"{given.comparator}{given.value}"
    return number, text, unit


def parsed(given: float | str) -> Value:
    """A number where the text is one, else the text."""
    if not isinstance(given, str):
        try:
            return float(given), None, None
        except OverflowError:  # a whole number beyond every float, as 1e400 is
            return (math.inf if given > 0 else -math.inf), None, None
    if NUMBER.fullmatch(given):
        return float(given), None, None
    found = COMPARED.match(given.strip())
    if found and NUMBER.fullmatch(found["rest"]):
        mark = SIGNS.get(found["mark"], found["mark"])
        return float(found["rest"]), f"{mark}{found['rest']}", None
    return None, given.strip(), None


def _between(one: r4.Quantity | None, mark: str, other: r4.Quantity | None) -> str:
    ends = [_written(one), _written(other)]
    return mark.join(ends) if any(ends) else ""


def _written(end: r4.Quantity | None) -> str:
    if end is None or end.value is None:
        return ""
    return end.value if isinstance(end.value, str) else f"{end.value:g}"
