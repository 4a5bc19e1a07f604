"""One patient of 1,000 events: cleaning, features and score without Spark, beside Spark itself.

    python bench/scoring.py out/bundle out/tables

Prints the median and the 95th percentile of 200 requests to ``bundle.predict``, and of 10 to the
bundle's saved ``PipelineModel`` for one row whose features were computed already.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinloom.deploy.bundle import Bundle
from clinloom.tables import EVENTS

SIZE, MINUTE = 1000, np.timedelta64(60, "s").astype(object)


def timed(request, times: int) -> np.ndarray:
    """Milliseconds of each of ``times`` requests, after one that warms up."""
    request()
    took = []
    for _ in range(times):
        start = time.perf_counter()
        request()
        took.append((time.perf_counter() - start) * 1e3)
    return np.array(took)


def patient(tables: Path) -> tuple[pa.Table, object]:
    """A patient's events before the index time, measured again and again until there are 1,000."""
    first = pq.read_table(tables / "index").slice(0, 1).to_pylist()[0]
    events = pq.read_table(tables / "events")
    mine = pc.equal(events.column("subject_id"), first["subject_id"])
    rows = events.filter(mine).to_pylist()
    known = [r for r in rows if r["time"] and r["time"] < first["prediction_time"]]
    more = [
        {**known[i % len(known)], "time": first["prediction_time"] - MINUTE * (i + 1)}
        for i in range(SIZE - len(rows))
    ]
    return pa.Table.from_pylist([*rows, *more], schema=EVENTS.arrow), first["prediction_time"]


def main() -> None:
    """Time both and print the ratio."""
    place, tables = Path(sys.argv[1]), Path(sys.argv[2])
    bundle = Bundle.load(place)
    events, moment = patient(tables)
    ours = timed(lambda: bundle.predict(events, at=moment), 200)

    from pyspark.ml import PipelineModel

    from clinloom.spark.session import session

    spark = session(master="local[2]")
    model = PipelineModel.load(str(place / "spark"))
    row = spark.read.parquet(str(tables / "dataset")).limit(1).cache()
    row.count()
    theirs = timed(lambda: model.transform(row).select("probability").collect(), 10)
    for name, took in (("clinloom", ours), ("pyspark", theirs)):
        print(
            f"{name:<10} median {np.median(took):8.2f} ms   95 % {np.quantile(took, 0.95):8.2f} ms"
        )
    print(f"clinloom is {np.median(theirs) / np.median(ours):.0f} times as fast, cleaning included")


if __name__ == "__main__":
    main()
