"""Records whose later versions tell of other patients, through acquisition and cleaning."""

from __future__ import annotations

import json

import pytest
from tests.contracts.test_identities import MRN, patient, ran
from tests.unit.test_reassigned import version

from clinloom.identity import corrections

pytestmark = pytest.mark.core


def facts(tables):
    known = {r["subject_id"]: r["identifier"] for r in tables["crosswalk"] if r["system"] == "#ehr"}
    left = {(known[r["subject_id"]], r["numeric_value"]) for r in tables["events"]}
    gone = [(r["stage"], r["reason"], r["record_id"]) for r in tables["rejected"]]
    return left, sorted(gone)


@pytest.mark.parametrize("few", [corrections.FEW, 0])
def test_a_corrected_mix_up_takes_the_fact_from_who_had_it(spark, tmp_path, monkeypatch, few):
    monkeypatch.setattr(corrections, "FEW", few)
    monkeypatch.setattr(corrections, "LEAST", 2)  # of which those who are one are none
    (tmp_path / "fhir").mkdir()
    days = {
        "1": [version(1, "a"), version(1, "a", record="o2"), version(1, "m", record="o3")],
        "2": [version(2, "b"), version(2, "b", "entered-in-error", record="o2")],
        "3": [version(2, "n", record="o3")],
    }
    days["1"] += [patient("m", "1950-01-01", "5"), patient("n", "1950-01-01", "5")]  # are one
    for day, resources in days.items():
        lines = "\n".join(map(json.dumps, resources))
        (tmp_path / "fhir" / f"{day}.ndjson").write_text(lines)
    sources = {"ehr": {"type": "fhir", "path": str(tmp_path / "fhir"), "identifiers": MRN}}
    tables, lines = ran(spark, tmp_path / "out", sources)
    left, gone = facts(tables)
    assert {row for row in left if row[1] is not None} == {("Patient/b", 2.0), ("Patient/n", 2.0)}
    assert gone == [
        ("acquire", "entered_in_error", "Observation/o2"),
        ("clean", "reassigned", "Observation/o1"),
        ("clean", "superseded", "Observation/o3"),
        ("clean", "withdrawn", "Observation/o2"),
    ]
    counts = [r for r in tables["counts"] if r["table"] == "rejected"]
    assert sum(r["rows"] for r in counts) == 4


def test_too_many_records_of_several_patients_are_no_corrections(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(corrections, "LEAST", 1)
    (tmp_path / "fhir").mkdir()
    given = [version(n, "ab"[n - 1], record=f"o{r}") for n in (1, 2) for r in range(3)]
    (tmp_path / "fhir" / "all.ndjson").write_text("\n".join(map(json.dumps, given)))
    sources = {"ehr": {"type": "fhir", "path": str(tmp_path / "fhir")}}
    tables, lines = ran(spark, tmp_path / "out", sources)
    assert len({row["subject_id"] for row in tables["events"]}) == 2 and not tables["rejected"]
    [row] = [row for row in tables["ledger"] if row["rule"] == "contested_record"]
    assert (row["action"], row["count"]) == ("kept", 3)
    assert [line for line in lines if line.startswith("3 records tell of several patients")]
