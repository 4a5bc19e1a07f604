"""Identities through acquisition: names that stay, what is refused, who shares nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clinloom import plugins
from clinloom import study as studies
from clinloom.run import acquire
from clinloom.run.dataset import clean
from clinloom.run.progress import Progress
from clinloom.run.work import Work
from clinloom.store import Store

pytestmark = pytest.mark.core
MRN = "https://a.example/mrn"
STUDY = {
    "name": "tiny",
    "cohort": {"index": {"at": "A"}, "outcome": {"codes": "B", "within": "30d"}},
    "features": ["demographics"],
    "models": ["logistic_regression"],
}


class Heard(Progress):
    """What a run noted."""

    def __init__(self) -> None:
        super().__init__(form="quiet")
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def ran(spark: Any, out: Path, sources: dict[str, Any]) -> tuple[dict[str, list[dict]], list[str]]:
    made = studies.parse({**STUDY, "sources": sources}, rooms=plugins)
    heard = Heard()
    work = Work(made, Store(str(out)), spark=spark, progress=heard)
    try:
        found = acquire.acquire(work, made)
        found = {**found, **clean(work, made, found)}
        return {name: found[name].read().to_pylist() for name in found}, heard.lines
    finally:
        work.close()


def patient(name: str, born: str, *numbers: str) -> dict[str, Any]:
    given = [{"system": MRN, "value": n} for n in numbers]
    return {"resourceType": "Patient", "id": name, "birthDate": born, "identifier": given}


def test_added_records_keep_names_in_the_same_output(spark, tmp_path: Path):
    records, rows = tmp_path / "fhir", tmp_path / "rows.csv"
    records.mkdir()
    file = records / "Patient.ndjson"
    people = [patient("m", "1950-01-01", "5"), patient("n", "1960-01-01", "UNKNOWN")]
    people.append(patient("o", "1961-01-01", "UNKNOWN"))
    file.write_text("\n".join(map(json.dumps, people)))
    rows.write_text("who,value\n5,1\n6,2\nN/A,3\n")
    lab = {"type": "table", "path": str(rows), "patient": "who", "time": {"at": "2024-01-01"}}
    lab |= {"events": [{"code": "X", "value": "value"}]}
    sources = {"ehr": {"type": "fhir", "path": str(records)}, "lab": {**lab, "identifiers": MRN}}

    first, lines = ran(spark, tmp_path / "out", sources)
    assert not [line for line in lines if "identifiers" in line]
    known = {(r["system"], r["identifier"]): r["subject_id"] for r in first["crosswalk"]}
    name = known["#ehr", "Patient/m"]
    assert known[MRN, "5"] == name and len(known) == 5 and len(set(known.values())) == 4
    assert {r["subject_id"] for r in first["events"] if r["code"] == "X"} == {name, known[MRN, "6"]}
    assert "placeholder_patient" in {r["reason"] for r in first["rejected"]}
    [told] = [r for r in first["ledger"] if r["rule"] == "placeholder_identifier"]
    assert (told["source"], told["action"], told["count"]) == ("ehr", "not_linked", 2)
    assert not [r for r in first["events"] if "Patient/" in (r["record_id"] or "")]

    people += [patient("a", "1951-02-02", "5", "1"), patient("b", "1970-01-01", "6")]
    file.write_text("\n".join(map(json.dumps, people)))
    more, _ = ran(spark, tmp_path / "out", sources)
    now = {(r["system"], r["identifier"]): r["subject_id"] for r in more["crosswalk"]}
    assert {key: now[key] for key in known} == known
    assert now["#ehr", "Patient/a"] == name and now["#ehr", "Patient/b"] == known[MRN, "6"]
    [flag] = more["linkage"]
    assert (flag["subject_id"], flag["fact"], flag["values"]) == (name, "birth", 2)
    [told] = [r for r in more["ledger"] if r["rule"] == "contradictory_birth"]
    assert (told["action"], told["count"]) == ("flagged", 1)

    apart, lines = ran(spark, tmp_path / "apart", {**sources, "lab": lab})
    [line] = [line for line in lines if line.startswith("sources.lab:")]
    assert "same `identifiers`" in line and MRN in line
    assert ("#lab", "5") in {(r["system"], r["identifier"]) for r in apart["crosswalk"]}


def test_a_study_of_sources_that_share_nobody_is_told_before_it_runs(tmp_path: Path):
    rows = {"type": "table", "path": "x", "patient": "who", "time": {"at": "2024-01-01"}}
    rows |= {"events": [{"code": "X"}]}
    for options, told in (({}, 2), ({"identifiers": "mrn"}, 0)):
        sources = {name: {**rows, **options} for name in "ab"}
        made = studies.parse({**STUDY, "sources": sources}, rooms=plugins)
        assert len(acquire.apart(made)) == told
    with_records = {"ehr": {"type": "fhir", "path": "x"}, "lab": rows}
    made = studies.parse({**STUDY, "sources": with_records}, rooms=plugins)
    [line] = acquire.apart(made)
    assert line.startswith("sources.lab:")
