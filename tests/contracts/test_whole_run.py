"""A whole run through Python: what it leaves, that it is kept, and that a bundle needs no Spark."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.hospital import MODELS, STUDY, places
from tests.hospital import small as quick

import clinloom
from clinloom import files
from clinloom.errors import DataError, SourceError
from clinloom.run import api as spine
from clinloom.run import score as scoring
from clinloom.run import sides as steps
from clinloom.tables import COUNTS, EVENTS, FLOW, matrix

pytestmark = pytest.mark.core


def small(folder):
    """The quick run, with a choice between two points of a grid; its bundle is what was judged."""
    return [*quick(folder), "models.logistic_regression.elastic_net=[0.0, 0.5]", KEPT]


KEPT = "deploy.refit=false"


@pytest.fixture(scope="module")
def done(spark, hospital, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return clinloom.run_study(STUDY, out=out, overrides=small(hospital), spark=spark)


def test_a_run_leaves_metrics_report_and_bundle(done):
    assert done.metrics["selected"] in {"logistic_regression", "decision_tree"}
    assert "AUROC" in done.report.path.read_text()
    assert "srcdoc" in done._repr_html_()
    assert Path(urlsplit(clinloom.load_bundle(done.out / "bundle").spark).path).is_dir()
    summary = done.summary()
    assert summary["selected"] == done.metrics["selected"]


def test_a_second_run_keeps_every_stage(spark, hospital, done):
    before = json.loads(files.read(done.out / "manifest.json"))
    again = spine.run(STUDY, out=done.out, overrides=small(hospital), spark=spark)
    assert json.loads(files.read(again.out / "manifest.json")) == before


def test_where_it_runs_and_how_storage_opens_change_no_stage_and_leave_no_secret(
    spark, hospital, done, monkeypatch, tmp_path
):
    canary = "canary-3f9a"
    monkeypatch.setenv("TEST_CANARY", canary)
    (tmp_path / "secret").write_text(canary)
    before = json.loads(files.read(done.out / "manifest.json"))
    site = [
        "storage.s3.key=env:TEST_CANARY",
        f"storage.s3.secret=file:{tmp_path / 'secret'}",
        "platform.local.cores=2",
    ]
    try:
        spine.run(STUDY, out=done.out, overrides=[*small(hospital), *site], spark=spark)
        assert json.loads(files.read(done.out / "manifest.json")) == before
        assert b"env:TEST_CANARY" in files.read(done.out / "study.resolved.yaml")
        assert canary.encode() not in pickle.dumps(files.settings())
    finally:
        files.use({})
    held = [entry.address for entry in files.listed(done.out)]
    assert len(held) > 20
    assert [at for at in held if canary.encode() in files.read(at)] == []
    bundle = clinloom.load_bundle(done.out / "bundle")
    assert not set(bundle.study) & {"platform", "storage"}


def events_of(done, subjects):
    table = pq.read_table(done.out / "tables" / "events")
    return table.filter(pc.is_in(table.column("subject_id"), pc.cast(subjects, "int64")))


def test_the_bundle_answers_without_spark_as_the_run_did(done):
    """The records of test patients, cleaned again, give the risks of the committed predictions."""
    known = pq.read_table(done.out / "tables" / "predictions").slice(0, 40)
    bundle = clinloom.load_bundle(done.out / "bundle")
    found = bundle.predict(events_of(done, known.column("subject_id").combine_chunks()))
    risk = dict(
        zip(
            found.column("subject_id").to_pylist(),
            found.column("predicted_boolean_probability").to_pylist(),
            strict=True,
        )
    )
    for row in known.to_pylist():
        assert risk[row["subject_id"]] == pytest.approx(
            row["predicted_boolean_probability"], abs=1e-9
        )


def test_what_cleaning_refuses_of_a_request_is_told(done):
    known = pq.read_table(done.out / "tables" / "predictions").slice(0, 1)
    events = events_of(done, known.column("subject_id").combine_chunks())
    bundle = clinloom.load_bundle(done.out / "bundle")
    assert not bundle.predict(events).schema.metadata
    wrong = {**events.slice(events.num_rows - 1).to_pylist()[0], "code": "LOINC//8867-4"}
    wrong |= {"numeric_value": 9999.0, "text_value": None, "unit": "/min"}
    more = [*events.to_pylist(), wrong]
    found = bundle.predict(more)
    assert json.loads(found.schema.metadata[b"rejected"]) == {"impossible_value": 1}
    assert found.num_rows == 1
    assert bundle.clean(more)["rejected"].column("reason").to_pylist() == ["impossible_value"]


def test_events_may_be_dictionaries_of_what_each_has(done):
    """However they are ordered: none is read by the first one's keys."""
    known = pq.read_table(done.out / "tables" / "predictions").slice(0, 10)
    table = events_of(done, known.column("subject_id").combine_chunks())
    rows = [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]
    rows.sort(key=lambda row: "numeric_value" in row)
    assert "numeric_value" not in rows[0] and "numeric_value" in rows[-1]
    bundle = clinloom.load_bundle(done.out / "bundle")
    assert bundle.predict(rows).equals(bundle.predict(table))


