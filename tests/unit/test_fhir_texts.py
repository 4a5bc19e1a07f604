"""Values that FHIR writes as texts are numbers by the rule of all sources, or are counted."""

from __future__ import annotations

import pyarrow as pa
import pytest
from tests.unit.test_fhir_plain import lines, same
from tests.unit.test_fhir_source import observation, read, resource, told

from clinloom.sources._fhir.values import parsed
from clinloom.sources._rows.cells import measured

TEXTS = [
    "1,75", "<0,01", "≥ 3", "1.75", "1.234,5", "1 234", " 12.5 ", "+3", "-.5", "1e3", "1e400",
    "NaN", "-nan", "inf", "", " ", "<", "<x", "12 tabs", "~5", "positive", "2024-03-05", "'5",
]  # fmt: skip


@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_what_it_is_in_a_tables_cell(text, decimal):
    number, said, _ = measured(pa.array([text]), decimal=decimal)
    assert parsed(text, decimal) == (number[0].as_py(), said[0].as_py(), None)


def written(**value):
    return observation(issued="2024-03-01T08:00:00Z", **value)


@pytest.mark.parametrize(
    ("value", "number", "text"),
    [
        ({"valueString": "1,75"}, 1.75, None),
        ({"valueString": "<0,01"}, 0.01, "<0,01"),
        ({"valueQuantity": {"value": "1,75", "code": "mg/dL"}}, 1.75, None),
        ({"valueQuantity": {"value": "0,01", "comparator": "<"}}, 0.01, "<0,01"),
        ({"component": [{"code": written()["code"], "valueString": ">9,5"}]}, 9.5, ">9,5"),
    ],
)
def test_a_study_says_that_numbers_have_a_decimal_comma(tmp_path, value, number, text):
    found = read(tmp_path, written(**value), decimal=",")
    assert [(e["numeric_value"], e["text_value"]) for e in found["events"]] == [(number, text)]
    assert not told(found)
    [plain] = read(tmp_path, written(**value))["events"]
    assert plain["numeric_value"] is None


def test_a_dose_has_the_decimal_comma_too(tmp_path):
    given = resource(
        "MedicationAdministration",
        status="completed",
        medicationCodeableConcept=observation()["code"],
        effectiveDateTime="2024-03-01T08:00:00Z",
        dosage={"dose": {"value": "2,5", "unit": "mg"}},
    )
    assert read(tmp_path, given, decimal=",")["events"][0]["numeric_value"] == 2.5


def test_texts_that_look_like_numbers_are_counted_however_they_are_read(monkeypatch):
    values = [{"valueString": "1,75"}, {"valueQuantity": {"value": "<0,01"}}]
    values += [{"valueString": said} for said in ("positive", "2024", "<0.01", "1:128")]
    values += [{"valueDateTime": "2024"}]
    given = [written(**value) | {"id": f"o{n}"} for value in values for n in range(70)]
    rows = [
        (row["code"], row["action"], row["count"])
        for row in same(lines(given), monkeypatch)["ledger"]
        if row["rule"] == "text_like_number"
    ]
    assert rows == [("LOINC//2160-0", "kept_as_text", 140)]


def test_a_number_with_a_comparator_is_no_text_that_looks_like_one(tmp_path):
    below = {"valueQuantity": {"value": 0.01, "comparator": "<"}}
    found = read(tmp_path, written(**below), decimal=",")
    assert [(e["numeric_value"], e["text_value"]) for e in found["events"]] == [(0.01, "<0.01")]
    assert not told(found)
