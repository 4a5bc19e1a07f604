"""Tuning and training: patient-grouped folds, one preparation a fold, recalibration, threshold.

What the folds say comes back as groups of equal risk (``learn.risks``), never as rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from clinloom import files
from clinloom.learn import calibration, risks
from clinloom.learn.algorithm import algorithm
from clinloom.learn.calibration import Calibrator
from clinloom.learn.preparation import Statistics
from clinloom.learn.risks import Risks
from clinloom.learn.stages import Calibration, Preparation, PreparationModel, raw_risk
from clinloom.spark import saved, trees, workers
from clinloom.spark.session import at_once

KEYS = ("subject_id", "prediction_time")
SMALL, LARGE = 16 << 20, 256 << 20  # bytes of a partition of training rows
HELD = 1_000_000  # distinct risks that a worker holds before it merges neighbours


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
    calibrator: Calibrator
    threshold: float

    @property
    def statistics(self) -> Statistics:
        """What the pipeline's preparation learned."""
        return cast(PreparationModel, self.pipeline.stages[0]).statistics


class Folds:
    """The training rows, prepared once a fold and shared by every model.

    ``frame``: subject_id, prediction_time, label (double), values, fold, in ``parts`` partitions.
    Each fold's preparation is learned without the rows it validates on.
    """

    def __init__(self, frame: DataFrame, *, folds: int, use: Sequence[int] = (), parts: int = 64):
        self.frame, self.folds, self.use, self.parts = frame, folds, list(use), parts
        self._held: list[DataFrame] = []
        self._fitted: dict[int | None, PreparationModel] = {}
        self._ready: dict[tuple[int | None, bool], Part] = {}

    @cached_property
    def _counts(self) -> dict[tuple[int, float], int]:
        """Rows of each fold and label."""
        rows = self.frame.groupBy("fold", "label").count().collect()
        return {(row["fold"], row["label"]): row["count"] for row in rows}

    def part(self, fold: int | None, *, missing: bool = False) -> Part:
        """The part that leaves out ``fold``; None: all training rows.

        ``missing``: for models that take missing values as such.
        """
        key = fold, missing
        if key not in self._ready:
            fitted = self._preparation(fold)
            fitted = fitted.unfilled() if missing else fitted
            train, valid = self._keep(fitted.transform(self.frame), fitted.statistics.width), None
            if fold is not None:  # prepared in one pass, as the rows are to learn from
                valid = train.where(F.col("fold") == fold)
                train = train.where(F.col("fold") != fold)
            positive, negative = (
                sum(n for (at, label), n in self._counts.items() if at != fold and label == one)
                for one in (1.0, 0.0)
            )
            self._ready[key] = Part(fitted, train, valid, positive, negative)
        return self._ready[key]

    def _preparation(self, fold: int | None) -> PreparationModel:
        """What is learned without the rows of ``fold``."""
        if fold not in self._fitted:
            rows = self.frame if fold is None else self.frame.where(F.col("fold") != fold)
            self._fitted[fold] = Preparation(use=self.use, parts=self.parts).fit(rows)
        return self._fitted[fold]

    def _keep(self, frame: DataFrame, width: int) -> DataFrame:
        """The rows, held; Spark is told what it would ask a job of its own each: two classes, and
        how many features."""
        told = {"label": {"type": "nominal", "vals": ["0", "1"]}, "features": {"num_attrs": width}}
        columns = [F.col(n).alias(n, metadata={"ml_attr": told[n]}) for n in ("label", "features")]
        kept = frame.select(*KEYS, "fold", *columns).persist()
        self._held.append(kept)
        return kept

    def close(self) -> None:
        """Let go of the prepared rows."""
        for frame in self._held:
            frame.unpersist()
        self._held, self._ready, self._fitted = [], {}, {}


@contextmanager
def prepared(
    frame: DataFrame, *, folds: int, use: Sequence[int] = (), parts: int = 64
) -> Iterator[Folds]:
    """The folds of ``frame`` while they are needed."""
    held = Folds(frame, folds=folds, use=use, parts=parts)
    try:
        yield held
    finally:
        held.close()


def spread(size: int, cores: int) -> int:
    """Into how many partitions ``size`` bytes of training rows go.

    One a core, as every pass of a fit then keeps every core busy; but none smaller than 16 MB,
    where handing out a partition takes longer than its rows, and none larger than 256 MB.
    """
    return max(1, min(cores, math.ceil(size / SMALL)), math.ceil(size / LARGE))


def training_rows(dataset: DataFrame, fold: Any, *, parts: int) -> DataFrame:
    """The training rows in ``parts`` partitions, in an arrangement that does not depend on how
    they were stored; ``fold``: a Column."""
    frame = dataset.where("split = 'train'").select(
        *KEYS, F.col("boolean_value").cast("double").alias("label"), "values", fold.alias("fold")
    )
    return frame.repartition(parts, "subject_id").sortWithinPartitions(*KEYS)


