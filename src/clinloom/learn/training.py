"""Tuning and training: patient-grouped folds, one preparation a fold, recalibration, threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from clinloom import plugins
from clinloom.learn import calibration
from clinloom.learn.stages import Calibration, Preparation, PreparationModel
from clinloom.spark.session import at_once, cores, to_arrow

KEYS = ("subject_id", "prediction_time")


@dataclass(frozen=True)
class Part:
    """Prepared rows of a fold: to train on, and (but for the whole) to validate on."""

    preparation: PreparationModel
    train: DataFrame
    valid: DataFrame | None
    positive: int
    negative: int


@dataclass(frozen=True)
class Trained:
    """A trained model: the Spark pipeline, its flat arrays, and what the folds said."""

    name: str
    point: dict[str, Any]
    fold_auroc: list[float]
    pipeline: PipelineModel
    arrays: Mapping[str, np.ndarray]
    slope: float
    intercept: float
    threshold: float


class Folds:
    """The training rows, prepared once a fold and shared by every model.

    ``frame``: subject_id, prediction_time, label (double), values, fold. Each fold's preparation
    is learned without the rows it validates on.
    """

    def __init__(self, frame: DataFrame, *, folds: int, use: Sequence[int] = ()):
        self.frame, self.folds, self.use = frame, folds, list(use)
        self._held: list[DataFrame] = []
        self._parts: dict[int | None, Part] = {}

    def part(self, fold: int | None) -> Part:
        """The part that leaves out ``fold``; None: all training rows."""
        if fold not in self._parts:
            rows = self.frame if fold is None else self.frame.where(F.col("fold") != fold)
            fitted = Preparation(use=self.use).fit(rows)
            counts = {r["label"]: r["count"] for r in rows.groupBy("label").count().collect()}
            valid = None
            if fold is not None:
                valid = self._keep(fitted.transform(self.frame.where(F.col("fold") == fold)))
            train = self._keep(fitted.transform(rows))
            part = Part(fitted, train, valid, counts.get(1.0, 0), counts.get(0.0, 0))
            self._parts[fold] = part
        return self._parts[fold]

    def _keep(self, frame: DataFrame) -> DataFrame:
        kept = frame.select(*KEYS, "label", "features").persist()
        self._held.append(kept)
        return kept

    def close(self) -> None:
        """Let go of the prepared rows."""
        for frame in self._held:
            frame.unpersist()
        self._held, self._parts = [], {}


@contextmanager
def prepared(frame: DataFrame, *, folds: int, use: Sequence[int] = ()) -> Iterator[Folds]:
    """The folds of ``frame`` while they are needed."""
    held = Folds(frame, folds=folds, use=use)
    try:
        yield held
    finally:
        held.close()


def training_rows(dataset: DataFrame, fold: Any, *, rows: int, width: int) -> DataFrame:
    """The training rows in an arrangement that does not depend on how they were stored.

    ``fold``: a Column. Few partitions: as many as the bytes ask for, at most one a core.
    """
    parts = max(1, min(cores(dataset.sparkSession), math.ceil(rows * width * 8 / (16 << 20))))
    frame = dataset.where("split = 'train'").select(
        *KEYS, F.col("boolean_value").cast("double").alias("label"), "values", fold.alias("fold")
    )
    return frame.repartition(parts, "subject_id").sortWithinPartitions(*KEYS)


def fit(name: str, options: Any, point: dict[str, Any], part: Part, *, seed: int) -> Any:
    """Fit one point on a part's training rows, the rarer class weighted up."""
    module = plugins.load("models", name)
    width = part.preparation.statistics.width
    estimator = module.estimator(options, point, features=width, seed=seed)
    train = part.train
    if options.imbalance == "weight" and part.positive and part.negative:
        total = part.positive + part.negative
        if module.WEIGHTS:
            up, down = total / (2 * part.positive), total / (2 * part.negative)
            weight = F.when(F.col("label") == 1.0, F.lit(up)).otherwise(F.lit(down))
            train = train.withColumn("weight", weight)
            estimator = estimator.setWeightCol("weight")
        else:
            more = max(part.positive, part.negative) / min(part.positive, part.negative)
            rare = 1.0 if part.positive < part.negative else 0.0
            times = F.when(F.col("label") == rare, F.lit(round(more))).otherwise(F.lit(1))
            copies = F.explode(F.array_repeat(F.lit(1), times.cast("int")))
            train = train.withColumn("_copy", copies).drop("_copy")
    return estimator.fit(train)


def tune(name: str, options: Any, folds: Folds, *, seed: int, by: str) -> Trained:
    """The best point over the folds, recalibrated, with its threshold, fitted on all rows.

    ``by``: how the threshold is chosen on out-of-fold predictions, "f1" or "youden".
    """
    module = plugins.load("models", name)
    parts = [folds.part(fold) for fold in range(folds.folds)]
    parts = [part for part in parts if part.positive and part.negative]

    def judge(point: dict[str, Any], part: Part) -> tuple[np.ndarray, np.ndarray]:
        return outputs(fit(name, options, point, part, seed=seed), part.valid)

    points = module.grid(options)
    tasks = [partial(judge, point, part) for point in points for part in parts]
    made = iter(at_once(folds.frame.sparkSession, tasks))
    found = []
    for point in points:
        label, risk = zip(*islice(made, len(parts)), strict=True)
        aurocs = [auroc(y, p) for y, p in zip(label, risk, strict=True) if 0 < y.sum() < len(y)]
        found.append((float(np.mean(aurocs)) if aurocs else 0.5, point, aurocs, label, risk))
    _, point, aurocs, label, risk = max(found, key=lambda f: f[0])
    y, p = np.concatenate(label), np.concatenate(risk)
    slope, intercept = calibration.learn(p, y)
    threshold = calibration.threshold(calibration.apply(p, slope, intercept), y, by=by)
    whole = folds.part(None)
    model = fit(name, options, point, whole, seed=seed)
    stages = [whole.preparation, model, Calibration(slope=slope, intercept=intercept)]
    arrays = module.flatten(model)
    return Trained(name, point, aurocs, PipelineModel(stages), arrays, slope, intercept, threshold)


def outputs(model: Any, frame: DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Labels and raw probabilities (n,) of prepared rows, in the order of subject and time."""
    made = model.transform(frame)
    made = made.select(*KEYS, "label", vector_to_array("probability")[1].alias("p"))
    rows = to_arrow(made).sort_by([(key, "ascending") for key in KEYS])
    return rows.column("label").to_numpy(), rows.column("p").to_numpy()


def auroc(label: np.ndarray, p: np.ndarray) -> float:
    """The area under the ROC curve by midranks (Mann and Whitney, 1947)."""
    values, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = label.sum()
    return float(
        (rank[label == 1].sum() - positive * (positive + 1) / 2)
        / (positive * (len(label) - positive))
    )
