"""Every model: the scorer equals the pipeline; partitions and saving change nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from clinloom import plugins
from clinloom.deploy.scorer import Scorer, parity
from clinloom.errors import MissingDependency, ParityError, StoreError
from clinloom.tables import DATASET

pytestmark = pytest.mark.core
MODELS = plugins.choices("models")


def rows(n: int = 400, width: int = 9) -> pa.Table:
    random = np.random.default_rng(5)
    values = random.normal(size=(n, width)) * np.arange(1, width + 1)
    values[:, 7] = values[:, 7] > 0
    label = random.random(n) < 1 / (1 + np.exp(1 - values[:, 0] - 0.5 * values[:, 1]))
    values[random.random((n, width)) < 0.1] = np.nan
    values[:, 8] = np.nan
    return pa.Table.from_pylist(
        [
            {
                "subject_id": i // 2,
                "prediction_time": i,
                "boolean_value": bool(label[i]),
                "split": "train",
                "values": values[i].tolist(),
            }
            for i in range(n)
        ],
        schema=DATASET.arrow,
    )


@pytest.fixture(scope="module")
def frame(spark, tmp_path_factory):
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("dataset")
    pq.write_table(rows(), folder / "part-00000.parquet")
    return spark.read.parquet(str(folder))


@pytest.fixture(scope="module")
def folds(frame):
    from pyspark.sql import functions as F

    from clinloom.learn.training import prepared, training_rows

    made = training_rows(frame, F.col("subject_id") % 2, parts=1)
    with prepared(made, folds=2, parts=1) as held:
        yield held


@pytest.fixture(scope="module")
def trained(folds, tmp_path_factory):
    from clinloom.learn.training import tune

    place = tmp_path_factory.mktemp("models")

    class Made(dict):
        def __missing__(self, name):
            options = quick(name)
            self[name] = tune(name, options, folds, seed=1, by="f1", place=str(place / name))
            return self[name]

    return Made()


def quick(name):
    """A plug-in's own quick options; its test is left out where what it needs is not installed."""
    module = plugins.load("models", name)
    try:
        plugins.check("models", name)
    except MissingDependency as lacking:
        pytest.skip(str(lacking))
    return module.Options.model_validate(module.QUICK)


def answers(pipeline, frame):
    made = pipeline.transform(frame).select("values", "predicted_boolean_probability").collect()
    values, risks = zip(*made, strict=True)
    return np.array(values, np.float64), np.array(risks)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_declares_itself(name):
    module = plugins.load("models", name)
    assert isinstance(module.MISSING, bool) and isinstance(module.CONNECT, bool)
    assert module.TITLE and module.REQUIRES in (None, *extras())
    assert len(module.grid(quick(name))) == 1, "QUICK is a grid of one point"
    assert len(module.grid(module.Options())) >= 1


def extras():
    """The extras that install what plug-ins need."""
    import tomllib
    from pathlib import Path

    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    return tomllib.loads(text)["project"]["optional-dependencies"]


@pytest.mark.parametrize("name", MODELS)
def test_the_scorer_without_spark_equals_the_pipeline(trained, frame, tmp_path, name):
    from clinloom.run.train import scorer_of

    scorer = scorer_of(trained[name])
    values, expected = answers(trained[name].pipeline, frame)
    owed = plugins.load("models", name).TOLERANCE
    assert owed == 1e-9 or name == "xgboost", "another tolerance has a reason"
    assert parity(scorer, values, expected) <= owed
    assert np.std(expected) > 0.01
    again = Scorer.parse(scorer.dump())
    assert np.array_equal(again.score(values), scorer.score(values))
    assert np.isclose(scorer.importance(9).sum(), 1)


