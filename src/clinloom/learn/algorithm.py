"""What a model's file owes to those who fit it, score with it and describe it.

Its contract stands here, below the files themselves, for the service scores without their room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa

from clinloom import plugins
from clinloom.learn.additive import Additive, Columns
from clinloom.study import Model


class Algorithm(Protocol):
    """A file of ``models/``, or another package's module of that shape."""

    REQUIRES: str | None
    TITLE: str  # what the report calls it
    WEIGHTS: bool  # whether the estimator takes weights
    MISSING: bool  # whether it takes missing values as such: neither filled, scaled nor flagged
    CONNECT: bool  # whether its estimator runs over Spark Connect
    TOLERANCE: float  # how far the scorer's risks may lie from Spark's
    MARGIN: float | None  # raw predictions' difference times this: the log-odds of its raw risk;
    # None: Spark tells probabilities
    QUICK: dict[str, Any]  # options of a grid of one point that fits in seconds

    @property
    def Options(self) -> type[Model]:
        """What a study may set."""

    def grid(self, options: Any) -> list[dict[str, Any]]:
        """Every point of the grid."""

    def estimator(self, options: Any, point: dict[str, Any], *, features: int, seed: int) -> Any:
        """The Spark estimator of a point."""

    def flatten(self, fitted: Any, saved: Callable[[], pa.Table]) -> dict[str, np.ndarray]:
        """A fitted model as arrays; ``saved()`` gives the nodes of a tree model."""

    def probability(self, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        """Probability (n,) of the outcome for prepared rows ``x`` (n, f)."""

    def importance(self, arrays: Mapping[str, np.ndarray], features: int) -> np.ndarray:
        """How much each prepared feature (f,) counts, in the algorithm's own unit."""

    def additive(self, arrays: Mapping[str, np.ndarray], columns: Columns) -> Additive:
        """The model's output as a base and what each feature adds to it."""


EXACT = 1e-9  # what a scorer in double precision owes


def algorithm(name: str) -> Algorithm:
    """A model's file by name. Raises UsageError with the nearest where there is none."""
    return cast(Algorithm, plugins.load("models", name))