def test_the_service_loads_no_spark(done):
    code = (
        "import sys, clinloom; b = clinloom.load_bundle(sys.argv[1]);"
        "b.predict([{'subject_id': 1, 'time': None, 'code': 'GENDER//female'}]);"
        "assert not [m for m in sys.modules if m.startswith('pyspark')]"
    )
    command = [sys.executable, "-c", code, str(done.out / "bundle")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_a_patient_of_a_thousand_events_is_scored_in_five_milliseconds(done):
    """Cleaning, features and score, as a service would answer 30 requests.

    The processor time of their median, as other programs share this machine; and the quickest of
    them on the clock, as waiting takes no processor time: of those of a minute, where others hold
    the machine.
    """
    index = pq.read_table(done.out / "tables" / "index").slice(0, 1).to_pylist()[0]
    rows = events_of(done, pq.read_table(done.out / "tables" / "index")["subject_id"].slice(0, 1))
    rows = rows.to_pylist()
    vital = [r for r in rows if r["code"] == "LOINC//8867-4"][0]
    step = np.timedelta64(61, "s").astype(object)
    more = [{**vital, "time": vital["time"] - step * i} for i in range(1, 1001 - len(rows))]
    bundle = clinloom.load_bundle(done.out / "bundle")
    table = events_table([*rows, *more])
    worked, waited, end = [], [], time.monotonic() + 60
    while len(waited) < 30 or (min(waited) >= 0.005 * SLACK and time.monotonic() < end):
        start, worked_before = time.perf_counter(), time.process_time()
        found = bundle.predict(table, at=index["prediction_time"])
        worked.append(time.process_time() - worked_before)
        waited.append(time.perf_counter() - start)
    assert found.num_rows == 1 and table.num_rows >= 1000
    assert np.median(worked) < 0.005 * SLACK
    assert min(waited) < 0.005 * SLACK


SLACK = 3  # for a slow machine; bench/scoring.py measures the figure itself


def events_table(rows):
    return pa.Table.from_pylist(rows, schema=EVENTS.arrow)


def test_a_worker_that_loaded_a_bundle_sees_the_next_one_at_its_address(done, tmp_path):
    known = pq.read_table(done.out / "tables" / "predictions").slice(0, 20)
    events = events_of(done, known.column("subject_id").combine_chunks())
    place = tmp_path / "bundle"
    shutil.copytree(done.out / "bundle", place)

    def risks():
        bundle = clinloom.load_bundle(place)
        told = {"bundle": str(place), "mark": bundle.mark, "cohort": bundle.resolved.cohort}
        made = scoring.scored(events, **told, last=None, now=time.time_ns() // 1000)["predictions"]
        return made.column("predicted_boolean_probability").to_pylist()

    before = risks()
    document = json.loads((place / "bundle.json").read_text())
    document["parts"]["scorer"] = "scorer-other.npz"
    with np.load(place / clinloom.load_bundle(place).mark, allow_pickle=False) as scorer:
        arrays = dict(scorer)
    changed = next(name for name in arrays if "intercept" in name or "value" in name)
    arrays[changed] = arrays[changed] + 1
    np.savez(place / "scorer-other.npz", **arrays)
    (place / "bundle.json").write_text(json.dumps(document))
    assert risks() != before


def test_a_report_that_tells_of_other_metrics_is_gone_before_they_are_there(
    spark, hospital, done, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    assert (out / "report.html").exists()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(spine.record, "tell", killed)
    with pytest.raises(KeyboardInterrupt):
        changes = [*small(hospital), "evaluate.bootstrap=40"]
        spine.run(STUDY, out=out, overrides=changes, spark=spark)
    assert (out / "metrics.json").read_bytes() != files.read(done.out / "metrics.json")
    assert not (out / "report.html").exists()


def test_a_refit_changes_the_bundle_alone_and_is_held_against_spark(
    spark, hospital, done, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(done.out, out)
    changes = [change for change in small(hospital) if change != KEPT]
    again = spine.run(STUDY, out=out, overrides=changes, spark=spark)
    assert again.metrics == done.metrics
    before, after = (clinloom.load_bundle(one.out / "bundle") for one in (done, again))
    assert (before.document["learned"]["rows"], after.document["learned"]["rows"]) == (
        "train",
        "all",
    )
    assert after.document["evidence"]["parity"] <= 1e-9
    for name in ("slope", "intercept", "threshold"):
        assert getattr(after.scorer, name) == getattr(before.scorer, name)
    stages = {
        s["name"]: s["reused"] for s in json.loads(files.read(again.out / "run.json"))["stages"]
    }
    assert [name for name, reused in stages.items() if not reused] == ["refit", "bundle"]
    rows = again.table("dataset").read().slice(0, 60)
    from pyspark.ml import PipelineModel

    frame = spark.read.parquet(*map(str, again.table("dataset").files()))
    made = (
        PipelineModel.load(after.spark)
        .transform(frame)
        .select("subject_id", "predicted_boolean_probability")
    )
    told = dict(made.collect())
    risk = after.scorer.score(matrix(rows))
    expected = [told[subject] for subject in rows["subject_id"].to_pylist()]
    assert np.abs(risk - expected).max() < 1e-9
    assert np.abs(risk - before.scorer.score(matrix(rows))).max() > 1e-6


def test_new_patients_score_as_they_did(spark, hospital, done, tmp_path):
    out = tmp_path / "risk.parquet"
    changes = [*places(hospital), "deploy.identifier=true"]
    told = spine.score(done.out / "bundle", out=out, overrides=changes, spark=spark)
    scored = {r["subject_id"]: r for r in pq.read_table(out).to_pylist()}
    assert told["rows"] == len(scored) == 400
    for row in pq.read_table(done.out / "tables" / "predictions").to_pylist():
        mine = scored[row["subject_id"]]
        assert mine["predicted_boolean_probability"] == pytest.approx(
            row["predicted_boolean_probability"], abs=1e-9
        )
        assert mine["boolean_value"] == row["boolean_value"]
        assert mine["patient"].startswith(("MRN", "EMG"))


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "mostly as empty_file"), ("\x00\x01 no JSON\n{\n", "mostly as malformed_json")],
)
def test_a_source_that_tells_nothing_is_told(spark, tmp_path, content, told):
    """An empty file, a corrupt one: what, where and how to mend; no table is left behind."""
    (tmp_path / "fhir").mkdir()
    (tmp_path / "fhir" / "Patient.ndjson").write_text(content)
    changes = [f"sources.ehr.path={tmp_path / 'fhir'}", MODELS]
    study = STUDY.with_name("synthetic_records.yaml")
    with pytest.raises(SourceError) as error:
        spine.run(study, out=tmp_path / "out", overrides=changes, spark=spark)
    assert "sources.ehr" in str(error.value) and told in str(error.value)
    left = [f for f in (tmp_path / "out").rglob("*") if f.is_file()]
    assert not [f for f in left if f.suffix not in (".json", ".yaml", ".lock", "")]


def test_one_class_in_the_test_or_training_rows_is_told():
    rows = [(True, "train"), (False, "train"), (False, "test")]
    classes = COUNTS.rows(
        {"table": "index", "stage": split, "reason": str(outcome), "rows": 1}
        for outcome, split in rows
    )
    with pytest.raises(DataError, match=r"the test rows \(1\) hold a single class"):
        steps.answerable(classes, FLOW.empty)
