"""A refusal names the column or element at fault, from its source to the report and the audit."""

from __future__ import annotations

import datetime as dt
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinloom import files
from clinloom.clean import clean
from clinloom.report import doubts, page
from clinloom.run import acquire, dataset, kept, record, tallies
from clinloom.run.sums import added, counted
from clinloom.sources import fhir, images, table
from clinloom.sources._images.manifest import Row
from clinloom.tables import (
    ACQUIRED,
    COUNTS,
    PARCEL_REJECTED,
    REFUSED,
    REJECTED,
    conform,
)

LONG = {"patient": "pid", "code": {"column": "what"}, "value": "value"}
WHEN = {"time": {"column": "when", "format": "%Y-%m-%d"}}


def fields(kind, folder, **options):
    """Reason and field of what a source refuses of the files in a folder."""
    chosen = kind.Options.model_validate({"path": str(folder), **options})
    parcels = kind.read(list(files.listing(str(folder))), chosen, "lab")
    found = [conform(p["rejected"], PARCEL_REJECTED) for p in parcels if "rejected" in p]
    return [(r["reason"], r["field"]) for rows in found for r in rows.to_pylist()]


def test_a_long_table_names_the_column_of_patient_code_or_time(tmp_path):
    rows = ("pid,what,value,when", ",K,4,2024-01-01", "1,,4,2024-01-01", "1,K,4,", "1,K,4,noon")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    told = [("no_patient", "pid"), ("no_code", "what"), ("no_time", "when")]
    assert fields(table, tmp_path, **LONG, **WHEN) == [*told, ("invalid_date", "when")]
    static = {**LONG, "patient": {"row": "ID"}, "time": {"static": True}}
    assert set(fields(table, tmp_path, **static)) == {("no_patient", "value")}


def test_a_code_of_several_columns_names_the_first_that_is_empty(tmp_path):
    (tmp_path / "t.csv").write_text("pid,site,side\n1,arm,left\n2,,left\n3,arm,\n4,,\n")
    wide = {"patient": "pid", "time": {"static": True}, "events": [{"code": "{site}//{side}"}]}
    assert fields(table, tmp_path, **wide) == [("no_code", n) for n in ("site", "side", "site")]


def test_a_text_in_another_encoding_names_its_column(tmp_path):
    cells = {"pid": ["1", "2"], "what": ["K", "K"], "value": [b"4", b"\xff"]}
    pq.write_table(pa.table(cells), tmp_path / "t.parquet")
    found = fields(table, tmp_path, **LONG, time={"static": True})
    assert found == [("malformed_encoding", "value")]


def test_a_manifest_names_its_column():
    given = {"path": "p", "manifest": "m.csv", "file": "{name}", "patient": "who"}
    options = images.Options.model_validate({**given, "time": {"column": "taken"}})
    for row, told in (
        (Row("a", None, 1, None), ("no_patient", "who")),
        (Row("a", "1", None, None), ("no_time", "taken")),
        (Row("a", "1", 1, None), (None, None)),
    ):
        assert images._refusal([row], False, options) == told


def test_fhir_names_the_element(tmp_path):
    code = {"coding": [{"system": "http://loinc.org", "code": "1"}]}
    mine, known = {"subject": {"reference": "Patient/p"}}, {"effectiveDateTime": "2024"}
    given = [
        ("Observation", "no_patient", "subject", {"code": code, **known}),
        ("Observation", "no_code", "code", {**mine, **known}),
        ("Observation", "no_time", "effective[x]", {**mine, "code": code}),
        ("Observation", "registered", "status", {**mine, **known, "status": "registered"}),
        ("Observation", "malformed_resource", "code.coding[0].code", {"code": {"coding": [{}]}}),
        ("Observation", "no_code", "component.code", {**mine, **known, "component": [{}]}),
        ("Condition", "refuted", "verificationStatus", {**mine, "code": code}),
        ("MedicationRequest", "proposal", "intent", {**mine, "intent": "proposal"}),
        ("MedicationRequest", "no_code", "medication[x]", {**mine, "authoredOn": "2024"}),
        ("Patient", "no_time", "deceased[x]", {"deceasedBoolean": True}),
    ]
    given[4][3]["code"]["coding"][0]["code"] = 7
    given[5][3]["code"] = code
    given[6][3]["verificationStatus"] = {"coding": [{"code": "refuted"}]}
    lines = [json.dumps({"resourceType": k, "id": "x", **more}) for k, *_, more in given]
    (tmp_path / "all.ndjson").write_text("\n".join(lines))
    assert fields(fhir, tmp_path) == [(reason, field) for _, reason, field, _ in given]