def fit(name: str, options: Any, point: dict[str, Any], part: Part, *, seed: int) -> Any:
    """Fit one point on a part's training rows, the rarer class weighted up."""
    module = algorithm(name)
    width = part.preparation.statistics.width
    estimator = module.estimator(options, point, features=width, seed=seed)
    train = part.train
    if options.imbalance == "weight" and part.positive and part.negative:
        total = part.positive + part.negative
        if module.WEIGHTS:
            up, down = total / (2 * part.positive), total / (2 * part.negative)
            weight = F.when(F.col("label") == 1.0, F.lit(up)).otherwise(F.lit(down))
            train = train.withColumn("weight", weight)
            estimator.set(estimator.getParam("weightCol"), "weight")
        else:
            more = max(part.positive, part.negative) / min(part.positive, part.negative)
            rare = 1.0 if part.positive < part.negative else 0.0
            times = F.when(F.col("label") == rare, F.lit(round(more))).otherwise(F.lit(1))
            copies = F.explode(F.array_repeat(F.lit(1), times.cast("int")))
            train = train.withColumn("_copy", copies).drop("_copy")
    if workers := getattr(options, "workers", None):  # a library's own tasks, each of a partition
        train = train.coalesce(workers)
    return estimator.fit(train)


def tune(
    name: str,
    options: Any,
    folds: Folds,
    *,
    seed: int,
    by: str,
    place: str,
    method: calibration.Method = "platt",
) -> Trained:
    """The best point over the folds, recalibrated, with its threshold, fitted on all rows.

    ``by``: how the threshold is chosen on out-of-fold predictions, "f1" or "youden"; ``place``: an
    address that driver and workers share, where the pipeline is saved; ``method``: how risks are
    recalibrated.
    """
    module = algorithm(name)
    parts = [folds.part(fold, missing=module.MISSING) for fold in range(folds.folds)]
    parts = [part for part in parts if part.positive and part.negative]

    def judge(point: dict[str, Any], part: Part) -> Risks:
        valid = cast(DataFrame, part.valid)  # what a fold leaves out
        model = fit(name, options, point, part, seed=seed)
        return outputs(model, valid, folds.parts, margin=module.MARGIN)

    points = module.grid(options)
    tasks = [partial(judge, point, part) for point in points for part in parts]
    made = at_once(folds.frame.sparkSession, tasks)
    best, point, aurocs, told = -1.0, points[0], list[float](), list[Risks]()
    for each in points:  # of the others nothing is held: risks grow with the rows
        risks_of = list(islice(made, len(parts)))
        areas = [area for area in (one.auroc() for one in risks_of) if not math.isnan(area)]
        mean = float(np.mean(areas)) if areas else 0.5
        if mean > best:
            best, point, aurocs, told = mean, each, areas, risks_of
    together = Risks.merge(told)
    calibrator = calibration.learned(together, method)
    threshold = calibration.threshold(together.mapped(calibrator), by=by)
    whole = folds.part(None, missing=module.MISSING)
    model = fit(name, options, point, whole, seed=seed)
    stages = [whole.preparation, model, Calibration.of(calibrator, module.MARGIN)]
    pipeline = PipelineModel(stages)
    saved.save(pipeline, files.address(place))
    arrays = module.flatten(model, lambda: trees.read(f"{place}/stages/1_{model.uid}"))
    return Trained(name, point, aurocs, pipeline, arrays, calibrator, threshold)


def flattened(name: str, model: Any, place: str) -> Mapping[str, np.ndarray]:
    """The arrays of a fitted model; ``place``: an address that driver and workers share."""
    module = algorithm(name)
    return module.flatten(model, lambda: trees.nodes(model, f"{place}/{name}"))


def outputs(model: Any, frame: DataFrame, parts: int, *, margin: float | None = None) -> Risks:
    """The raw risks of prepared rows and their labels, grouped in the workers."""
    made = model.transform(frame).select("label", raw_risk(margin).alias("p"))
    found = workers.summed(made, _grouped, risks.merged, parts=parts)
    return Risks.read(found) if found is not None else Risks.none()


def _grouped(tables: Iterable[pa.Table]) -> pa.Table | None:
    """A partition's ``label`` and ``p`` as groups of equal risk."""
    held = Risks.none()
    for table in tables:
        more = Risks.of(table.column("label").to_numpy(), table.column("p").to_numpy())
        held = Risks.merge([held, more])
        if len(held.score) > HELD:
            held = held.compact()
    return held.compact().table() if held.rows else None
