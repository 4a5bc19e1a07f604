"""Risks of many patients from their features, to Parquet: Clinloom's workers beside pyspark.

    python bench/batch.py out/bundle 1000000

Makes a row of features a patient, in 32 files, then prints predictions a minute of the kernel in
Spark's workers, and of the bundle's saved ``PipelineModel`` on the same rows (a tenth of them),
each after one small pass that warms up.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.spark import workers
from clinloom.spark.session import session
from clinloom.store import Part, Pending, Stored, TableWriter
from clinloom.tables import FEATURES, PREDICTIONS, TIME, matrix

BUCKETS, PIECE, NOW = 32, 1 << 14, 1_700_000_000_000_000


def made(folder: Path, bundle: Bundle, patients: int) -> Stored:
    """Features as the training rows had them: about their centres, a fifth missing."""
    rng, statistics, parts = np.random.default_rng(1), bundle.scorer.statistics, []
    width, place = len(bundle.features), files.address(folder)
    for bucket in range(BUCKETS):
        subjects = np.arange(bucket, patients, BUCKETS)
        file = place / f"part-{bucket:05}.parquet"
        with TableWriter(file, FEATURES) as writer:
            for at in range(0, len(subjects), PIECE):
                some = subjects[at : at + PIECE]
                low, high = statistics.lower, statistics.upper
                values = rng.uniform(low, np.maximum(high, low), (len(some), width))
                values[rng.random(values.shape) < 0.2] = np.nan
                lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width)
                moments = pa.array(np.full(len(some), NOW)).cast(TIME)
                rows = [pa.array(some), moments, lists.cast(pa.list_(pa.float64()))]
                writer.write(pa.table(rows, schema=FEATURES.arrow))
        parts.append(Part(file.name, bucket, writer.rows, writer.bytes))
    return Stored("features", place, "", patients, tuple(parts))


def scored(features: pa.Table, *, bundle: Bundle) -> dict[str, pa.Table]:
    """The kernel: PREDICTIONS of rows of features."""
    return {"predictions": bundle.scored(features, matrix(features))}


def ours(spark, bundle: Bundle, features: Stored, folder: Path) -> float:
    """Seconds until all predictions are written."""
    out, start = Pending(files.address(folder)), time.perf_counter()
    workers.by_patient(
        spark,
        {"features": (features, FEATURES)},
        partial(scored, bundle=bundle),
        out=out,
        tables={"predictions": PREDICTIONS},
        chunk=PIECE,
    )
    assert sum(part.rows for part in out.parts["predictions"]) == features.rows
    return time.perf_counter() - start


def theirs(spark, bundle: Bundle, features: Stored, folder: Path) -> float:
    """The same by the saved model."""
    from pyspark.ml import PipelineModel

    model = PipelineModel.load(bundle.spark)
    frame = spark.read.parquet(*map(str, features.files()))
    start = time.perf_counter()
    told = model.transform(frame).select("subject_id", "prediction_time", "probability")
    told.write.mode("overwrite").parquet(str(folder))
    return time.perf_counter() - start


def main() -> None:
    """Time both and print predictions a minute."""
    bundle, patients = Bundle.load(sys.argv[1]), int(sys.argv[2])
    spark = session(master="local[2]")
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        small, tenth, whole = (
            made(room / name, bundle, count)
            for name, count in (("s", 2000), ("t", patients // 10), ("w", patients))
        )
        tried = [("clinloom", ours, whole)]
        if "spark" in bundle.document["parts"]:
            tried.append(("pyspark", theirs, tenth))
        for name, run, rows in tried:
            run(spark, bundle, small, room / "out")
            took = run(spark, bundle, rows, room / f"out-{name}")
            rate = (rows.rows or 0) / took * 60
            print(
                f"{name:<10} {rows.rows:>10,} rows of {len(bundle.features):,} features"
                f" in {took:6.1f} s: {rate / 1e6:.2f} M a minute"
            )


if __name__ == "__main__":
    main()
