"""Tuning over patient-grouped folds: Clinloom's search beside pyspark's CrossValidator.

    python bench/tuning.py out 20 5

``out``: a finished run, for the training rows of its dataset. Tries so many points of logistic
regression and of a random forest in so many folds, by Clinloom (one preparation a fold, shared by
every point and model) and by ``CrossValidator`` over the same pipeline (preparation, classifier)
with the same folds (``foldCol``) and two fits at once; prints seconds, processor seconds of the JVM
and all Python workers, the ratio of each, and that both chose the same point.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clinloom.cohort.division import Division
from clinloom.learn.algorithm import algorithm
from clinloom.spark.session import session
from clinloom.store import finished

LANES = 2


def points(name: str, count: int) -> list[dict[str, Any]]:
    """A grid of so many points."""
    if name == "logistic_regression":
        grid = [{"regParam": 10 ** -(1 + r / 2), "elasticNetParam": e / 4}
                for r in range(5) for e in range(4)]  # fmt: skip
    else:
        grid = [{"numTrees": t, "maxDepth": d, "minInstancesPerNode": m}
                for t in (20, 40) for d in range(3, 8) for m in (1, 5)]  # fmt: skip
    assert count <= len(grid), f"at most {len(grid)} points"
    return grid[:count]


@contextmanager
def measured(said: str, into: dict[str, tuple[float, float]]) -> Iterator[None]:
    """Seconds on the clock, and of the processors, of this process and all below it."""
    start, worked = time.perf_counter(), _worked()
    yield
    into[said] = time.perf_counter() - start, _worked() - worked
    print(f"{said:32} {into[said][0]:8.1f} s, processors {into[said][1]:8.1f} s", flush=True)


def _worked() -> float:
    """Processor seconds of this process and its descendants, those that ended included."""
    ticks = os.sysconf("SC_CLK_TCK")
    of, parents = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        number = int(stat.parent.name)
        parents[number], of[number] = int(fields[1]), sum(map(int, fields[11:15])) / ticks
    mine = {os.getpid()}
    while more := {n for n, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(of[number] for number in mine)


def main(out: str, count: int, folds: int) -> None:
    """Tune by both, and compare."""
    from pyspark.ml import Pipeline
    from pyspark.ml.evaluation import BinaryClassificationEvaluator
    from pyspark.ml.tuning import CrossValidator
    from pyspark.sql import functions as F

    from clinloom.learn import training
    from clinloom.learn.stages import Preparation
    from clinloom.run.train import with_division

    spark, division = session(), Division(folds, 1, (0,), ("test",))
    held = finished(out)["dataset"]
    rows = spark.read.parquet(*map(str, held.files())).where("split = 'train'")
    rows = with_division(rows, division, 0)
    frame = training.training_rows(rows, F.col("fold"), parts=LANES, part=F.col("part")).persist()
    width = len(frame.first()["values"])
    print(f"{frame.count():,} rows x {width} features, {count} points, {folds} folds")
    took: dict[str, tuple[float, float]] = {}
    names, kept = ("logistic_regression", "random_forest"), {}
    with measured("clinloom", took):
        with training.prepared(frame, folds=folds, parts=LANES) as prepared:
            for name in names:
                options = algorithm(name).Options.model_validate({"imbalance": "none"})
                grid = points(name, count)
                kept[name] = _searched(training, name, options, prepared, division, grid)
    with measured("pyspark CrossValidator", took):
        for name in names:
            options = algorithm(name).Options.model_validate({"imbalance": "none"})
            model = algorithm(name).estimator(options, {}, features=width, seed=1)
            grid = [{model.getParam(k): v for k, v in p.items()} for p in points(name, count)]
            validator = CrossValidator(
                estimator=Pipeline(stages=[Preparation(parts=LANES), model]),
                estimatorParamMaps=grid,
                evaluator=BinaryClassificationEvaluator(),
                numFolds=folds,
                foldCol="fold_",
                parallelism=LANES,
            )
            found = validator.fit(frame.withColumn("fold_", F.col("fold").cast("int")))
            best = max(range(count), key=found.avgMetrics.__getitem__)
            areas = kept[name].mean(best, [c for left in division.fits() for c in left.cells])
            print(f"  {name}: theirs {found.avgMetrics[best]:.4f}, ours of that point {areas:.4f}")
    ours, theirs = took["clinloom"], took["pyspark CrossValidator"]
    clock, worked = (theirs[n] / ours[n] for n in (0, 1))
    print(f"{clock:.2f} x faster by the clock, {worked:.2f} x by processor time")


def _searched(training: Any, name: str, options: Any, folds: Any, division: Any, grid: Any) -> Any:
    """What a search of ``grid`` finds, as a run makes it."""
    from functools import partial

    from clinloom.learn.search import search
    from clinloom.spark.session import at_once

    def judge(point: Any, left: Any) -> Any:
        part = folds.left(left)
        model = training.fit(name, options, point, part, seed=1)
        return {c: training.outputs(model, part.valid[c], folds.parts) for c in left.cells}

    def fitted(wanted: Any) -> Any:
        tasks = (partial(judge, point, left) for point, left in wanted)
        return at_once(folds.frame.sparkSession, tasks)

    for left in division.fits():
        folds.left(left)
    return search(grid, division.fits(), fitted, kept={})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
