"""The learned preparation as a pyspark.ml stage: fill, bound, standardise, flag what is missing.

Learned from training rows only, inside the Pipeline; its statistics are Params, so a fitted model
saves and loads as any other stage does, and without pickle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import keyword_only
from pyspark.ml import Estimator, Model, Transformer
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType, StructField, StructType

from clinloom.errors import DataError
from clinloom.learn import preparation as kernel
from clinloom.learn import sketch
from clinloom.learn.calibration import EDGE, Calibrator
from clinloom.spark import sums, workers
from clinloom.tables import matrix


class _Columns(Params):
    """The input and output columns."""

    inputCol = Param(Params._dummy(), "inputCol", "array of doubles", TypeConverters.toString)
    outputCol = Param(Params._dummy(), "outputCol", "vector", TypeConverters.toString)


class Preparation(
    Estimator["PreparationModel"],
    _Columns,
    DefaultParamsReadable["Preparation"],
    DefaultParamsWritable,
):
    """Learn fill values, bounds, centres and scales of an array column.

    ``lower`` and ``upper``: the quantiles beyond which values are drawn in (winsorised), see
    ``learn.preparation``; the last fiftieth at either end costs a linear model more than it tells
    (docs/accuracy.md), and trees nothing. Workers
    summarise their rows (``learn.sketch``): up to 4 million numbers neither partitions nor order
    change what is learned; beyond that it is within the error stated there. No row reaches the
    driver.
    """

    lower = Param(Params._dummy(), "lower", "lower quantile", TypeConverters.toFloat)
    upper = Param(Params._dummy(), "upper", "upper quantile", TypeConverters.toFloat)
    use = Param(Params._dummy(), "use", "features used; empty: all", TypeConverters.toListInt)
    parts = Param(Params._dummy(), "parts", "the rows' partitions, about", TypeConverters.toInt)

    _input_kwargs: dict[str, Any]  # set by keyword_only

    @keyword_only
    def __init__(
        self,
        *,
        inputCol: str = "values",
        outputCol: str = "features",
        lower: float = 0.02,
        upper: float = 0.98,
        use: Sequence[int] = (),
        parts: int = 64,
    ) -> None:
        super().__init__()
        self._setDefault(inputCol="values", outputCol="features", lower=0.02, upper=0.98, use=[])
        self._setDefault(parts=64)
        self._set(**{k: list(v) if k == "use" else v for k, v in self._input_kwargs.items()})

    def _parts(self) -> int:
        """A summary may hold 32 MB: of more than two parts workers make fewer first."""
        parts: int = self.getOrDefault("parts")
        return parts if parts <= 2 else max(parts, sums.FEW + 1)

    def _fit(self, dataset: DataFrame) -> PreparationModel:
        column = self.getOrDefault("inputCol")
        keys = [c for c in ("subject_id", "prediction_time") if c in dataset.columns]
        order = F.xxhash64(*keys) if keys else F.xxhash64(column)
        rows = dataset.select(F.col(column).alias("values"), order.alias("order"))
        found = workers.summed(rows, _sketched, sketch.merged, parts=self._parts())
        if found is None:
            raise DataError("there is no training row to learn a preparation from")
        learned = kernel.learned(
            sketch.Sketch.read(found),
            lower=self.getOrDefault("lower"),
            upper=self.getOrDefault("upper"),
            use=self.getOrDefault("use"),
        )
        return PreparationModel.of(learned, column, self.getOrDefault("outputCol"))


def _sketched(tables: Iterable[pa.Table]) -> pa.Table | None:
    """A partition's rows (``values``, ``order``) as a sketch."""
    held = sketch.Gathering()
    for table in tables:
        held.add(matrix(table), table.column("order").to_numpy())
    return held.sketch.table() if held.sketch else None


class PreparationModel(
    Model, _Columns, DefaultParamsReadable["PreparationModel"], DefaultParamsWritable
):
    """A fitted :class:`Preparation`; it owns its statistics."""

    fill = Param(Params._dummy(), "fill", "median", TypeConverters.toListFloat)
    lower = Param(Params._dummy(), "lower", "lower bound", TypeConverters.toListFloat)
    upper = Param(Params._dummy(), "upper", "upper bound", TypeConverters.toListFloat)
    centre = Param(Params._dummy(), "centre", "mean", TypeConverters.toListFloat)
    scale = Param(Params._dummy(), "scale", "standard deviation", TypeConverters.toListFloat)
    keep = Param(Params._dummy(), "keep", "features kept", TypeConverters.toListInt)
    indicator = Param(Params._dummy(), "indicator", "missing flags", TypeConverters.toListInt)
    share = Param(Params._dummy(), "share", "parts that miss", TypeConverters.toListFloat)

    @classmethod
    def of(cls, learned: kernel.Statistics, column: str, out: str) -> PreparationModel:
        """The stage that applies ``learned`` to an array column; a vector ``out`` comes out."""
        model = cls()
        arrays = {name: array.tolist() for name, array in learned.arrays().items()}
        model._set(inputCol=column, outputCol=out, **arrays)
        return model

    def unfilled(self) -> PreparationModel:
        """The stage that hands missing values on as NaN, see ``Statistics.unfilled``."""
        columns = self.getOrDefault("inputCol"), self.getOrDefault("outputCol")
        return self.of(self.statistics.unfilled(), *columns)

    @property
    def statistics(self) -> kernel.Statistics:
        """What was learned, as arrays."""
        whole = ("keep", "indicator")
        arrays: dict[str, Any] = {
            f: np.asarray(self.getOrDefault(f), np.int64 if f in whole else np.float64)
            for f in kernel.Statistics.__dataclass_fields__
            if self.isDefined(f)  # an older pipeline has no `share`
        }
        return kernel.Statistics(**arrays)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        column, out = self.getOrDefault("inputCol"), self.getOrDefault("outputCol")
        schema = StructType(
            [*dataset.schema.fields, StructField("_prepared", ArrayType(DoubleType(), False))]
        )
        work = partial(_prepared, column=column, statistics=self.statistics)
        prepared = workers.by_rows(dataset, work, schema)
        return prepared.withColumn(out, array_to_vector(F.col("_prepared"))).drop("_prepared")


