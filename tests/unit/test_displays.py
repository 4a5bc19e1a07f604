"""What sources call their codes reaches the report, and what names a person does not."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pydantic import ValidationError

from clinloom import files
from clinloom.report import names, page
from clinloom.sources import displays, fhir, table
from clinloom.sources._displays import LONGEST, WITNESSES, Displays, cut
from clinloom.tables import CALLED, LEDGER

SCREEN = "428191000124101"


def told(kind, options) -> dict[str, str]:
    """The displays of a folder, each file read by a worker of its own."""
    rows = []
    for piece in files.listing(options.path):
        for parcel in kind.read([piece], options, "ehr"):
            rows += parcel.get("ledger", LEDGER.empty).to_pylist()
    found = displays(row for row in rows if row["rule"] == CALLED)
    return {row["code"]: row["display"] for row in found.to_pylist()}


def procedure(patient: int, *called: str, code: str = SCREEN) -> bytes:
    codings = [{"system": "http://snomed.info/sct", "code": code, "display": d} for d in called]
    made = {"resourceType": "Procedure", "id": f"p{patient}", "status": "completed"}
    made["subject"] = {"reference": f"Patient/{patient}"}
    made["code"] = {"coding": codings, "text": f"for patient {patient}"}
    return json.dumps({**made, "performedDateTime": "2024-01-02T03:04:05Z"}).encode()


def test_a_coding_is_called_what_enough_patients_have_it_called(tmp_path):
    for file in range(3):  # of three workers, none of which sees enough
        lines = [procedure(4 * file + n, "Medication  reconciliation") for n in range(4)]
        lines += [procedure(4 * file + n, f"X-ray of J. Doe {n}", code="1") for n in range(4)]
        lines += [procedure(0, "Check of J. Doe", code="2") for _ in range(30)]
        (tmp_path / f"{file}.ndjson").write_bytes(b"\n".join(lines))
    assert told(fhir, fhir.Options(path=str(tmp_path))) == {
        f"SNOMED//{SCREEN}": "Medication reconciliation"
    }


def test_each_of_several_codings_is_asked(tmp_path):
    lines = [procedure(n, "One", "One") for n in range(WITNESSES)]
    (tmp_path / "all.ndjson").write_bytes(b"\n".join(lines))
    assert told(fhir, fhir.Options(path=str(tmp_path))) == {f"SNOMED//{SCREEN}": "One"}


def test_a_long_table_names_its_codes_in_a_column_and_a_wide_one_in_the_study(tmp_path):
    rows = [f"{n},50912,Creatinine,1" for n in range(12)] + ["1,7,Doe,2"] * 20 + ["2,8,,3"]
    (tmp_path / "labs.csv").write_text("\n".join(["pid,item,label,value", *rows]))
    given = {"path": str(tmp_path), "patient": "pid", "time": {"static": True}}
    code = {"column": "item", "prefix": "MIMIC//", "display": "label"}
    assert told(table, table.Options(**given, code=code, value="value")) == {
        "MIMIC//50912": "Creatinine"
    }
    wide = table.Options(**given, events=[{"code": "V", "value": "value", "display": "A value"}])
    assert told(table, wide) == {"V": "A value"}
    with pytest.raises(ValidationError, match="made of columns"):
        table.Options(**given, events=[{"code": "{item}", "display": "Any"}])


def test_the_commonest_display_counts_then_the_shortest_whatever_the_order():
    rows = [
        {"code": "A", "action": action, "count": count}
        for action, count in (("Longer", 10), ("Short", 10), ("Rare", 9), ("Longest", 10))
    ]
    for order in (rows, rows[::-1]):
        assert displays(order).to_pylist() == [{"code": "A", "display": "Short"}]
    assert displays([rows[2]]).num_rows == 0


def test_what_is_kept_is_bounded():
    found = Displays()
    for n in range(100):
        found.note("A", f"text {n}", f"patient {n}")
        found.note("B", "B", f"patient {n}")
    rows = found.rows("ehr")
    assert len(rows) == 5 and max(row["count"] for row in rows) == WITNESSES
    assert len(cut("x" * 200)) == LONGEST and cut(" a \n b ") == "a b" and not cut(None)


def test_columns_of_rows_are_counted_once_a_patient():
    found = Displays()
    for _ in range(3):
        found.take(
            pa.array(["A"] * 4).dictionary_encode(),
            pa.array(["a", "a", None, "a"]),
            pa.array(["1", "1", "2", None]),
        )
    assert [row["count"] for row in found.rows("lab")] == [1]


def test_the_report_uses_them_after_its_own_vocabulary():
    called = {f"SNOMED//{SCREEN}": "Medication reconciliation", "LOINC//8867-4": "HR"}
    name = f"codes|SNOMED//{SCREEN}|present|all"
    assert names.features([name], called) == ["Medication reconciliation"]
    assert names.feature(name) == f"SNOMED {SCREEN}"
    assert names.code("LOINC//8867-4", called) == "Heart rate"
    assert names.code(f"SNOMED//{SCREEN}=LOINC//8867-4", called) == (
        "Medication reconciliation: Heart rate"
    )
    row = {"feature": name, "overall": "9"}
    ledger = [{"rule": "duplicate", "action": "removed", "code": f"SNOMED//{SCREEN}", "count": 9}]
    shown = page.view({"table1": [row], "ledger": ledger, "displays": called})
    assert shown["table1"]["rows"][0]["name"] == "Medication reconciliation"
    assert shown["ledger"][0]["codes"] == "Medication reconciliation 9"
