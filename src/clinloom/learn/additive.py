"""A model's answer as a sum: a base, and what each feature adds to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clinloom.errors import StoreError
from clinloom.learn.preparation import Statistics

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LOG_ODDS: Literal["log-odds"] = "log-odds"
PROBABILITY: Literal["probability"] = "probability"
Scale = Literal["log-odds", "probability"]


@dataclass(frozen=True)
class Columns:
    """The prepared columns (w,): their mean over the training rows, and each one's feature.

    A feature's value and its missing flag are two columns of one feature. ``features``: how many
    features there are.
    """

    mean: Floats
    feature: Ints
    features: int

    @classmethod
    def of(cls, statistics: Statistics, features: int) -> Columns:
        """The columns of a preparation. Raises StoreError where it kept no share of missing."""
        if len(statistics.share) != len(statistics.indicator):
            raise lacking()
        return cls(
            mean=np.concatenate([np.zeros(len(statistics.keep)), statistics.share]),
            feature=np.concatenate([statistics.keep, statistics.indicator]),
            features=features,
        )

    def gathered(self, found: Floats) -> Floats:
        """What the columns (n, w) add, by feature (n, features)."""
        out = np.zeros((len(found), self.features))
        np.add.at(out.T, self.feature, found.T)
        return out


@dataclass(frozen=True)
class Additive:
    """A model's output in ``scale`` is ``base`` and the sum of what ``of`` answers.

    It is the raw model's, before recalibration. ``of``: contributions (n, features) of prepared
    rows (n, w).
    """

    scale: Scale
    base: float
    of: Callable[[Floats], Floats]


def lacking() -> StoreError:
    """The error of a model that was trained before its reasons were kept."""
    return StoreError(
        "this model does not hold what its reasons are told from (node covers, shares of missing)",
        mend="run its study again with this version; its risks need nothing",
    )