def _prepared(table: pa.Table, *, column: str, statistics: kernel.Statistics) -> pa.Table:
    """The rows with their prepared features, ``_prepared``."""
    made = kernel.prepare(matrix(table, column), statistics)
    offsets = np.arange(len(made) + 1, dtype=np.int32) * made.shape[1]
    array = pa.ListArray.from_arrays(pa.array(offsets), pa.array(made.ravel()))
    return table.append_column("_prepared", array)


def raw_risk(margin: float | None) -> Column:
    """A fitted model's risk before recalibration; ``margin``: the algorithm's."""
    if not margin:
        return vector_to_array(F.col("probability"))[1]
    raw = vector_to_array(F.col("rawPrediction"))
    odds = F.lit(margin) * (raw[1] - raw[0])
    return F.lit(1.0) / (F.lit(1.0) + F.exp(-F.least(F.greatest(odds, F.lit(-700)), F.lit(700))))


class Calibration(Transformer, DefaultParamsReadable["Calibration"], DefaultParamsWritable):
    """Recalibrate ``probability`` by what was learned, see ``learn.calibration``.

    ``risk`` and ``becomes``: the knots of a broken line, through which risks go first; empty: none.
    ``margin``: what makes log-odds of the difference of ``rawPrediction``, of a model that tells no
    ``probability`` to go by; 0: it does.
    """

    slope = Param(Params._dummy(), "slope", "slope", TypeConverters.toFloat)
    intercept = Param(Params._dummy(), "intercept", "intercept", TypeConverters.toFloat)
    bend = Param(Params._dummy(), "bend", "of ln(1 - risk)", TypeConverters.toFloat)
    risk = Param(Params._dummy(), "risk", "rising raw risks", TypeConverters.toListFloat)
    becomes = Param(Params._dummy(), "becomes", "what they become", TypeConverters.toListFloat)
    margin = Param(Params._dummy(), "margin", "of raw predictions", TypeConverters.toFloat)

    _input_kwargs: dict[str, Any]  # set by keyword_only

    @keyword_only
    def __init__(
        self,
        *,
        slope: float = 1.0,
        intercept: float = 0.0,
        bend: float = 0.0,
        risk: Sequence[float] = (),
        becomes: Sequence[float] = (),
        margin: float = 0.0,
    ) -> None:
        super().__init__()
        self._setDefault(slope=1.0, intercept=0.0, bend=0.0, risk=[], becomes=[])
        self._setDefault(margin=0.0)
        lists = ("risk", "becomes")
        self._set(**{k: list(v) if k in lists else v for k, v in self._input_kwargs.items()})

    @classmethod
    def of(cls, learned: Calibrator, margin: float | None = None) -> Calibration:
        """The stage that does what ``learned`` does; ``margin``: the model's."""
        risk, becomes = learned.curve.tolist()
        numbers = {"slope": learned.slope, "intercept": learned.intercept, "bend": learned.bend}
        return cls(**numbers, risk=risk, becomes=becomes, margin=margin or 0.0)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        raw = self._drawn(raw_risk(self.getOrDefault("margin")))
        inside = F.least(F.greatest(raw, F.lit(EDGE)), F.lit(1.0 - EDGE))
        odds = F.log(inside / (F.lit(1.0) - inside))
        slope, intercept, bend = (self.getOrDefault(n) for n in ("slope", "intercept", "bend"))
        odds = F.lit(intercept) + F.lit(slope) * odds
        if bend:
            odds = odds + F.lit(bend) * F.log(F.lit(1.0) - inside)
        risk = F.lit(1.0) / (F.lit(1.0) + F.exp(-odds))
        return dataset.withColumn("predicted_boolean_probability", risk)

    def _drawn(self, raw: Column) -> Column:
        """The risk through the broken line, level beyond its ends."""
        risk, becomes = self.getOrDefault("risk"), self.getOrDefault("becomes")
        if not risk:
            return raw
        if len(risk) == 1:
            return F.lit(becomes[0])
        inside = F.least(F.greatest(raw, F.lit(risk[0])), F.lit(risk[-1]))
        x, y = F.lit(risk), F.lit(becomes)
        found = F.size(F.filter(x, lambda knot: knot <= inside))
        at = F.least(found, F.lit(len(risk) - 1))  # of the knots at or below, the last but one most
        left, right = F.element_at(x, at), F.element_at(x, at + 1)
        low, high = F.element_at(y, at), F.element_at(y, at + 1)
        return low + (high - low) / (right - left) * (inside - left)
