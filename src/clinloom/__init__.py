"""Clinloom: from patient records and images to an evaluated model in the clinic, on Apache Spark.

>>> import clinloom
>>> run = clinloom.run_study("study.yaml", out="out")  # doctest: +SKIP
>>> run.metrics["selected"]                          # doctest: +SKIP
>>> bundle = clinloom.load_bundle("out/bundle")      # doctest: +SKIP
>>> bundle.predict(events)                           # doctest: +SKIP
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("clinloom")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0.1.0"


def run_study(*args: Any, **kwargs: Any) -> Any:
    """Run a study: see :func:`clinloom.run.api.run`."""
    from clinloom.run.api import run

    return run(*args, **kwargs)


def load_bundle(folder: Any) -> Any:
    """Load a bundle, without Spark: see :class:`clinloom.deploy.bundle.Bundle`."""
    from clinloom.deploy.bundle import Bundle

    return Bundle.load(folder)