@pytest.mark.parametrize("name", MODELS)
def test_the_answer_is_a_sum_over_features(trained, frame, name):
    from clinloom.learn.additive import Columns
    from clinloom.learn.algorithm import algorithm
    from clinloom.learn.calibration import sigmoid
    from clinloom.learn.preparation import prepare
    from clinloom.run.train import scorer_of

    scorer = scorer_of(trained[name])
    values, _ = answers(trained[name].pipeline, frame)
    columns = Columns.of(scorer.statistics, values.shape[1])
    x = prepare(values, scorer.statistics)
    if not algorithm(name).MISSING:
        assert np.abs(columns.mean - x.mean(axis=0)).max() < 1e-9  # all of these rows train
    made = algorithm(name).additive(scorer.arrays, columns)
    total = made.base + made.of(x).sum(axis=1)
    raw = total if made.scale == "probability" else sigmoid(total)
    assert np.abs(raw - algorithm(name).probability(scorer.arrays, x)).max() < 1e-9
    if "cover" in scorer.arrays:
        inner = scorer.arrays["feature"] >= 0
        cover, left, right = (scorer.arrays[n] for n in ("cover", "left", "right"))
        assert (cover[inner] == cover[left[inner]] + cover[right[inner]]).all()
        assert cover.min() >= 1


def test_missing_values_are_missing_to_a_model_that_takes_them(trained, frame):
    from clinloom.learn.preparation import prepare
    from clinloom.run.train import scorer_of

    scorer = scorer_of(trained["xgboost"])
    values, expected = answers(trained["xgboost"].pipeline, frame)
    x = prepare(values, scorer.statistics)
    kept = values[:, scorer.statistics.keep]
    assert scorer.statistics.width == 8 and np.array_equal(np.isnan(x), np.isnan(kept))
    inside = ~np.isnan(x)
    assert np.median(x[inside] == kept[inside]) == 1  # but for those beyond the bounds
    assert np.isnan(answers(trained["xgboost"].pipeline, frame)[0]).any()
    assert np.std(scorer.score(np.full((1, 9), np.nan)) - expected) > 0.01


def test_xgboosts_reasons_are_those_of_its_own_library(trained, frame):
    from clinloom.learn.additive import Columns
    from clinloom.learn.algorithm import algorithm
    from clinloom.learn.preparation import prepare
    from clinloom.run.train import scorer_of

    scorer = scorer_of(trained["xgboost"])
    x = prepare(answers(trained["xgboost"].pipeline, frame)[0], scorer.statistics)
    made = algorithm("xgboost").additive(scorer.arrays, Columns.of(scorer.statistics, 9))
    xgboost = __import__("xgboost")
    booster = trained["xgboost"].pipeline.stages[1].get_booster()
    found = booster.predict(xgboost.DMatrix(x.astype(np.float32)), pred_contribs=True)
    own = made.of(x)[:, scorer.statistics.keep]
    assert np.abs(own - found[:, :-1]).max() < 1e-5 < np.abs(own).max()
    assert np.abs(made.base - found[:, -1]).max() < 1e-5


@pytest.mark.parametrize(
    ("name", "method"),
    [("logistic_regression", m) for m in ("isotonic", "beta", "none")] + [("xgboost", "isotonic")],
)
def test_every_recalibration_is_the_same_in_spark_and_without(
    trained, frame, tmp_path, name, method
):
    from dataclasses import replace

    from pyspark.ml import PipelineModel

    from clinloom.learn import calibration
    from clinloom.learn.risks import Risks
    from clinloom.learn.stages import Calibration
    from clinloom.run.train import scorer_of

    model, margin = trained[name], plugins.load("models", name).MARGIN
    bare = replace(model.settled, calibrator=calibration.Calibrator())
    raw = scorer_of(replace(model, settled=bare))
    labels = frame.select("boolean_value").toPandas()["boolean_value"].to_numpy()
    plain = Calibration.of(calibration.Calibrator(), margin)
    values, risk = answers(PipelineModel([*model.pipeline.stages[:2], plain]), frame)
    learned = calibration.learned(Risks.of(labels, risk), method)
    pipeline = PipelineModel([*model.pipeline.stages[:2], Calibration.of(learned, margin)])
    pipeline.save(str(tmp_path / "spark"))
    scorer = replace(raw, **vars(learned))
    _, expected = answers(PipelineModel.load(str(tmp_path / "spark")), frame)
    assert parity(scorer, values, expected, raw=risk) <= plugins.load("models", name).TOLERANCE
    again = Scorer.parse(scorer.dump())
    assert np.array_equal(again.score(values), scorer.score(values))
    assert (method == "none") == np.allclose(expected, risk)


