"""The learned preparation as a pyspark.ml stage: fill, bound, standardise, flag what is missing.

Learned from training rows only, inside the Pipeline; its statistics are Params, so a fitted model
saves and loads as any other stage does, and without pickle.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyspark import keyword_only
from pyspark.ml import Estimator, Model, Transformer
from pyspark.ml.functions import array_to_vector, vector_to_array
from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DoubleType, StructField, StructType

from clinloom.learn import preparation as kernel
from clinloom.learn.calibration import EDGE
from clinloom.spark.session import to_arrow

SAMPLE = 50_000_000  # numbers that are brought to the driver to learn from, at most


class _Columns(Params):
    """The input and output columns."""

    inputCol = Param(Params._dummy(), "inputCol", "array of doubles", TypeConverters.toString)
    outputCol = Param(Params._dummy(), "outputCol", "vector", TypeConverters.toString)


class Preparation(Estimator, _Columns, DefaultParamsReadable, DefaultParamsWritable):
    """Learn fill values, bounds, centres and scales of an array column.

    ``lower`` and ``upper``: the quantiles beyond which values are drawn in (winsorised). Rows are
    sampled by a hash of subject and time where the training rows hold more than 50 million
    numbers, and sorted, so that neither partitions nor order change what is learned.
    """

    lower = Param(Params._dummy(), "lower", "lower quantile", TypeConverters.toFloat)
    upper = Param(Params._dummy(), "upper", "upper quantile", TypeConverters.toFloat)
    use = Param(Params._dummy(), "use", "features used; empty: all", TypeConverters.toListInt)

    @keyword_only
    def __init__(
        self, *, inputCol="values", outputCol="features", lower=0.001, upper=0.999, use=()
    ):
        super().__init__()
        self._setDefault(inputCol="values", outputCol="features", lower=0.001, upper=0.999, use=[])
        self._set(**{k: list(v) if k == "use" else v for k, v in self._input_kwargs.items()})

    def _fit(self, dataset: DataFrame) -> PreparationModel:
        column = self.getOrDefault("inputCol")
        keys = [c for c in ("subject_id", "prediction_time") if c in dataset.columns]
        width = dataset.select(F.size(column).alias("n")).first()
        limit = max(1000, SAMPLE // max(1, width["n"] if width else 1))
        order = F.xxhash64(*keys) if keys else F.xxhash64(column)
        part = dataset.select(*keys, column, order.alias("_order")).orderBy("_order", *keys)
        rows = to_arrow(part.limit(limit).select(column))
        values = rows.column(0).combine_chunks()
        matrix = np.asarray(values.flatten()).reshape(rows.num_rows, -1)
        learned = kernel.learn(
            matrix,
            lower=self.getOrDefault("lower"),
            upper=self.getOrDefault("upper"),
            use=self.getOrDefault("use"),
        )
        model = PreparationModel()
        model._set(
            inputCol=column,
            outputCol=self.getOrDefault("outputCol"),
            **{name: array.tolist() for name, array in learned.arrays().items()},
        )
        return model


class PreparationModel(Model, _Columns, DefaultParamsReadable, DefaultParamsWritable):
    """A fitted :class:`Preparation`; it owns its statistics."""

    fill = Param(Params._dummy(), "fill", "median", TypeConverters.toListFloat)
    lower = Param(Params._dummy(), "lower", "lower bound", TypeConverters.toListFloat)
    upper = Param(Params._dummy(), "upper", "upper bound", TypeConverters.toListFloat)
    centre = Param(Params._dummy(), "centre", "mean", TypeConverters.toListFloat)
    scale = Param(Params._dummy(), "scale", "standard deviation", TypeConverters.toListFloat)
    keep = Param(Params._dummy(), "keep", "features kept", TypeConverters.toListInt)
    indicator = Param(Params._dummy(), "indicator", "missing flags", TypeConverters.toListInt)

    @property
    def statistics(self) -> kernel.Statistics:
        """What was learned, as arrays."""
        whole = ("keep", "indicator")
        return kernel.Statistics(
            **{
                f: np.asarray(self.getOrDefault(f), np.int64 if f in whole else np.float64)
                for f in kernel.Statistics.__dataclass_fields__
            }
        )

    def _transform(self, dataset: DataFrame) -> DataFrame:
        column, out = self.getOrDefault("inputCol"), self.getOrDefault("outputCol")
        statistics = self.statistics
        position = dataset.columns.index(column)
        schema = StructType(
            [*dataset.schema.fields, StructField("_prepared", ArrayType(DoubleType(), False))]
        )

        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                values = np.asarray(batch.column(position).flatten())
                made = kernel.prepare(values.reshape(batch.num_rows, -1), statistics)
                offsets = np.arange(len(made) + 1, dtype=np.int32) * made.shape[1]
                array = pa.ListArray.from_arrays(pa.array(offsets), pa.array(made.ravel()))
                yield pa.RecordBatch.from_arrays(
                    [*batch.columns, array], [*batch.schema.names, "_prepared"]
                )

        prepared = dataset.mapInArrow(work, schema)
        return prepared.withColumn(out, array_to_vector("_prepared")).drop("_prepared")


class Calibration(Transformer, DefaultParamsReadable, DefaultParamsWritable):
    """Recalibrate ``probability`` by a learned slope and intercept on the logit."""

    slope = Param(Params._dummy(), "slope", "slope", TypeConverters.toFloat)
    intercept = Param(Params._dummy(), "intercept", "intercept", TypeConverters.toFloat)

    @keyword_only
    def __init__(self, *, slope=1.0, intercept=0.0):
        super().__init__()
        self._set(**self._input_kwargs)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        raw = vector_to_array("probability")[1]
        inside = F.least(F.greatest(raw, F.lit(EDGE)), F.lit(1.0 - EDGE))
        odds = F.log(inside / (F.lit(1.0) - inside))
        slope, intercept = self.getOrDefault("slope"), self.getOrDefault("intercept")
        risk = F.lit(1.0) / (F.lit(1.0) + F.exp(-(F.lit(intercept) + F.lit(slope) * odds)))
        return dataset.withColumn("predicted_boolean_probability", risk)
