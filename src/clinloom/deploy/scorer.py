"""The scorer: a fitted pipeline as flat arrays, one vectorised function, no Spark."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from clinloom.errors import ParityError
from clinloom.learn import calibration, preparation
from clinloom.learn.algorithm import EXACT, algorithm


@dataclass(frozen=True)
class Scorer:
    """Preparation, model and recalibration of one trained model.

    ``arrays``: the model's own (see its file); ``threshold``: risk at or above it is positive;
    ``slope``, ``intercept``, ``bend``, ``curve``: recalibration, see ``learn.calibration``.
    """

    model: str
    statistics: preparation.Statistics
    arrays: Mapping[str, np.ndarray]
    slope: float
    intercept: float
    threshold: float
    bend: float = 0.0
    curve: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))

    @property
    def calibrator(self) -> calibration.Calibrator:
        """The recalibration."""
        return calibration.Calibrator(self.slope, self.intercept, self.bend, self.curve)

    def score(self, values: np.ndarray) -> np.ndarray:
        """Risk (n,) of feature rows ``values`` (n, f), NaN = missing."""
        x = preparation.prepare(np.asarray(values, np.float64), self.statistics)
        raw = algorithm(self.model).probability(self.arrays, x)
        return self.calibrator(raw)

    def importance(self, features: int) -> np.ndarray:
        """The model's importance (features,) of each feature, its missing flag included; sum 1."""
        s = self.statistics
        found = algorithm(self.model).importance(self.arrays, s.width)
        out = np.zeros(features)
        np.add.at(out, np.concatenate([s.keep, s.indicator]), found)
        return out / out.sum() if out.sum() > 0 else out

    def dump(self) -> bytes:
        """The scorer as the bytes of one ``.npz`` file (no pickle)."""
        named = ("model", "slope", "intercept", "threshold", "bend")
        plain = {k: getattr(self, k) for k in named if k != "bend" or self.bend}
        held: dict[str, Any] = {"plain": np.array(json.dumps(plain))}
        held |= {f"model.{k}": v for k, v in self.arrays.items()}
        held |= {f"preparation.{k}": v for k, v in self.statistics.arrays().items()}
        if self.curve.size:
            held["calibration.curve"] = self.curve
        sink = io.BytesIO()
        np.savez(sink, **held)
        return sink.getvalue()

    @classmethod
    def parse(cls, data: bytes) -> Scorer:
        """The inverse of :meth:`dump`. Raises ValueError or KeyError where it is none."""
        parts: dict[str, dict[str, Any]] = {"model": {}, "preparation": {}, "calibration": {}}
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            plain = json.loads(str(file["plain"]))
            for key in file.files:
                room, _, name = key.partition(".")
                if name:
                    parts[room][name] = file[key]
        statistics = preparation.Statistics(**parts["preparation"])
        return cls(statistics=statistics, arrays=parts["model"], **plain, **parts["calibration"])


def parity(
    scorer: Scorer, values: np.ndarray, expected: np.ndarray, *, raw: np.ndarray | None = None
) -> float:
    """The :func:`difference` to Spark's risks. Raises ParityError where it is more than allowed."""
    return held(scorer, difference(scorer, values, expected, raw=raw))


def difference(
    scorer: Scorer, values: np.ndarray, expected: np.ndarray, *, raw: np.ndarray | None = None
) -> float:
    """The largest difference of the scorer's risks of ``values`` (n, f) to ``expected`` (n,).

    ``raw`` (n,): Spark's risks before recalibration. Of a model that may lie off by more than 1e-9
    these are compared, for a steep recalibration magnifies what they lie off; and what it makes of
    Spark's own must be ``expected`` to 1e-9, or the difference is infinite.
    """
    if not len(expected):
        return 0.0
    if raw is None or getattr(algorithm(scorer.model), "TOLERANCE", EXACT) <= EXACT:
        return float(np.abs(scorer.score(values) - expected).max())
    off = float(np.abs(scorer.calibrator(raw) - expected).max())
    if not off <= EXACT:
        return float("nan") if np.isnan(off) else float("inf")
    plain = replace(scorer, slope=1.0, intercept=0.0, bend=0.0, curve=np.zeros((2, 0)))
    return float(np.abs(plain.score(values) - raw).max())


def held(scorer: Scorer, worst: float) -> float:
    """The difference, where a scorer may have it: 1e-9, or what the model's file allows.

    Raises ParityError above it.
    """
    most = getattr(algorithm(scorer.model), "TOLERANCE", EXACT)
    if not worst <= most:
        raise ParityError(
            f"the scorer differs from Spark by {worst:.2e}, more than {most:g}",
            where=f"models.{scorer.model}",
            mend="the bundle is not written; report this with the model's options",
        )
    return worst