def test_a_scorer_that_disagrees_is_refused(trained, frame):
    from clinloom.run.train import scorer_of

    scorer = scorer_of(trained["logistic_regression"])
    values, expected = answers(trained["logistic_regression"].pipeline, frame)
    with pytest.raises(ParityError, match="differs from Spark"):
        parity(scorer, values, expected + 1e-8)


def test_a_pipeline_is_saved_and_loaded(trained, frame, tmp_path):
    from pyspark.ml import PipelineModel

    pipeline = trained["random_forest"].pipeline
    pipeline.write().overwrite().save(str(tmp_path / "spark"))
    again = PipelineModel.load(str(tmp_path / "spark"))
    assert np.array_equal(answers(again, frame)[1], answers(pipeline, frame)[1])


def test_partitions_change_nothing_in_the_preparation(frame):
    from clinloom.learn.stages import Preparation

    one, *many = (
        Preparation(parts=n).fit(frame.repartition(n)).statistics.arrays() for n in (1, 3, 17)
    )
    assert all(np.array_equal(one[key], other[key]) for key in one for other in many)
    assert 8 not in one["keep"]  # a feature without a value


def test_partitions_change_nothing_in_the_groups_of_risk(trained, frame):
    from clinloom.learn.training import outputs

    stages = trained["logistic_regression"].pipeline.stages
    labelled = frame.selectExpr("*", "cast(boolean_value as double) label")
    made = stages[0].transform(labelled)
    one, *many = (outputs(stages[1], made.repartition(n), n) for n in (1, 3, 17))
    assert one.exact and one.rows == 400
    for other in many:
        assert all(np.array_equal(getattr(one, n), getattr(other, n)) for n in one.__dict__)


def test_training_rows_keep_every_core_busy_where_there_are_enough():
    from clinloom.learn.training import spread

    mega = 1 << 20
    assert [spread(size * mega, 8) for size in (1, 40, 1000, 4000)] == [1, 3, 8, 16]


def test_what_spark_is_told_of_the_rows_it_asks_no_job_for(folds, spark):
    """Two classes and the number of features: a tree of depth 4 takes 5 jobs less 1 a level."""
    from clinloom.learn.training import fit

    part = folds.part(0)
    assert part.train.schema["features"].metadata["ml_attr"]["num_attrs"] > 8
    part.train.count()  # held from here on
    spark.sparkContext.setJobGroup("one fit", "")
    try:
        fit("decision_tree", quick("decision_tree"), {"maxDepth": 4}, part, seed=1)
        jobs = spark.sparkContext.statusTracker().getJobIdsForGroup("one fit")
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    assert len(jobs) <= 7


def test_a_tree_model_without_nodes_is_refused(trained, tmp_path):
    """Executors that write to a disk of their own leave the driver an empty model."""
    from clinloom.spark import trees

    model = trained["decision_tree"].pipeline.stages[1]
    made = trees.nodes(model, str(tmp_path / "model"))
    assert made.num_rows == model.numNodes
    for file in (tmp_path / "model" / "data").glob("*.parquet"):
        file.unlink()
    with pytest.raises(StoreError, match="without a node"):
        trees.read(tmp_path / "model")


def test_features_missing_from_the_same_rows_share_an_indicator():
    from clinloom.learn.preparation import learn

    values = np.random.default_rng(3).normal(size=(100, 5))
    values[::3, 1:3] = np.nan
    values[::4, 4] = np.nan
    assert learn(values, lower=0.0, upper=1.0).indicator.tolist() == [1, 4]
    assert learn(values, lower=0.0, upper=1.0, use=[2, 3]).indicator.tolist() == [2]


def test_the_preparation_composes_with_a_pipeline_of_the_users_own(frame):
    from pyspark.ml import Pipeline
    from pyspark.ml.classification import LogisticRegression

    from clinloom.learn.stages import Preparation

    labelled = frame.selectExpr("values", "cast(boolean_value as double) label")
    fitted = Pipeline(stages=[Preparation(), LogisticRegression(maxIter=5)]).fit(labelled)
    assert fitted.transform(labelled).count() == 400
