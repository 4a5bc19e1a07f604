"""NaN is never a number: beside a text it is none, whatever else a chunk holds."""

from __future__ import annotations

import math

import pytest
from tests.unit.test_clean import cleaned, event, reasons

from clinloom.clean import missing

NAN = event("A", math.nan, text_value="hemolysed")
OTHERS = {
    "alone": [],
    "beside a null": [event("B", None, text_value="x")],
    "beside what is converted": [event("LOINC//2345-7", 5.0, "mmol/L")],
    "beside what is refused": [event("LOINC//2345-7", 5.0, "parsec")],
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_a_nan_beside_a_text_is_no_number_in_any_company(others):
    made = cleaned(NAN, *others)["events"].to_pylist()
    (found,) = [row for row in made if row["code"] == "A"]
    assert found["numeric_value"] is None and found["text_value"] == "hemolysed"


def test_a_nan_alone_is_none_though_nobody_looks_for_what_is_missing():
    made = cleaned(event("A", math.nan), missing=missing.Options(enabled=False))
    assert made["events"].column("numeric_value").null_count == 1 and not reasons(made)


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_what_has_no_number_stands_by_its_text_whether_null_or_nan(others):
    rows = [event("A", value, text_value=text) for value, text in ((None, "b"), (math.nan, "a"))]
    rows.append(event("A", None, text_value="c"))
    made = cleaned(*rows[::2], rows[1], *others)["events"].to_pylist()
    assert [row["text_value"] for row in made if row["code"] == "A"] == ["a", "b", "c"]
