"""Every row judged in turn, by Spark, on a few patients: folds, then sites; killed and gone on."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

import clinloom
from clinloom import files
from clinloom.cohort import split
from clinloom.cohort.division import Division
from clinloom.learn import training
from clinloom.run.train import scorers, with_division
from clinloom.tables import DATASET, matrix

PATIENTS = 160
STUDY = """
name: in-turn
sources:
  lab:
    {type: table, path: lab.csv, patient: pid, time: {column: at, zone: UTC},
     code: {column: what}, value: v}
cohort:
  index: {at: IN}
  outcome: {codes: OUT, within: 30d}
  time_at_risk: {follow_up: assumed}
features: {measurements: {codes: "LAB//*", statistics: [last], windows: [all]}}
split: {method: kfold, folds: 3, repeats: 2}
models:
  logistic_regression: {penalty: [0.01, 1.0], elastic_net: [0.0], iterations: 5}
evaluate: {bootstrap: 20, modalities: false, baseline: LAB//b}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("in_turn"), np.random.default_rng(4)
    lines = ["pid,at,what,v"]
    for n in range(PATIENTS):
        a, b = rng.normal(size=2)
        lines += [f"{n},2024-01-01T00:00:00Z,LAB//{c},{v:.3f}" for c, v in (("a", a), ("b", b))]
        lines += [f"{n},2024-01-01T00:00:00Z,SITE//{n % 3},1", f"{n},2024-01-02T00:00:00Z,IN,1"]
        if rng.random() < 1 / (1 + np.exp(0.7 - 1.5 * a)):
            lines.append(f"{n},2024-01-09T00:00:00Z,OUT,1")
    (folder / "lab.csv").write_text("\n".join(lines))
    (folder / "study.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def killed(place, spark):
    """How many fits a run made that died in the second trial of the second of its six parts."""
    made, fit = [], training.fit

    def dies(*args, **named):
        made.append(args[2])
        if len(made) > 9:
            raise KeyboardInterrupt
        return fit(*args, **named)

    training.fit = dies
    try:
        with pytest.raises(KeyboardInterrupt):
            clinloom.run_study(place / "study.yaml", out=place / "out", spark=spark)
    finally:
        training.fit = fit
    kept = json.loads((place / "out" / "manifest.json").read_text())["stages"]
    return [name for name in kept if name.startswith("trial/")]


@pytest.fixture(scope="module")
def done(place, spark, killed):
    """The run that went on, and the fits that it made by point."""
    made, fit = Counter(), training.fit

    def counted(name, options, point, *args, **named):
        made[json.dumps(point)] += 1
        return fit(name, options, point, *args, **named)

    training.fit = counted
    try:
        run = clinloom.run_study(place / "study.yaml", out=place / "out", spark=spark)
    finally:
        training.fit = fit
    return run, made


def test_a_killed_run_goes_on_after_its_last_whole_trial(done, killed):
    run, made = done
    # Two points in three pairs of folds of two repeats; six parts and the refit; and the rival.
    whole, rival = 2 * 3 * 2 + 6 + 1, 3 * 2 + 6
    assert killed and made.total() <= whole + rival - 6 * len(killed)
    assert made.total() >= whole + rival - 6 * 2
    assert not [name for name in json.loads(files.read(run.out / "manifest.json"))["stages"]
                if name.startswith("trial/")]  # fmt: skip


def test_every_row_is_judged_once_a_repeat_by_a_model_that_has_not_seen_it(done):
    run, _ = done
    predictions, dataset = run.table("predictions").read(), run.table("dataset").read()
    assert predictions.num_rows == 2 * dataset.num_rows == 2 * PATIENTS
    sides = json.loads(run.table("sides").text("sides.json"))
    division = Division(3, 0, tuple(sides["folds"]), ())
    model = "logistic_regression"
    each = scorers({model: {f"models.{model}": run.table(f"models.{model}")}}, model)
    assert len(each) == 6
    values = dict(zip(dataset["subject_id"].to_pylist(), matrix(dataset), strict=True))
    for row in predictions.to_pylist():
        part = division.names.index(row["part"])
        fold = split.fold(np.array([row["subject_id"]]), 3, 0, sides["folds"][row["repeat"] - 1])
        assert part == 3 * (row["repeat"] - 1) + fold[0]
        risk = each[part].score(values[row["subject_id"]][None])
        assert risk[0] == row["predicted_boolean_probability"]
        assert row["predicted_boolean_value"] == (risk[0] >= each[part].threshold)


def test_what_is_told_of_it(done):
    run, _ = done
    model = run.metrics["models"]["logistic_regression"]
    test, predictions = model["test"], run.table("predictions").read()
    flagged, truth = (predictions[n].to_numpy(zero_copy_only=False) for n in
                      ("predicted_boolean_value", "boolean_value"))  # fmt: skip
    assert test["recall"]["value"] == pytest.approx(flagged[truth].mean())
    assert test["precision"]["value"] == pytest.approx(truth[flagged].mean())
    assert test["auroc"]["low"] < test["auroc"]["value"] < test["auroc"]["high"]
    assert [part["part"] for part in model["parts"]][::5] == [
        "repeat 1, fold 1",
        "repeat 2, fold 3",
    ]
    assert sum(part["rows"] for part in model["parts"]) == 2 * PATIENTS
    told = [part["auroc"] for part in model["parts"]]
    assert model["mean"]["auroc"] == pytest.approx(np.mean(told))
    assert run.metrics["selected"] == "logistic_regression"
    assert run.metrics["models"]["baseline"]["test"]["auroc"]["value"] < test["auroc"]["value"]
    page = run.report.path.read_text()
    assert "Fold by fold" in page and "was judged 2 times by a model" in page
    assert "learned once more, from all rows" in page and "Baseline: LAB//b" in page
    bundle = clinloom.load_bundle(run.out / "bundle")
    assert bundle.document["learned"]["rows"] == "all"
    assert bundle.document["patients"] == {"test": PATIENTS}
    assert bundle.reference.rows == PATIENTS  # of the first repeat


def test_sites_are_judged_in_turn(place, spark, done):
    changes = ["split={method: site, site: SITE//*, folds: 2}", "tune.search=halving"]
    run = clinloom.run_study(
        place / "study.yaml", out=place / "out", overrides=changes, spark=spark
    )
    parts = run.metrics["models"]["logistic_regression"]["parts"]
    assert [part["part"] for part in parts] == ["SITE//0", "SITE//1", "SITE//2"]
    assert {part["rows"] for part in parts} == {53, 54}
    assert "Site by site" in run.report.path.read_text()
    assert run.metrics["judged"] == {"method": "site", "parts": ["SITE//0", "SITE//1", "SITE//2"]}


@pytest.mark.parametrize(
    "division",
    [
        Division(3, 1, (0,), ("test",)),
        Division(3, 1, (0,), ()),
        Division(2, 1, (0,), ("a", "test")),
    ],
)
def test_no_fit_is_handed_a_row_that_it_validates_or_is_judged_by(spark, tmp_path, division):
    import pyarrow.parquet as pq
    from pyspark.sql import functions as F

    sides = ["train", "test"] if division.parts == ("test",) else ["a", "test"]
    rows = DATASET.rows(
        {
            "subject_id": n // 2,
            "prediction_time": n,
            "boolean_value": n % 5 < 2,
            "split": sides[n // 2 % 2],
            "values": [float(n), float(n % 7)],
        }
        for n in range(80)
    )
    pq.write_table(rows, tmp_path / "rows.parquet")
    frame = with_division(spark.read.parquet(str(tmp_path)), division, 0)
    made = training.training_rows(frame, F.col("fold"), parts=1, part=F.col("part"))

    def of(part_rows):
        return {(r["part"], r["fold"], r["subject_id"]) for r in part_rows.collect()}

    with training.prepared(made, folds=division.folds, parts=1, crossed=division.crossed) as folds:
        every = of(made)
        for left in division.fits():
            part = folds.left(left)
            expected = {r for r in every if r[0] != left.part and r[1] != left.fold}
            assert of(part.train) == expected
            assert part.positive + part.negative == part.train.count()
            for cell in left.cells:
                valid = {r for r in every if r[1] == cell.fold and r[0] != cell.part}
                assert of(part.valid[cell]) == valid and not valid & expected
        for number in range(division.each):
            whole = folds.part(None, number)
            assert of(whole.train) == {r for r in every if r[0] != number}
        assert of(folds.part(None).train) == every
