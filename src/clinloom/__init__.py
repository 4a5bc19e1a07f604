"""Clinloom: from patient records and images to an evaluated model in the clinic, on Apache Spark.

>>> import clinloom
>>> run = clinloom.run("study.yaml", out="out")      # doctest: +SKIP
>>> run.metrics["selected"]                          # doctest: +SKIP
>>> bundle = clinloom.load_bundle("out/bundle")      # doctest: +SKIP
>>> bundle.predict(events)                           # doctest: +SKIP
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("clinloom")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0.1.0"
