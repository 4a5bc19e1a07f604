"""Whether the learned preparation is that of the training rows, and of no others.

What a model subtracts and divides by is computed again, as exact sums over the committed rows of
each side under the fitted bounds: its centre and scale must be those of the training rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clinloom.audit import Column, Evidence, Finding
from clinloom.audit._figures import Floats

TITLE = "the fitted preparation of each model against the training rows' own mean and spread"
BLIND = "what was learned from test rows before the data came here"
CLOSE = 1e-3  # of a scale: what a summary of many rows may lose
FELT = 1e-7  # of a scale: what differs by less says nothing


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a model."""
    for model, features in seen.prepared.items():
        if features:
            yield Finding(
                "preparation",
                model,
                f"the centre or scale of {len(features):,} features, such as {features[0]}, is not"
                " that of the training rows",
                "the preparation has seen rows that it is judged on",
                "fit it on training rows alone",
            )


def moments(
    values: Floats, fill: Floats, lower: Floats, upper: Floats, centre: Floats, scale: Floats
) -> tuple[Floats, Floats]:
    """Sums and sums of squares of rows (n, f), filled, bounded and standardised as the preparation
    does it, a number a feature (f,): far from 0, sums of squares would lose the spread."""
    filled = np.clip(np.where(np.isnan(values), fill, values), lower, upper)
    standard = (filled - centre) / np.maximum(scale, 1e-300)
    return standard.sum(axis=0), (standard**2).sum(axis=0)


def strange(
    features: Sequence[Column],
    train: tuple[int, Floats, Floats],
    other: tuple[int, Floats, Floats],
) -> list[str]:
    """The features whose statistics are not those of the training rows.

    ``train`` and ``other``: rows, and :func:`moments` of each side; of the training rows mean and
    spread are 0 and 1. A summary of many rows may lose a thousandth of a scale. So a statistic is
    strange that is off by twenty, and so are all where nine of ten lie much nearer to the mean of
    both sides, or of the other, than to that of the training rows.
    """
    rows, total, squares = train
    more, added, _ = other
    if not rows or not more:
        return []
    mean = total / rows
    spread = np.sqrt(np.maximum(squares / rows - mean**2, 0))
    off = np.abs(mean)
    far = np.maximum(off, np.abs(1 - spread)) > 20 * CLOSE
    both, test = (total + added) / (rows + more), added / more
    near = np.minimum(np.abs(both), np.abs(test)) < off / 5
    apart = (np.abs(mean - test) > FELT) & (off > FELT)
    if near[apart].sum() >= max(1, 0.9 * len(mean)):
        far = far | (near & apart)
    return [features[at].name for at in np.flatnonzero(far).tolist()]
