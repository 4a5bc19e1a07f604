"""What a Python worker of a session on this machine begins with."""

from __future__ import annotations

import gc
import sys

import pyarrow as pa

from clinloom.spark import daemon, workers


def begun(rows: pa.Table) -> pa.Table:
    loaded = all(name in sys.modules for name in daemon.LOADED)
    small_pages = pa.default_memory_pool().backend_name == "system"
    return pa.table({"ready": [loaded and small_pages and gc.get_freeze_count() > 50_000]})


def test_a_worker_finds_a_runs_kernels_loaded_and_out_of_the_collectors_way(spark):
    made = workers.by_rows(spark.range(0, 2, 1, 2), begun, "ready boolean")
    assert [row["ready"] for row in made.collect()] == [True, True]
