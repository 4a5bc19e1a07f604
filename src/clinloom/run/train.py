"""The steps from the integrated dataset to an evaluated model and its bundle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from clinloom import files
from clinloom.cohort.split import fold_seed
from clinloom.deploy.scorer import Scorer, difference, held
from clinloom.features import Feature
from clinloom.learn.algorithm import algorithm
from clinloom.run.work import Tables, Work, plain
from clinloom.spark import workers
from clinloom.store import Pending, Stored
from clinloom.study import Study
from clinloom.tables import DATASET, matrix

if TYPE_CHECKING:
    from clinloom.learn.training import Folds, Trained

PARITY_ROWS = 5000  # rows on which the scorer is held against Spark
MODALITIES = ("records", "images")


def train(
    work: Work, study: Study, dataset: Tables, features: Sequence[Feature]
) -> dict[str, Tables]:
    """Tune and fit every model, each a step of its own; refuse one whose scorer disagrees."""
    shared = Shared(work, study, dataset, features)

    def one(name: str) -> Tables:
        return work.step(
            f"train/{name}",
            lambda out: _train(work, study, dataset, shared, name, out),
            options=[
                plain(study.models[name]),
                plain(study.split),
                study.seed,
                study.evaluate.threshold,
                study.calibration,
            ],
            inputs={"features": work.keys["features"]},
            uses=[("models", name)],
        )

    try:
        return {name: one(name) for name in study.models}
    finally:
        shared.close()


class Shared:
    """The prepared folds, made when the first model needs them.

    The training rows are read and spread once, for every fold and every choice of features: Spark
    holds them on its own disks.
    """

    def __init__(self, work: Work, study: Study, dataset: Tables, features: Sequence[Feature]):
        self.work, self.study, self.dataset, self.width = work, study, dataset, len(features)
        self._rows: tuple[Any, int] | None = None
        self._held: dict[tuple[int, ...], Folds] = {}

    def folds(self, use: Sequence[int] = ()) -> Folds:
        """The folds, of all features or of those that ``use`` numbers."""
        from clinloom.learn.training import Folds

        key = tuple(use)
        if key not in self._held:
            rows, parts = self._spread()
            self._held[key] = Folds(rows, folds=self.study.split.folds, use=use, parts=parts)
        return self._held[key]

    def _spread(self) -> tuple[Any, int]:
        """The training rows, a DataFrame, and in how many partitions they lie."""
        from clinloom.learn.training import spread, training_rows
        from clinloom.spark.session import cores
        from clinloom.spark.shuffle import ON_DISK

        if self._rows is None:
            table, spark = self.dataset["dataset"], self.work.spark
            parts = spread((table.rows or 0) * self.width * 8, cores(spark))
            salt = json.loads(self.dataset["sides"].text("sides.json"))["fold"]
            frame = with_fold(workers.read(spark, table, DATASET), self.study, salt)
            rows = training_rows(frame, _column("fold"), parts=parts).persist(ON_DISK)
            self._rows = rows, parts
        return self._rows

    def close(self) -> None:
        """Let go of the rows, prepared and not."""
        for folds in self._held.values():
            folds.close()
        if self._rows is not None:
            self._rows[0].unpersist()
        self._held, self._rows = {}, None


def _column(name: str) -> Any:
    from pyspark.sql import functions as F

    return F.col(name)


def with_fold(frame: Any, study: Study, salt: int = 0) -> Any:
    """The dataset with each patient's fold, as ``cohort.split.fold`` has it."""
    from pyspark.sql import functions as F

    seed = F.lit(fold_seed(study.seed, salt)).cast("long")
    buckets = F.pmod(F.xxhash64(seed, F.col("subject_id")), F.lit(2**31))
    return frame.withColumn("fold", F.floor(buckets * study.split.folds / F.lit(2.0**31)))


