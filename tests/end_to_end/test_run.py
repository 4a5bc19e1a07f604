"""The whole way through the command line: synth, run, resume, score, and what goes wrong."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.hospital import STUDY, clinloom, killed, progress, sets, small

from clinloom import load_bundle
from clinloom.cli import main
from clinloom.tables import matrix

RISK = "predicted_boolean_probability"

METRICS = (
    "auroc auprc accuracy precision recall specificity f1 brier calibration_slope"
    " calibration_intercept"
).split()


def test_a_run_leaves_what_it_promises(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    for model in ("logistic_regression", "decision_tree"):
        test = metrics["models"][model]["test"]
        assert set(test) >= set(METRICS)
        assert all(test[m]["low"] <= test[m]["value"] <= test[m]["high"] for m in ("auroc", "f1"))
    assert metrics["selected"] in metrics["models"]
    both = metrics["modalities"]["both"]["auroc"]["value"]
    assert both > 0.7 and set(metrics["modalities"]) == {"records", "images", "both"}
    page = (finished / "report.html").read_text()
    assert "<html" in page and "http://" not in page.replace("http://www.w3.org", "")
    for name in ("manifest.json", "study.resolved.yaml", "bundle/bundle.json"):
        assert (finished / name).exists()
    for table in ("events", "images", "index", "dataset", "predictions", "ledger", "rejected"):
        assert list((finished / "tables" / table).glob("*.parquet")), table


KINDS = {  # what synth plants: (table, rule or reason)
    "duplicate": ("ledger", "duplicate"),
    "missing_value": ("rejected", "missing_value"),
    "mixed_units": ("ledger", "mixed_units"),
    "impossible_value": ("rejected", "impossible_value"),
    "date_format": ("ledger", "date_format"),
    "invalid_date": ("rejected", "invalid_date"),
    "late_result": ("ledger", "late_result"),
    "two_identifiers": ("ledger", "two_identifiers"),
    "truncated_dicom": ("rejected", "truncated_dicom"),
    "pixelless_dicom": ("rejected", "pixelless_dicom"),
    "malformed_json": ("rejected", "malformed_json"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_planted_dirt_is_found_kind_by_kind(hospital, finished, kind):
    planted = json.loads((hospital / "truth.json").read_text())["dirt"][kind]
    table, name = KINDS[kind]
    rows = pq.read_table(finished / "tables" / table).to_pylist()
    if table == "ledger":
        found = sum(r["count"] for r in rows if r["rule"] == name)
    else:
        found = sum(r["reason"] == name for r in rows)
    assert planted > 0
    assert found == planted


def test_no_planted_identifier_leaves_the_guarded_folder(hospital, finished):
    patients = (hospital / "fhir").glob("Patient*.ndjson")
    lines = [json.loads(x) for f in patients for x in f.read_text().splitlines() if x[-1:] == "}"]
    numbers = {i["value"] for line in lines[:50] for i in line["identifier"]}
    shown = [finished / "report.html", finished / "metrics.json", finished / "manifest.json"]
    for file in shown:
        text = file.read_text()
        assert not [n for n in numbers if f">{n}<" in text or f'"{n}"' in text]


def test_a_second_run_keeps_every_stage_and_a_change_reruns_what_depends_on_it(hospital, finished):
    before = (finished / "metrics.json").read_bytes()
    again = clinloom("run", STUDY, "--out", finished, "--json", *sets(small(hospital)))
    assert json.loads(again.stdout)["report"] == f"{finished}/report.html"  # the result alone
    stages = progress(again.stderr)
    assert stages and all(s["reused"] for s in stages)
    assert (finished / "metrics.json").read_bytes() == before


def test_killed_at_any_moment_it_goes_on_with_identical_results(hospital, finished, tmp_path):
    out = tmp_path / "out"
    run = ["run", STUDY, "--out", out, *sets(small(hospital))]
    for stage in ("clean", "cohort"):
        killed(*run, after=stage)
    clinloom(*run)
    left, right = (json.loads((d / "metrics.json").read_text()) for d in (out, finished))
    assert left == right


def test_new_patients_are_scored_in_batch(finished, scored):
    dataset = pq.read_table(finished / "tables" / "dataset")
    known = load_bundle(finished / "bundle").scorer.score(matrix(dataset))
    rows = pq.read_table(scored).to_pylist()
    risk = {r["subject_id"]: r["predicted_boolean_probability"] for r in rows}
    found = [risk[subject] for subject in dataset["subject_id"].to_pylist()]
    assert len(found) > 100 and np.abs(np.array(found) - known).max() < 1e-9


def test_the_model_at_work_was_learned_again_from_all_rows(finished):
    document = json.loads((finished / "bundle" / "bundle.json").read_text())
    assert document["learned"]["rows"] == "all" and document["evidence"]["parity"] <= 1e-9
    test = pq.read_table(finished / "tables" / "predictions")
    assert set(test["part"].to_pylist()) == {"test"}
    rows = pq.read_table(finished / "tables" / "dataset").filter(pc.field("split") == "test")
    again = load_bundle(finished / "bundle").scorer.score(matrix(rows))
    judged = dict(zip(*(test[n].to_pylist() for n in ("subject_id", RISK)), strict=True))
    off = again - np.array([judged[subject] for subject in rows["subject_id"].to_pylist()])
    assert 1e-6 < np.abs(off).max() < 0.5  # another model, and much like it
    assert "learned once more, from all rows" in (finished / "report.html").read_text()
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["models"]["baseline"]["rival"] and metrics["selected"] != "baseline"
    baseline, best = (
        metrics["models"][m]["test"]["auroc"] for m in ("baseline", metrics["selected"])
    )
    assert 0.3 < baseline["value"] < best["value"]


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ("sources.ehr.path=nowhere", 1, "does not exist"),
        ("cohort.outcom.within=3d", 2, "did you mean 'outcome'?"),
        ("cohort.outcome.codes=ICD10CM//NOBODY", 1, "nobody of"),
        ("cohort.index.at=ENCOUNTER//NEVER", 1, "nobody is in the cohort"),
        ("cohort.outcome.within=30", 2, "a duration needs a unit"),
    ],
)
def test_bad_input_is_told_with_its_mend(hospital, finished, tmp_path, change, code, told):
    changes = sets([*small(hospital), change])
    if change.startswith("cohort"):  # what was acquired and cleaned is kept, as after a first try
        shutil.copytree(finished, tmp_path / "out")
        shutil.rmtree(tmp_path / "out" / "tables" / "index")
    done = clinloom("run", STUDY, "--out", tmp_path / "out", *changes, check=False)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    if told == "nobody of":  # the cohort's tables stay, to be looked at
        assert list((tmp_path / "out" / "tables" / "index").glob("*.parquet"))


def test_help_shows_an_example_and_a_wrong_command_the_nearest(capsys):
    commands = "doctor synth validate codes run report score plugins demo monitor".split()
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        shown = capsys.readouterr().out.split("example:")[1]
        assert ended.value.code == 0 and f"clinloom {command}" in shown
    wrong = clinloom("rnu", check=False)
    assert wrong.returncode == 2 and "did you mean 'run'?" in wrong.stderr