def test_cleaning_names_the_column_of_the_event():
    noon = dt.datetime(2020, 1, 2, 12, tzinfo=dt.UTC)
    row = {"subject_id": 1, "time": noon, "code": "LOINC//2345-7", "source": "lab"}
    rows = [
        {**row, "time": None, "time_text": "noon"},
        {**row, "time": noon.replace(year=1700)},
        {**row, "text_value": ""},
        {**row, "numeric_value": 5.0, "unit": "furlong"},
        {**row, "numeric_value": -5.0, "unit": "mg/dL"},
    ]
    found = clean(ACQUIRED.rows(rows), {})["rejected"].to_pylist()
    assert {r["reason"]: r["field"] for r in found} == {
        "invalid_date": "time_text",
        "impossible_time": "time",
        "missing_value": "text_value",
        "unknown_unit": "unit",
        "impossible_value": "numeric_value",
    }


REFUSAL = {"source": "lab", "stage": "acquire", "reason": "no_time"}


def test_fields_are_counted_and_told_in_the_report():
    rows = [{**REFUSAL, "field": name} for name in [*["when"] * 7, *["seen"] * 9, None]]
    counts = added([counted("rejected", REJECTED.rows(rows))] * 2)
    refusals = record.rejected(counts.to_pylist())
    assert [(r["field"], r["count"]) for r in refusals] == [("seen", 18), ("when", 14), (None, 2)]
    [line] = record.doubtful([{"name": "lab", "events": 1, "images": 0}], refusals, [])
    assert "34 of 35 records were refused, mostly as no_time in seen, when (" in line
    shown = page._rejected(refusals, [{"name": "lab", "events": 99}])
    assert [(r["field"], r["count"]) for r in shown] == [("seen", "18"), ("when", "14"), ("", "<5")]


def test_no_field_of_few_is_had_from_the_sum_that_the_ledger_tells():
    given = {"source": "lab", "stage": "clean", "reason": "missing_value"}
    fields = {"numeric_value": 40, "text_value": 2}
    refusals = [{**given, "field": name, "count": n} for name, n in fields.items()]
    refusals.append({**given, "reason": "unknown_unit", "field": "unit", "count": 3})
    shown = page._rejected(refusals, [{"name": "lab", "events": 99}])
    assert [r["count"] for r in shown] == ["hidden", "<5", "hidden"]


def test_the_command_line_names_the_columns_that_are_at_fault(tmp_path):
    (tmp_path / "t.csv").write_text("pid,what,value,when\n1,K,4,\n2,K,4,\n")
    chosen = {"lab": table.Options.model_validate({"path": str(tmp_path), **LONG, **WHEN})}
    unit = {"source": "lab", "units": list(files.listing(str(tmp_path)))}
    ledger = [made["ledger"] for made in acquire.read(unit, sources=chosen) if "ledger" in made]
    [line] = tallies.refused(["lab"], pa.concat_tables(ledger))
    assert "2 of 2 records were refused, mostly as no_time in when (" in line


@pytest.mark.parametrize("named", [["seen"], []])
def test_the_commonest_reason_is_that_of_all_fields(named):
    refused = {("no_code", "what"): 3, ("no_time", "when"): 2}
    refused |= {("no_time", name): 2 for name in named}
    told = "no_time in seen, when" if named else "no_code in what"
    assert doubts.mostly(refused).startswith(f"mostly as {told} (")


def test_what_was_written_before_fields_were_told_is_read_as_without():
    old = REFUSED.rows([{**REFUSAL, "subject_id": 1}]).drop_columns(["field"])
    made = dataset.cleaned(ACQUIRED.empty, old, options={}, learned={})
    assert made["rejected"].to_pylist() == REJECTED.rows([{**REFUSAL, "subject_id": 1}]).to_pylist()
    counts = COUNTS.rows([{"table": "rejected", **REFUSAL, "rows": 5}]).drop_columns(["field"])
    both = record.rejected(added([counts, made["counts"]]).to_pylist())
    assert both == [{**REFUSAL, "field": None, "count": 6}]
    assert record.rejected(counts.to_pylist()) == [{**REFUSAL, "field": None, "count": 5}]
    assert kept.joined([REFUSED.empty, old]).column("field").null_count == 1
