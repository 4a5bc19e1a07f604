"""Values that no living patient can have: wrong entries, wrong units, artefacts.

Bounds are wide: they refuse what is impossible, not what is abnormal. They hold in the canonical
unit of the code (see the rule `units`, which runs first).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from clinloom import events
from clinloom.clean._sheet import Sheet
from clinloom.study import RuleModel
from clinloom.vocabulary.bounds import BY_CODE, Bounds

REQUIRES: str | None = None
ORDER = 40


class Options(RuleModel):
    """Which values are impossible."""

    bounds: dict[str, Bounds] = Field(
        default={},
        description="[low, high] by code or pattern, both allowed; they win over the built-in ones",
    )

    @field_validator("bounds")
    @classmethod
    def _ascending(cls, bounds: dict[str, Bounds]) -> dict[str, Bounds]:
        for code, (low, high) in bounds.items():
            if not low <= high:
                raise ValueError(f"bounds of '{code}': the low one comes first")
        return bounds


def apply(sheet: Sheet, options: Options) -> None:
    """Refuse as `impossible_value` what lies outside its code's bounds, and infinities."""
    position, codes = sheet.code
    low, high = limits(codes, options)
    value = sheet.value
    outside = np.isinf(value)
    if np.isfinite(low).any() or np.isfinite(high).any():
        outside |= (value < low[position]) | (value > high[position])
    if outside.any():
        sheet.reject(np.flatnonzero(outside), "impossible_value", "numeric_value")


def limits(codes: list[str], options: Options) -> tuple[np.ndarray, np.ndarray]:
    """The low and the high bound of each code; infinite where it has none."""
    pairs = [BY_CODE.get(code, (-np.inf, np.inf)) for code in codes]
    bounds = np.array(pairs, np.float64).reshape(len(codes), 2)
    patterns = sorted(options.bounds, key=lambda p: "*" not in p)  # an exact code wins
    for pattern in patterns:
        bounds[events.matching(codes, (pattern,))] = options.bounds[pattern]
    return bounds[:, 0], bounds[:, 1]
