"""The process that Spark forks its Python workers from: what every worker loads, loaded once.

A worker needs more than a second of processor time to load a run's libraries and kernels, and Spark
ends one that was idle for a minute. What is loaded before the fork all of them share; and frozen,
it is not walked through by the collection of garbage that Spark asks for after every task.
"""

from __future__ import annotations

import gc
import importlib
from contextlib import suppress

from pyspark import daemon

LOADED = ("pyspark.worker", "clinloom.run.api", "clinloom.learn.training")


def load() -> None:
    """Load what workers need; what is lacking here, the worker that needs it tells of."""
    for name in LOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    load()
    daemon.manager()
