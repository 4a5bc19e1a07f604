"""A tiny job that says how a cluster's Python workers live: ``probe.py JSON``, run by any client.

Each of ``tasks`` tasks leaves a file ``seen-PART-ATTEMPT`` in its working folder, sleeps ``sleep``
seconds (the first attempt of part ``slow``: ``slow_sleep``) and answers with where it ran, which
``clinloom`` it imports and whether it sees ``path``. The rows are written to each of ``addresses``
and read again, one after another. The answer is one line: ``PROBE`` and JSON. It imports nothing of
the tests, so that it runs where they are not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

SCHEMA = "part bigint, attempt bigint, folder string, home string, sees boolean, address string"


def task(options: dict[str, Any]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a worker does with its part of a range."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        import clinloom

        context = TaskContext.get()
        attempt = context.attemptNumber()
        for batch in batches:
            for part in batch.column(0).to_pylist():
                open(f"seen-{part}-{attempt}", "w").close()
                late = part == options.get("slow") and attempt == 0
                time.sleep(options["slow_sleep"] if late else options.get("sleep", 0))
                row = {
                    "part": part,
                    "attempt": attempt,
                    "folder": os.getcwd(),
                    "home": clinloom.__file__,
                    "sees": os.path.exists(options.get("path", "/nowhere")),
                    "address": os.environ.get("SPARK_LOCAL_IP", ""),
                }
                yield pa.RecordBatch.from_pylist([row])

    return run


def main(options: dict[str, Any]) -> None:
    """Run the job in whatever session the environment leads to and print its answer."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("probe")
    spark = builder.getOrCreate()
    tasks = options.get("tasks", 4)
    frame = spark.range(0, tasks, 1, tasks).mapInArrow(task(options), SCHEMA)
    for address in options.get("addresses", ()):
        frame.write.mode("overwrite").parquet(address)
        frame = spark.read.parquet(address)
    rows = [row.asDict() for row in frame.collect()]
    print("PROBE", json.dumps({"version": spark.version, "rows": rows}), flush=True)
    spark.stop()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
