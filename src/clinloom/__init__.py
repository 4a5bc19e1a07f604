"""Clinloom: from patient records and images to an evaluated model in the clinic, on Apache Spark.

>>> import clinloom
>>> run = clinloom.run_study("study.yaml", out="out")  # doctest: +SKIP
>>> run.metrics["selected"]                          # doctest: +SKIP
>>> bundle = clinloom.load_bundle("out/bundle")      # doctest: +SKIP
>>> bundle.predict(events)                           # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from clinloom.deploy.bundle import Bundle
    from clinloom.run.api import Run
    from clinloom.run.progress import Progress
    from clinloom.study import Study

try:
    __version__ = version("clinloom")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0.1.0"


def run_study(
    study: Study | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> Run:
    """Run a study (a file's address, or one that was read) into the output ``out``, an address.

    ``overrides``: ``key=value`` as ``--set`` takes them; ``spark``: a session to run on. Goes on
    after the last committed stage. Raises StudyError, SourceError, DataError, MissingDependency,
    StoreError or ParityError, each with its mend.
    """
    from clinloom.run.api import run

    return run(study, out=out, overrides=overrides, progress=progress, spark=spark)


def load_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Load the bundle at an address, without Spark: see :class:`clinloom.deploy.bundle.Bundle`."""
    from clinloom.deploy.bundle import Bundle

    return Bundle.load(folder)
