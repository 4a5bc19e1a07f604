"""How well something tells the outcome, and whether that is more than chance: plain arithmetic.

AUROC with midranks (Hanley and McNeil, Radiology 1982, 143:29-36), its test against a bound on the
probit scale, out-of-fold encodings and a ridge regression whose folds are sums.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

FOLDS = 5  # of the audit's own, out of which it predicts
ALPHA = 1e-3  # false alarms of a whole check, however many things it looks at
FEWEST = 10  # patients with the outcome and without it, from which on an area is judged
LEVELS = 10  # of what is told apart in one column, beside missing
RIDGE = 1e-2  # of the ridge regression, a row
_NORMAL = NormalDist()


def few(count: int) -> str:
    """A count of patients or of their rows in words; one below 5 could point at somebody."""
    return f"{count:,}" if count >= 5 else "fewer than 5"


def auroc(score: Floats, positive: Flags) -> float:
    """How often one with the outcome has the higher score, ties half; NaN with a single class."""
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return math.nan
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2
    return float((middle[place][positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def exceeds(area: float, positive: int, negative: int, *, bound: float, looks: int = 1) -> bool:
    """Whether an AUROC of so many patients lies above ``bound`` by more than chance.

    The variance is that of an area of ``bound`` (Hanley and McNeil, 1982) on the probit scale, on
    which an area near 1 is nearly normal; of ``looks`` areas one in a thousand such checks errs.
    """
    if min(positive, negative) < FEWEST or not area > bound:
        return False
    pairs = positive * negative
    q1, q2 = bound / (2 - bound), 2 * bound**2 / (1 + bound)
    spread = (
        bound * (1 - bound) + (positive - 1) * (q1 - bound**2) + (negative - 1) * (q2 - bound**2)
    )
    place = _NORMAL.inv_cdf(bound)
    error = math.sqrt(spread / pairs) / _NORMAL.pdf(place)
    seen = _NORMAL.inv_cdf(min(area, 1 - 0.5 / pairs))
    return (seen - place) / error > _NORMAL.inv_cdf(1 - ALPHA / max(looks, 1))


def likelier(hits: int, total: int, share: float) -> float:
    """The probability of so many hits or more of ``total`` where each has the chance ``share``."""
    if hits <= 0:
        return 1.0
    logs = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1)
        + k * math.log(share) + (total - k) * math.log1p(-share)
        for k in range(hits, total + 1)
    ]  # fmt: skip
    most = max(logs)
    return min(1.0, math.exp(most) * sum(math.exp(log - most) for log in logs))


def present(values: np.ndarray) -> Flags:
    """Where a column (n,) of numbers (NaN missing) or names ("" missing) is known."""
    found: Flags = values == values if values.dtype.kind == "f" else values != ""
    return found


def levels(values: np.ndarray, most: int = LEVELS) -> tuple[Ints, int]:
    """A column (n,) as levels 0 to k - 1, and k; 0 is what is missing.

    Few distinct values are a level each; numbers are else cut at their quantiles, and of names the
    commonest are levels of their own and the others one.
    """
    known = present(values)
    found = np.zeros(len(values), np.int64)
    each, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
    if len(each) > most and values.dtype.kind == "f":
        cuts = np.unique(np.quantile(values[known], np.arange(1, most) / most))
        place, size = np.searchsorted(cuts, values[known], side="right"), len(cuts) + 1
    elif len(each) > most:
        rank = np.empty(len(each), np.int64)
        rank[np.argsort(-count, kind="stable")] = np.arange(len(each))
        place, size = np.minimum(rank, most)[place], most + 1
    else:
        size = len(each)
    found[known] = place + 1
    return found, size + 1


def encoded(level: Ints, size: int, positive: Flags, fold: Ints) -> Floats:
    """Each row's share of the outcome among its level's rows in the other folds (n,).

    A level is drawn to the share of all by two rows, so that a rare one tells little.
    """
    cell = fold * size + level
    total = np.bincount(cell, minlength=FOLDS * size).reshape(FOLDS, size).astype(float)
    hits = np.bincount(cell, weights=positive, minlength=FOLDS * size).reshape(FOLDS, size)
    rest, had = total.sum(axis=0) - total, hits.sum(axis=0) - hits
    share = had.sum(axis=1, keepdims=True) / np.maximum(rest.sum(axis=1, keepdims=True), 1)
    told: Floats = ((had + 2 * share) / (rest + 2))[fold, level]
    return told


def area_of(score: Floats, positive: Flags, fold: Ints) -> float:
    """The AUROC of out-of-fold scores: of each fold's own, weighted by its pairs.

    Scores of two folds come from two models, whose bases differ: they are not compared.
    """
    found, weight = 0.0, 0
    for one in range(FOLDS):
        rows = fold == one
        ones = int(positive[rows].sum())
        pairs = ones * (int(rows.sum()) - ones)
        if pairs:
            found += pairs * auroc(score[rows], positive[rows])
            weight += pairs
    return found / weight if weight else math.nan


def alone(values: np.ndarray, positive: Flags, fold: Ints) -> float:
    """How well one column (n,) tells the outcome, whichever way and whatever its form.

    The greater of the plain AUROC of its numbers, missing ones left out, and that of its levels
    (missing is one) out of fold.
    """
    level, size = levels(values)
    if size < 2 or not len(level) or level.min() == level.max():
        return 0.5
    best = area_of(encoded(level, size, positive, fold), positive, fold)
    return 0.5 if math.isnan(best) else best


def plain(values: Floats, positive: Flags) -> tuple[float, int, int]:
    """The AUROC of the known numbers, either way, and of how many rows with and without."""
    known = values == values
    area = auroc(values[known], positive[known])
    ones = int(positive[known].sum())
    return (0.5 if math.isnan(area) else max(area, 1 - area)), ones, int(known.sum()) - ones


def regressed(columns: Floats, positive: Flags, fold: Ints) -> Floats:
    """Out-of-fold scores (n,) of a ridge regression of the outcome on columns (n, k).

    Each fold's normal equations are those of all rows without its own.
    """
    held = np.hstack([columns, np.ones((len(columns), 1))])
    target = positive.astype(float)
    grams, sides = [], []
    for one in range(FOLDS):
        part = held[fold == one]
        grams.append(part.T @ part)
        sides.append(part.T @ target[fold == one])
    gram, side = np.sum(grams, axis=0), np.sum(sides, axis=0)
    penalty = RIDGE * len(columns) * np.eye(held.shape[1])
    penalty[-1, -1] = 0.0
    told = np.zeros(len(columns))
    for one in range(FOLDS):
        left = gram - grams[one] + penalty
        weights = np.linalg.lstsq(left, side - sides[one], rcond=None)[0]
        told[fold == one] = held[fold == one] @ weights
    return told
