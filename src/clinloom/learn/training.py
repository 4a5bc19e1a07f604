"""Tuning and training: patient-grouped folds, one preparation a fold, recalibration, threshold.

What the folds say comes back as groups of equal risk (``learn.risks``), never as rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from clinloom import files
from clinloom.errors import DataError
from clinloom.learn import calibration, risks
from clinloom.learn.algorithm import algorithm
from clinloom.learn.calibration import Calibrator
from clinloom.learn.preparation import Statistics
from clinloom.learn.risks import Risks
from clinloom.learn.search import NOWHERE, Cell, Failed, Found, Kept, Left, Point, drawn, search
from clinloom.learn.stages import Calibration, Preparation, PreparationModel, raw_risk
from clinloom.spark import saved, trees, workers
from clinloom.spark.session import at_once
from clinloom.study import Tune

KEYS = ("subject_id", "prediction_time")
WHOLE = Tune()
SMALL, LARGE = 16 << 20, 256 << 20  # bytes of a partition of training rows
HELD = 1_000_000  # distinct risks that a worker holds before it merges neighbours


@dataclass(frozen=True)
class Part:
    """Prepared rows of a fit: to train on, and to validate on for the model that judges a part."""

    preparation: PreparationModel
    train: DataFrame
    valid: Mapping[Cell, DataFrame]
    positive: int
    negative: int


@dataclass(frozen=True)
class Settled:
    """What the folds said: a point, its areas, and what was learned from its risks there."""

    point: dict[str, Any]
    fold_auroc: list[float]
    calibrator: Calibrator
    threshold: float

    def plain(self) -> dict[str, Any]:
        """It as plain data."""
        learned = {k: v.tolist() if k == "curve" else v for k, v in vars(self.calibrator).items()}
        return {**vars(self), "calibrator": learned}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Settled:
        """The inverse of :meth:`plain`."""
        learned = told["calibrator"]
        curve = np.array(learned["curve"], np.float64).reshape(2, -1)
        return cls(**{**told, "calibrator": Calibrator(**{**learned, "curve": curve})})


@dataclass(frozen=True)
class Trained:
    """A trained model: the Spark pipeline, its flat arrays, and what the folds said."""

    name: str
    settled: Settled
    pipeline: PipelineModel
    arrays: Mapping[str, np.ndarray]

    @property
    def statistics(self) -> Statistics:
        """What the pipeline's preparation learned."""
        return cast(PreparationModel, self.pipeline.stages[0]).statistics


class Folds:
    """The rows of a repeat, prepared once for each way to leave some out, shared by every model.

    ``frame``: subject_id, prediction_time, label (double), values, fold, part, in ``parts``
    partitions. Each preparation is learned without the rows that are left out. ``crossed``: the
    parts are the folds.
    """

    def __init__(
        self,
        frame: DataFrame,
        *,
        folds: int,
        use: Sequence[int] = (),
        parts: int = 64,
        crossed: bool = False,
    ):
        self.frame, self.folds, self.use, self.parts = frame, folds, list(use), parts
        self.crossed = crossed
        self._held: list[DataFrame] = []
        self._fitted: dict[tuple[int | None, int | None], PreparationModel] = {}
        self._ready: dict[tuple[int | None, int | None, bool], Part] = {}

    @cached_property
    def _counts(self) -> dict[tuple[int, int, float], int]:
        """Rows of each part, fold and label."""
        rows = self.frame.groupBy("part", "fold", "label").count().collect()
        return {(row["part"], row["fold"], row["label"]): row["count"] for row in rows}

    def part(
        self,
        fold: int | None,
        part: int | None = None,
        cells: Sequence[Cell] = (),
        *,
        missing: bool = False,
    ) -> Part:
        """The rows without those of ``fold`` and of ``part``; None: of none.

        ``cells``: what is validated, where it is; the fold's, but for rows of the part.
        ``missing``: for models that take missing values as such.
        """
        key = fold, part, missing
        if key not in self._ready:
            out = F.lit(False)
            for name, value in (("fold", fold), ("part", part)):
                if value is not None:
                    out = out | (F.col(name) == value)
            seen = self.frame
            if part is not None and not (self.crossed and cells):  # where its rows validate, too
                seen = seen.where(F.col("part") != part)
            if key[:2] not in self._fitted:
                learned = Preparation(use=self.use, parts=self.parts).fit(self.frame.where(~out))
                self._fitted[key[:2]] = learned
            fitted = self._fitted[key[:2]]
            fitted = fitted.unfilled() if missing else fitted
            # in one pass, to learn from and to validate
            kept = self._keep(fitted.transform(seen), fitted.statistics.width)
            train = kept.where(~out)
            valid = {
                cell: kept.where((F.col("fold") == cell.fold) & (F.col("part") != cell.part))
                for cell in cells
            }
            positive, negative = (
                sum(
                    n
                    for (of, at, label), n in self._counts.items()
                    if at != fold and of != part and label == one
                )
                for one in (1.0, 0.0)
            )
            self._ready[key] = Part(fitted, train, valid, positive, negative)
        return self._ready[key]

    def left(self, left: Left, *, missing: bool = False) -> Part:
        """The rows of a fit that tunes."""
        return self.part(left.fold, left.part, left.cells, missing=missing)

    def _keep(self, frame: DataFrame, width: int) -> DataFrame:
        """The rows, held; Spark is told what it would ask a job of its own each: two classes, and
        how many features."""
        told = {"label": {"type": "nominal", "vals": ["0", "1"]}, "features": {"num_attrs": width}}
        columns = [F.col(n).alias(n, metadata={"ml_attr": told[n]}) for n in ("label", "features")]
        kept = frame.select(*KEYS, "fold", "part", *columns).persist()
        self._held.append(kept)
        return kept

    def close(self) -> None:
        """Let go of the prepared rows."""
        for frame in self._held:
            frame.unpersist()
        self._held, self._ready, self._fitted = [], {}, {}


