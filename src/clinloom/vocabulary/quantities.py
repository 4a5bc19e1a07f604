"""Canonical units by LOINC code, and how other units convert to them.

Factors follow from molar masses and the definitions in UCUM (unitsofmeasure.org); those that a
laboratory convention fixes are the AMA Manual of Style's SI conversion factors. LOINC codes are
those whose property names the same quantity (Mass/volume, Moles/volume …).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from clinloom.vocabulary.ucum import Conversion, converted, typed


@dataclass(frozen=True, eq=False)
class Quantity:
    """A kind of quantity: its canonical UCUM unit, and how others convert: canonical = value *
    factor + offset. Units whose parts tell it need no entry."""

    unit: str
    conversions: Mapping[str, Conversion]

    def conversion(self, unit: str) -> Conversion | None:
        """How a value in ``unit`` becomes canonical; None where the unit is unknown."""
        return self.conversions.get(plain(unit)) or converted(unit, self.unit)


@lru_cache(maxsize=4096)
def plain(unit: str) -> str:
    """A unit without the differences in spelling: case, brackets, annotations, signs, blanks.

    One that is nothing but an annotation keeps it: {tablet} is not {puff}.

    >>> plain("mm[Hg]"), plain("µmol/L"), plain("x10^9/L"), plain("{beats}/min")
    ('mmhg', 'umol/l', '10*9/l', '/min')
    """
    text = re.sub(r"\{[^}]*\}|[\[\]\s.]", "", unit.casefold())
    return typed(text) or unit.casefold()


def _quantity(unit: str, conversions: Mapping[str, float | Conversion]) -> Quantity:
    pairs = {plain(u): f if isinstance(f, tuple) else (f, 0.0) for u, f in conversions.items()}
    return Quantity(unit, {**pairs, plain(unit): (1.0, 0.0)})


_MASS = {  # in mg/dL
    "mg/dL": 1.0, "mg%": 1.0, "mg/100mL": 1.0, "g/L": 100.0, "g/dL": 1000.0, "mg/L": 0.1,
    "mg/mL": 100.0, "ug/mL": 0.1, "mcg/mL": 0.1, "ug/dL": 1e-3, "mcg/dL": 1e-3, "ug/L": 1e-4,
}  # fmt: skip
_MOLES = {"mmol/L": 1.0, "umol/L": 1e-3, "mcmol/L": 1e-3, "nmol/L": 1e-6, "mol/L": 1e3}


def _mass(per_mmol: float | None = None, *, unit: str = "mg/dL") -> Quantity:
    """A mass concentration; ``per_mmol``: mg/dL of 1 mmol/L."""
    scale = 1 / _MASS[unit]
    moles = {u: f * per_mmol for u, f in _MOLES.items()} if per_mmol else {}
    return _quantity(unit, {u: f * scale for u, f in {**_MASS, **moles}.items()})


def _molar(per_mmol: float | None = None, *, unit: str = "mmol/L") -> Quantity:
    """A molar concentration; ``per_mmol``: mg/dL of 1 mmol/L."""
    scale = 1 / _MOLES[unit]
    mass = {u: f / per_mmol for u, f in _MASS.items()} if per_mmol else {}
    return _quantity(unit, {u: f * scale for u, f in {**_MOLES, **mass}.items()})


_PER_MINUTE = ("/min", "1/min", "bpm", "beats/min", "beats/minute", "breaths/min", "insp/min",
               "breaths/minute", "per minute", "/minute", "min-1")  # fmt: skip
_THOUSANDS = {  # in 10*3/uL
    **dict.fromkeys(
        ("10*3/uL", "10*9/L", "K/uL", "10*3/mm3", "K/mm3", "k/cumm", "10*3/mcL", "K/mcL", "10e3/uL",
         "10e9/L", "G/L", "thou/uL", "thousand/uL", "10*3.uL-1"), 1.0),
    **dict.fromkeys(("/uL", "/mm3", "cells/uL", "/mcL", "cells/mm3", "cells/mcL"), 1e-3),
}  # fmt: skip
_MILLIONS = dict.fromkeys(
    ("10*6/uL", "10*12/L", "M/uL", "10*6/mm3", "M/mm3", "10*6/mcL", "10e6/uL", "10e12/L", "T/L",
     "mil/uL", "million/uL"), 1.0)  # fmt: skip
_ENZYME = {  # 1 U = 1 umol/min, so 1 ukat = 60 U
    **dict.fromkeys(("U/L", "IU/L", "units/L", "[IU]/L", "mU/mL", "mIU/mL", "unit/L"), 1.0),
    "ukat/L": 60.0, "mckat/L": 60.0, "nkat/L": 0.06,
}  # fmt: skip
_TRACE = {  # in ng/mL
    "ng/mL": 1.0, "ug/L": 1.0, "mcg/L": 1.0, "ng/L": 1e-3, "pg/mL": 1e-3, "ng/dL": 0.01,
    "ug/mL": 1e3,
}  # fmt: skip
_HEMOGLOBIN = {**{u: f / 1000 for u, f in _MASS.items()}, "mmol/L": 1.6114}  # the Fe monomer
_PRESSURE = {"mm[Hg]": 1.0, "mmHg": 1.0, "torr": 1.0, "kPa": 7.50062, "cm[H2O]": 0.735559}
_PERCENT = {"%": 1.0, "percent": 1.0, "pct": 1.0}

temperature = _quantity(
    "Cel",
    {
        **dict.fromkeys(("Cel", "C", "degC", "deg C", "celsius", "degrees C"), 1.0),
        **dict.fromkeys(("[degF]", "F", "deg F", "fahrenheit", "degrees F"), (5 / 9, -160 / 9)),
        "K": (1.0, -273.15),
    },
)
weight = _quantity(
    "kg",
    {"kgs": 1.0, "kilogram": 1.0, "kilograms": 1.0, "g": 1e-3, "gram": 1e-3, "grams": 1e-3,
     **dict.fromkeys(("[lb_av]", "lb", "lbs", "pound", "pounds", "[lb_us]"), 0.45359237),
     **dict.fromkeys(("[oz_av]", "oz", "ounces"), 0.028349523125)},
)  # fmt: skip
length = _quantity(
    "cm",
    {"m": 100.0, "mm": 0.1, "meter": 100.0, "cms": 1.0, "centimeter": 1.0,
     **dict.fromkeys(("[in_i]", "[in_us]", "in", "inch", "inches", '"'), 2.54),
     **dict.fromkeys(("[ft_i]", "[ft_us]", "ft", "feet"), 30.48)},
)  # fmt: skip
rate = _quantity("/min", dict.fromkeys(_PER_MINUTE, 1.0))
pressure = _quantity("mm[Hg]", _PRESSURE)
percent = _quantity("%", _PERCENT)
body_mass_index = _quantity("kg/m2", {"kg/m*2": 1.0, "kg/sqm": 1.0, "kg/m²": 1.0})
# LOINC names mmol/L codes for salts of one charge: 1 meq = 1 mmol.
monovalent = _quantity("mmol/L", {**_MOLES, "meq/L": 1.0})
calcium = _quantity("mg/dL", {**_mass(4.008).conversions, "meq/L": 2.004})
magnesium = _quantity("mg/dL", {**_mass(2.4305).conversions, "meq/L": 1.21525})
hematocrit = _quantity("%", {**_PERCENT, "L/L": 100.0, "vol%": 1.0})
# IFCC to NGSP master equation: NGSP = 0.09148 IFCC + 2.152 (Hoelzel, Clin Chem 2004;50:166).
glycated = _quantity("%", {**_PERCENT, "mmol/mol": (0.09148, 2.152)})
enzyme = _quantity("U/L", _ENZYME)
trace = _quantity("ng/mL", _TRACE)
natriuretic = _quantity("pg/mL", {u: f * 1e3 for u, f in _TRACE.items()})

_BY_LOINC: tuple[tuple[Quantity, str], ...] = (
    (temperature, "8310-5 8331-1 8328-7 8329-5 8332-9 8333-7"),
    (weight, "29463-7 3141-9 3142-7 8335-2"),
    (length, "8302-2 8301-4 3137-7 8306-3 9843-4 8287-5"),
    (body_mass_index, "39156-5"),
    (rate, "8867-4 8893-0 9279-1"),
    (pressure, "8480-6 8462-4 8478-0 2703-7 2019-8 11556-8 11557-6"),
    (percent, "2708-6 59408-5 20564-1 3150-6 10230-1"),
    (_mass(1000 / 88.4), "2160-0 38483-4"),  # creatinine
    (_molar(1000 / 88.4, unit="umol/L"), "14682-9"),
    (_mass(18.016), "2345-7 2339-0 41653-7 1558-6"),  # glucose
    (_molar(18.016), "14749-6 15074-8"),
    (_mass(2.8014), "3094-0 6299-2"),  # urea nitrogen: 2 N a molecule of urea
    (_mass(58.466), "1975-2 1968-7"),  # bilirubin
    (_mass(38.67), "2093-3 2085-9 18262-6 13457-7 2089-1"),  # cholesterol
    (_mass(88.57), "2571-8"),  # triglycerides
    (_mass(16.811), "3084-1"),  # urate
    (_mass(3.0974), "2777-1"),  # phosphate, as phosphorus
    (calcium, "17861-6 49765-1"),
    (magnesium, "19123-9"),
    (_molar(4.008), "1995-0 1994-3"),  # ionised calcium
    (_molar(9.008), "2524-7 32693-4 2518-9"),  # lactate
    (monovalent, "2951-2 2947-0 2823-3 6298-4 2075-0 2069-3 1963-8 2028-9 20565-8 1959-6 1960-4"),
    (monovalent, "33037-3 1863-0"),  # anion gap
    (_mass(unit="g/dL"), "1751-7 2885-2 786-4"),  # albumin, protein, MCHC
    (_quantity("g/dL", _HEMOGLOBIN), "718-7 20509-6 30313-1"),
    (hematocrit, "4544-3 20570-8"),
    (glycated, "4548-4"),
    (_quantity("10*3/uL", _THOUSANDS), "6690-2 26464-8 777-3 26515-7 751-8 731-0"),
    (_quantity("10*6/uL", _MILLIONS), "789-8 26453-1"),
    (enzyme, "1742-6 1920-8 6768-6 2532-0 2324-2 2157-6 3040-3"),
    (_mass(unit="mg/L"), "1988-5 30522-7"),  # C-reactive protein
    (trace, "6598-7 10839-9 2276-4 2857-1 33959-8"),  # troponins, ferritin, PSA, procalcitonin
    (natriuretic, "30934-4 33762-6"),
)
BY_CODE: Mapping[str, Quantity] = {
    f"LOINC//{code}": quantity for quantity, codes in _BY_LOINC for code in codes.split()
}
