"""Two models on the same moments: how far apart they are, drawn patient by patient together.

A replicate counts the same patients for both, so that what the two share cancels and the interval
is that of the difference. The sums of a replicate add up over workers (:class:`Drawn`). What
decides is the Brier score, which is proper: no model gains by telling another risk than it
believes, and both discrimination and calibration count (Gneiting and Raftery, J. Am. Stat. Assoc.
102 (2007) 359).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom.evaluate import METRICS, bootstrap
from clinloom.evaluate.bootstrap import ONCE, Tally
from clinloom.learn.risks import Risks

GROUPS = 1_000  # groups of equal risk that a replicate is added up over
REPLICATES = 400
STEP = 4_096  # rows that are drawn at once
LESS = ("brier", "ici", "e50", "e90", "number_needed")  # metrics of which less is better
NEAR = {  # and those that should be this
    "calibration_slope": 1.0,
    "calibration_intercept": 0.0,
    "observed_expected": 1.0,
}
NEUTRAL = ("alert_rate",)  # and those of which neither more nor less is
NAMES = (*METRICS, "net_benefit")

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Drawn:
    """The sums of all replicates for several models' risks of the same rows."""

    def __init__(self, risks: Sequence[Risks], threshold: float, replicates: int = REPLICATES):
        self.threshold, self.replicates = threshold, replicates
        self.tallies = [Tally(one, replicates + 1, thresholds=[threshold]) for one in risks]

    def add(self, subject: npt.NDArray[np.int64], label: Flags, risk: Floats, *, seed: int) -> None:
        """Rows of whole patients: subject and label (n,), risks (n, models)."""
        for begin in range(0, len(label), STEP):
            at = slice(begin, begin + STEP)
            weight = bootstrap.times(subject[at], range(self.replicates + 1), seed=seed)
            for number, tally in enumerate(self.tallies):
                tally.add(label[at], risk[at, number], weight)

    def table(self) -> pa.Table:
        """Its sums as one row, which add up (:func:`merged`)."""
        parts = [[t.positive, t.total, t.true, t.called, t.loss] for t in self.tallies]
        numbers = np.concatenate([part.ravel() for tally in parts for part in tally])
        return pa.table({"numbers": pa.array([numbers], pa.list_(pa.float64()))})

    def take(self, table: pa.Table) -> None:
        """The sums of a table (:meth:`table`) in place of its own."""
        numbers, begin = table.column("numbers").combine_chunks().values.to_numpy(), 0
        for tally in self.tallies:
            for name in ("positive", "total", "true", "called", "loss"):
                shape = getattr(tally, name).shape
                size = int(np.prod(shape))
                setattr(tally, name, numbers[begin : begin + size].reshape(shape).copy())
                begin += size

    def measured(self) -> Floats:
        """(models, 1 + replicates, NAMES): the first replicate counts every patient once."""
        price = self.threshold / (1 - self.threshold)
        out = []
        for tally in self.tallies:
            found = tally.measured(start=None)
            true, called = tally.true[:, 0], tally.called[:, 0]
            won = true - (called - true) * price
            found["net_benefit"] = won / np.maximum(tally.total.sum(axis=1), 1)
            out.append(np.stack([found[name] for name in NAMES], axis=1))
        return np.stack(out)


def merged(tables: Sequence[pa.Table]) -> pa.Table:
    """Sums of rows that are apart, added up."""
    parts = [table.column("numbers").combine_chunks().values.to_numpy() for table in tables]
    return pa.table({"numbers": pa.array([np.sum(parts, axis=0)], pa.list_(pa.float64()))})


def told(measured: Floats, *, confidence: float = 0.95) -> dict[str, dict[str, Any]]:
    """Each metric of both models and the second less the first, with percentile intervals.

    ``measured``: (2, 1 + replicates, NAMES). ``better``: whether the second is, None where the
    interval holds no difference, or the metric says nothing of better and worse.
    """
    one, other = measured
    apart = other - one
    out: dict[str, dict[str, Any]] = {}
    limits = [bootstrap.interval(drawn[1:], confidence) for drawn in (one, other, apart)]
    for at, name in enumerate(NAMES):
        parts = {}
        for key, drawn, (low, high) in zip(
            ("bundle", "challenger", "difference"), (one, other, apart), limits, strict=True
        ):
            numbers = (drawn[ONCE, at], low[at], high[at])
            parts[key] = dict(zip(("value", "low", "high"), map(_number, numbers), strict=True))
        out[name] = {**parts, "better": _better(name, one[:, at], other[:, at], confidence)}
    return out


def _better(name: str, one: Floats, other: Floats, confidence: float) -> bool | None:
    if name in NEUTRAL:
        return None
    if name in NEAR:
        one, other = -np.abs(one - NEAR[name]), -np.abs(other - NEAR[name])
    gain = (one - other) if name in LESS else (other - one)
    low, high = (float(limit[0]) for limit in bootstrap.interval(gain[1:, None], confidence))
    return None if not low * high > 0 else low > 0


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
