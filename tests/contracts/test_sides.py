"""The split and the folds as Spark makes them: few outcomes on both sides, and nobody moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from clinloom.cohort import split
from clinloom.cohort.division import Division
from clinloom.errors import DataError
from clinloom.run import api, dataset
from clinloom.run.acquire import acquire
from clinloom.run.train import with_division
from clinloom.run.work import Work
from clinloom.store import Store, finished

STUDY = """
name: sides
sources:
  lab:
    {type: table, path: lab, patient: pid, time: {column: at, zone: UTC},
     code: {column: what, display: called}}
cohort:
  index: {at: IN}
  outcome: {codes: OUT, within: 30d}
  time_at_risk: {follow_up: assumed}
features: {codes: {codes: "A*", min_rows: 0.01}}
models: [logistic_regression]
"""


def written(folder: Path, patients: int, having: set[int]) -> Path:
    rows = ["pid,at,what,called"]
    for n in range(patients):
        rows += [f"{n},2024-01-01T00:00:00Z,A{n % 2},Patient {n}"]
        rows += [f"{n},2024-01-02T00:00:00Z,IN,Admission"]
        rows += [f"{n},2024-01-09T00:00:00Z,OUT,Failure"] if n in having else []
    (folder / "lab").mkdir(exist_ok=True)
    (folder / "lab" / "lab.csv").write_text("\n".join(rows))
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


def indexed(spark, study: Path, out: Path, *overrides: str) -> list[dict]:
    """The index of a run as far as the cohort."""
    read = api.read_study(study, overrides=overrides)
    work = Work(read, Store(out), spark=spark)
    try:
        acquired = acquire(work, read)
        made = dataset.build_cohort(work, read, dataset.clean(work, read, acquired))
        return made["index"].read().to_pylist()
    finally:
        work.close()


def sides(rows: list[dict]) -> dict[int, str]:
    return {row["subject_id"]: row["split"] for row in rows}


def test_few_outcomes_are_on_both_sides_and_known_patients_stay_where_they_were(spark, tmp_path):
    study = written(tmp_path, 60, set(range(6)))
    rows = indexed(spark, study, tmp_path / "first")
    called = finished(tmp_path / "first")["displays"].read().to_pylist()
    assert called == [{"code": "IN", "display": "Admission"}]  # six failed: too few to be called so
    having = np.array([row["subject_id"] for row in rows if row["boolean_value"]])
    unlucky = next(s for s in range(200) if (split.uniform(having, seed=s) < 0.7).all())
    with pytest.raises(DataError, match="hold a single class"):
        indexed(spark, study, tmp_path / "plain", f"seed={unlucky}", "split.stratify=false")
    before = indexed(spark, study, tmp_path / "out", f"seed={unlucky}")
    train = [row["split"] == "train" for row in before if row["boolean_value"]]
    assert 3 <= sum(train) <= 5 and len(before) == 60
    written(tmp_path, 90, {*range(6), *range(20, 32), *range(70, 80)})  # more, and more outcomes
    after = sides(indexed(spark, study, tmp_path / "out", f"seed={unlucky}"))
    assert len(after) == 90
    assert {subject: after[subject] for subject in sides(before)} == sides(before)


def test_the_folds_and_parts_of_spark_are_those_that_are_counted(spark):
    subject = np.array([0, 1, -1, 2**62, -(2**63), *range(1000, 1200)], np.int64)
    sides = np.array(["train", "test", None, "SITE//9"], object)[np.arange(len(subject)) % 4]
    made = [(int(n), side) for n, side in zip(subject, sides, strict=True)]
    frame = spark.createDataFrame(made, "subject_id long, split string")
    rows = pa.table({"subject_id": subject, "split": pa.array(sides, pa.string())})
    for division in (
        Division(5, 7, (0,), ("test",)),
        Division(5, 7, (3, 1), ()),
        Division(5, 7, (3,), ("SITE//8", "SITE//9")),
    ):
        for repeat, salt in enumerate(division.salts):
            told = {r["subject_id"]: r for r in with_division(frame, division, repeat).collect()}
            folds = [told[n]["fold"] for n in subject.tolist()]
            assert folds == split.fold(subject, 5, 7, salt).tolist()
            parts = [told[n]["part"] for n in subject.tolist()]
            assert parts == division.part(rows, repeat).tolist()