@contextmanager
def prepared(
    frame: DataFrame,
    *,
    folds: int,
    use: Sequence[int] = (),
    parts: int = 64,
    crossed: bool = False,
) -> Iterator[Folds]:
    """The folds of ``frame`` while they are needed."""
    held = Folds(frame, folds=folds, use=use, parts=parts, crossed=crossed)
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


def training_rows(dataset: DataFrame, fold: Any, *, parts: int, part: Any = None) -> DataFrame:
    """The rows of either side in ``parts`` partitions, in an arrangement that does not depend on
    how they were stored; ``fold`` and ``part``: Columns (none: no row is judged)."""
    part = F.lit(NOWHERE) if part is None else part
    label = F.col("boolean_value").cast("double").alias("label")
    frame = dataset.where("split is not null").select(
        *KEYS, label, "values", fold.alias("fold"), part.alias("part")
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


def settle(
    name: str,
    options: Any,
    folds: Sequence[Folds],
    fits: Sequence[Left],
    *,
    seed: int,
    by: str,
    method: calibration.Method = "platt",
    how: Tune = WHOLE,
    kept: Kept | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[dict[int | None, Settled], list[str]]:
    """What the folds say is best for each part and, by None, for the model of all rows.

    ``folds``: of each repeat; ``by``: how the threshold is chosen on out-of-fold predictions, "f1"
    or "youden"; ``method``: how risks are recalibrated. Answers also the points that failed. For a
    part only rows of other parts decide. The model of all rows has the point, calibration and
    threshold that all of these fits together say are best: no fit is made for it. Nested is so what
    is learned of a point, and the preparation; not the list of features, which no outcome decides.
    """
    module = algorithm(name)
    points = drawn(module.grid(options), how, seed=seed)

    def judge(point: Point, left: Left) -> Mapping[Cell, Risks] | Failed:
        of = folds[left.repeat]
        part = of.left(left, missing=module.MISSING)
        if not (part.positive and part.negative):
            return {cell: Risks.none() for cell in left.cells}
        try:
            model = fit(name, options, point, part, seed=seed)
            return {
                cell: outputs(model, part.valid[cell], of.parts, margin=module.MARGIN)
                for cell in left.cells
            }
        except Exception as error:  # of whatever kind: it is told, and raised where all fail
            return Failed(error)

    def fitted(wanted: Iterable[tuple[Point, Left]]) -> Iterator[Mapping[Cell, Risks] | Failed]:
        tasks = (partial(judge, point, left) for point, left in wanted)
        return at_once(folds[0].frame.sparkSession, tasks)

    for left in fits:  # prepared one after another, before they are fitted side by side
        folds[left.repeat].left(left, missing=module.MISSING)
    halving = how.search == "halving"
    asked: dict[str, Any] = {"halving": halving, "kept": {} if kept is None else kept, "note": note}
    found = search(points, fits, fitted, **asked)
    parts = sorted({cell.part for left in fits for cell in left.cells})
    failed = [f"{point}: {found.failed[n]}" for n, point in enumerate(points) if n in found.failed]
    return {part: _settled(found, part, by, method) for part in (*parts, None)}, failed


def _settled(found: Found, part: int | None, by: str, method: calibration.Method) -> Settled:
    number, areas = found.best(part)
    told = found.risks(number, part)
    if not told.rows:
        raise DataError(
            "the rows that tune a model for a part hold a single class",
            where="split",
            mend="fewer folds, `stratify: true`, or a wider outcome gives every fold both",
        )
    calibrator = calibration.learned(told, method)
    threshold = calibration.threshold(told.mapped(calibrator), by=by)
    return Settled(dict(found.points[number]), areas, calibrator, threshold)


def trained(
    name: str, options: Any, settled: Settled, part: Part, *, seed: int, place: str
) -> Trained:
    """A model fitted as it was settled; ``place``: an address that driver and workers share, where
    the pipeline is saved."""
    module = algorithm(name)
    model = fit(name, options, settled.point, part, seed=seed)
    recalibrated = Calibration.of(settled.calibrator, module.MARGIN)
    pipeline = PipelineModel([part.preparation, model, recalibrated])
    saved.save(pipeline, files.address(place))
    arrays = module.flatten(model, lambda: trees.read(f"{place}/stages/1_{model.uid}"))
    return Trained(name, settled, pipeline, arrays)


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
    """The best point over the folds of rows of which none is judged, fitted on all of them."""
    fits = [Left(0, None, fold, (Cell(0, fold),), fold) for fold in range(folds.folds)]
    found, _ = settle(name, options, [folds], fits, seed=seed, by=by, method=method)
    whole = folds.part(None, missing=algorithm(name).MISSING)
    return trained(name, options, found[None], whole, seed=seed, place=place)


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
