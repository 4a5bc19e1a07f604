"""Units read by their parts: what converts into what, whatever was measured.

Symbols are those of UCUM (unitsofmeasure.org, case-sensitive), and what is written in their place
(``mcg``, ``K/uL``, ``lbs``). Of prefixes that a difference in case would turn into another one none
is guessed: ``MU`` may be a million units or a thousandth of one, so it is not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

Conversion = tuple[float, float]  # other = value * factor + offset
Dimension = tuple[tuple[str, int], ...]


class Reading(NamedTuple):
    """What a unit is of, and what it is in base units: base = value * factor + offset."""

    dimension: Dimension
    factor: float
    offset: float = 0.0


_Part = tuple[float, Mapping[str, int]]

_PREFIXES = {
    "": 1.0, "k": 1e3, "h": 1e2, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "mc": 1e-6, "n": 1e-9,
    "p": 1e-12, "f": 1e-15,
}  # fmt: skip
_VOLUME = {"m": 3}
_FOLDED: dict[str, _Part] = {  # read in any case: nobody writes a megagram or a petamole
    **{f"{p}g": (f, {"g": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}l": (f * 1e-3, _VOLUME) for p, f in _PREFIXES.items()},
    **{f"{p}m": (f, {"m": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}mol": (f, {"mol": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}eq": (f, {"eq": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}osm": (f, {"osm": 1}) for p, f in _PREFIXES.items()},
    **dict.fromkeys(("gm", "gram", "grams"), (1.0, {"g": 1})),
    **dict.fromkeys(("kgs", "kilogram", "kilograms"), (1e3, {"g": 1})),
    **dict.fromkeys(("[lb_av]", "[lb_us]", "lb", "lbs", "pound", "pounds"), (453.59237, {"g": 1})),
    **dict.fromkeys(("[oz_av]", "oz", "ounce", "ounces"), (28.349523125, {"g": 1})),
    **dict.fromkeys(("[stone_av]", "stone"), (6350.29318, {"g": 1})),
    **dict.fromkeys(("[in_i]", "[in_us]", "in", "inch", "inches"), (0.0254, {"m": 1})),
    **dict.fromkeys(("[ft_i]", "[ft_us]", "ft", "feet"), (0.3048, {"m": 1})),
    "cc": (1e-6, _VOLUME),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), (1.0, {"s": 1})),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), (60.0, {"s": 1})),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), (3600.0, {"s": 1})),
    **dict.fromkeys(("d", "day", "days"), (86_400.0, {"s": 1})),
    **dict.fromkeys(("wk", "week", "weeks"), (604_800.0, {"s": 1})),
    **dict.fromkeys(("mo", "month", "months"), (2_629_800.0, {"s": 1})),  # of the Julian year
    **dict.fromkeys(("a", "yr", "year", "years"), (31_557_600.0, {"s": 1})),
    **dict.fromkeys(("mm[hg]", "mmhg", "torr"), (133.322387415, {"Pa": 1})),
    **dict.fromkeys(("cm[h2o]", "cmh2o"), (98.0665, {"Pa": 1})),
    **dict.fromkeys(("beats", "breaths", "insp", "cells"), (1.0, {})),
    "bpm": (1 / 60, {"s": -1}),
    **dict.fromkeys(("%", "percent", "pct"), (1e-2, {})),
    "[ppth]": (1e-3, {}),
    "[ppm]": (1e-6, {}),
}  # fmt: skip
_EXACT: dict[str, _Part] = {
    **{f"{p}{u}": (f, {"U": 1})  # of one substance a unit is a unit, international or not
       for p, f in _PREFIXES.items() for u in ("U", "IU", "[IU]", "[iU]", "unit", "units")},
    **{f"{p}kat": (f * 6e7, {"U": 1}) for p, f in _PREFIXES.items()},  # 1 U = 1 umol/min
    **{f"{p}s": (f, {"s": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}Pa": (f, {"Pa": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}bar": (f * 1e5, {"Pa": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}Hz": (f, {"s": -1}) for p, f in _PREFIXES.items()},
    **{f"{p}V": (f, {"V": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}J": (f, {"J": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}cal": (f * 4.184, {"J": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}Bq": (f, {"Bq": 1}) for p, f in {**_PREFIXES, "M": 1e6, "G": 1e9}.items()},
    **{f"{p}Gy": (f, {"Gy": 1}) for p, f in _PREFIXES.items()},
    **{f"{p}Sv": (f, {"Sv": 1}) for p, f in _PREFIXES.items()},
}  # fmt: skip
_FRACTIONS = ("%", "percent", "pct", "[ppth]", "[ppm]")
_DEGREES = {  # zero is elsewhere, so that they stand alone
    **dict.fromkeys(("Cel", "degC", "C"), (1.0, 0.0)),
    **dict.fromkeys(("[degF]", "degF", "F"), (5 / 9, -160 / 9)),
    "K": (1.0, -273.15),
}
_CELLS = re.compile(r"(K|k|M)/(uL|ul|mcL|mm3|cumm)|(G|T)/L")  # as haematologists write
_MANY = {"K": 1e3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_AREA = re.compile(r"/\(?1[.]73.*$")  # of the body, to which a clearance is referred
_POWER_OF_TEN = re.compile(r"10(?:\*|[eE])([+-]?\d+)")
_TERM = re.compile(r"(\d+(?:\.\d+)?)?([^\d*+-][^*+-]*?)?(?:\*?([+-]?\d+))?")


def typed(unit: str) -> str:
    """A unit as a plain keyboard has it: µ is u, ° is deg, ^ is *, and 10*9 has no x before it."""
    text = unit.replace("µ", "u").replace("μ", "u").replace("°", "deg").replace("^", "*")
    return re.sub(r"^[x×](?=10)", "", text)


@lru_cache(maxsize=8192)
def reading(unit: str) -> Reading | None:
    """What a unit is, by its parts; None where it is not read.

    >>> reading("ng/mL").dimension == reading("mg/dL").dimension
    True
    >>> reading("mmol/L").dimension == reading("mg/dL").dimension
    False
    """
    text = _AREA.sub("", typed(re.sub(r"\{[^}]*\}|\s", "", unit)))
    if text in _DEGREES:
        return Reading((("Cel", 1),), *_DEGREES[text])
    if _CELLS.fullmatch(text):
        below = _product(f"/{text[2:]}")
        return below and below._replace(factor=below.factor * _MANY[text[0]])
    found = _product(text)
    if found is None or (not found.dimension and text not in _FRACTIONS and "/" not in text):
        return None  # a mere number: of what, nobody knows
    return found


def converted(unit: str, other: str) -> Conversion | None:
    """How a value in ``unit`` becomes one in ``other``; None where their parts do not tell it.

    >>> converted("ng/mL", "ng/L")
    (1000.0, 0.0)
    """
    one, two = reading(unit), reading(other)
    if one is None or two is None or one.dimension != two.dimension:
        return None
    factor, offset = one.factor / two.factor, (one.offset - two.offset) / two.factor
    return float(f"{factor:.14g}"), offset  # 1e-3 / 1e-6 is 1000, and not a little less


def _product(text: str) -> Reading | None:
    """A product of parts; after each ``/`` the next one is divided by."""
    factor, powers, sign, parts = 1.0, dict[str, int](), 1, 0
    for written in re.split(r"(/|(?<!\d)\.|\.(?!\d))", text):
        if written in ("/", "."):
            sign = -1 if written == "/" else 1
        elif written:
            part = _part(written)
            if part is None:
                return None
            parts += 1
            factor *= part[0] ** sign
            for base, power in part[1].items():
                powers[base] = powers.get(base, 0) + sign * power
    dimension = tuple(sorted((base, power) for base, power in powers.items() if power))
    return Reading(dimension, factor) if parts else None


def _part(written: str) -> _Part | None:
    found = _symbol(written)
    if found is not None:
        return found
    ten = _POWER_OF_TEN.fullmatch(written)
    if ten:
        return 10.0 ** int(ten[1]), {}
    term = _TERM.fullmatch(written)
    if term is None:
        return None
    number, symbol, power = float(term[1] or 1), term[2], int(term[3] or 1)
    if symbol is None:
        return (1.0, {}) if written == "1" else None  # /24.h divides by 24 alone: nobody means that
    found = _symbol(symbol)
    if found is None:
        return None
    factor, powers = found
    return number * factor**power, {base: n * power for base, n in powers.items()}


def _symbol(symbol: str) -> _Part | None:
    folded = symbol if len(symbol) == 1 and symbol not in "GL" else symbol.lower()
    return _EXACT.get(symbol) or _FOLDED.get(folded)