def _train(
    work: Work, study: Study, dataset: Tables, shared: Shared, name: str, out: Pending
) -> None:
    from clinloom.learn import training

    model = f"models.{name}"
    trained = training.tune(
        name,
        study.models[name],
        shared.folds(),
        seed=study.seed,
        by=study.evaluate.threshold,
        place=str(out.folder(model, "spark")),
        method=study.calibration,
    )
    scorer = scorer_of(trained)
    worst = _agree(work, dataset, trained, scorer)
    out.put(model, "scorer.npz", scorer.dump())
    found = {
        "title": algorithm(name).TITLE,
        "point": trained.point,
        "fold_auroc": float(np.mean(trained.fold_auroc)) if trained.fold_auroc else None,
        "folds": trained.fold_auroc,
        "threshold": trained.threshold,
        "parity": worst,
    }
    out.put(model, "trained.json", json.dumps(found))


def selected(models: Mapping[str, Tables]) -> str:
    """The model that the folds say is best."""
    return max(models, key=lambda name: told(models, name)["fold_auroc"] or 0.0)


def told(models: Mapping[str, Tables], name: str) -> dict[str, Any]:
    """What the folds said of a model: its point, threshold and areas."""
    found: dict[str, Any] = json.loads(model_of(models, name).text("trained.json"))
    return found


def scorer(models: Mapping[str, Tables], name: str) -> Scorer:
    """A trained model's scorer."""
    return _scorer(model_of(models, name), "scorer.npz")


def model_of(models: Mapping[str, Tables], name: str) -> Stored:
    """A trained model as it was committed."""
    return models[name][f"models.{name}"]


def _scorer(stored: Stored, name: str) -> Scorer:
    return Scorer.parse(files.read(stored.file(name)))


def modalities(
    work: Work,
    study: Study,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
) -> dict[str, Scorer]:
    """The selected model fitted on records only and on images only, where there are both.

    They are raw: neither recalibrated nor held against a threshold of their own.
    """
    use = {m: [i for i, f in enumerate(features) if f.modality == m] for m in MODALITIES}
    if not study.evaluate.modalities or not all(use.values()):
        return {}
    name = selected(models)

    def do(out: Pending) -> None:
        from clinloom.learn import training

        point, place = told(models, name)["point"], out.scratch("trees")
        shared = Shared(work, study, dataset, features)
        try:
            for kind in MODALITIES:
                part = shared.folds(use[kind]).part(None, missing=algorithm(name).MISSING)
                model = training.fit(name, study.models[name], point, part, seed=study.seed)
                arrays = training.flattened(name, model, str(place / kind))
                shared.folds(use[kind]).close()
                made = Scorer(name, part.preparation.statistics, arrays, 1.0, 0.0, 0.5)
                out.put("modalities", f"{kind}.npz", made.dump())
        finally:
            shared.close()

    options = [plain(study.models[name]), study.seed]
    made = work.step("modalities", do, options=options, inputs=keys(work, models, "features"))
    return {kind: _scorer(made["modalities"], f"{kind}.npz") for kind in MODALITIES}


def keys(work: Work, models: Mapping[str, Tables], *more: str) -> dict[str, str]:
    """What depends on every model depends on these steps."""
    return {step: work.keys[step] for step in (*more, *(f"train/{name}" for name in models))}


def scorer_of(trained: Trained) -> Scorer:
    """The scorer of a trained model."""
    return Scorer(
        model=trained.name,
        statistics=trained.statistics,
        arrays=trained.arrays,
        threshold=trained.threshold,
        **vars(trained.calibrator),
    )


def _agree(work: Work, dataset: Tables, trained: Trained, scorer: Scorer) -> float:
    """The parity gate: the scorer against ``PipelineModel.transform``, in workers."""
    frame = workers.read(work.spark, dataset["dataset"], DATASET).limit(PARITY_ROWS)
    made = trained.pipeline.transform(frame).select("values", "predicted_boolean_probability")
    found = workers.summed(made, partial(_off, scorer=scorer), _worst, parts=1)
    return held(scorer, found.column("worst")[0].as_py() if found is not None else 0.0)


def _off(tables: Iterable[pa.Table], *, scorer: Scorer) -> pa.Table:
    """How far the scorer's risks of some rows lie from Spark's, at most; NaN where one is."""
    found = [
        difference(scorer, matrix(rows), rows.column("predicted_boolean_probability").to_numpy())
        for rows in tables
    ]
    return pa.table({"worst": [float(np.max([0.0, *found]))]})


def _worst(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.table({"worst": [float(np.max(pa.concat_tables(tables).column("worst").to_numpy()))]})
