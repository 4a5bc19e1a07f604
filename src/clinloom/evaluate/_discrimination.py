"""How well risks tell outcomes apart: areas under curves, and decisions at a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RANKED = ("auroc", "auprc")
DECIDED = ("accuracy", "precision", "recall", "specificity", "f1")
POINTS = 200


@dataclass(frozen=True)
class Ranked:
    """Rows in order of falling risk: sorted once, weighted many times.

    ``last`` (m,): the last row of each group of equal risks.
    """

    order: np.ndarray
    positive: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, p: np.ndarray) -> Ranked:
        """Sort labels (n,) by risks (n,)."""
        order = np.argsort(-p, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
        return cls(order, y[order], ends)

    def counts(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives (replicates, m) as the threshold falls past each risk."""
        w = weight[:, self.order]
        hit = np.cumsum(w * self.positive, axis=1)[:, self.last]
        false = np.cumsum(w * (1 - self.positive), axis=1)[:, self.last]
        return hit, false

    def metrics(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """AUROC (trapezia: ties count half) and average precision (replicates,)."""
        hit, false = self.counts(weight)
        before = np.hstack([np.zeros((len(hit), 1)), hit[:, :-1]])
        gained = np.diff(false, axis=1, prepend=0.0)
        area = (gained * (hit + before) / 2).sum(axis=1)
        positive, negative = hit[:, -1], false[:, -1]
        flagged = hit + false
        precision = np.divide(hit, flagged, out=np.zeros_like(hit), where=flagged > 0)
        average = ((hit - before) * precision).sum(axis=1) / positive
        return {"auroc": area / (positive * negative), "auprc": average}


def decided(y: np.ndarray, flag: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of decisions (n,) under row weights (replicates, n)."""
    hit = weight @ (flag * y)
    flagged, positive, total = weight @ flag, weight @ y, weight.sum(axis=1)
    rejected = total - flagged - positive + hit
    return {
        "accuracy": (hit + rejected) / total,
        "precision": hit / flagged,
        "recall": hit / positive,
        "specificity": rejected / (total - positive),
        "f1": 2 * hit / (flagged + positive),
    }


def curves(y: np.ndarray, p: np.ndarray) -> dict[str, list[list[float]]]:
    """ROC [false positive rate, recall] and PR [recall, precision] points."""
    hit, false = (c[0] for c in Ranked.of(y, p).counts(np.ones((1, len(y)))))
    keep = np.unique(np.linspace(0, len(hit) - 1, POINTS - 1).round().astype(int))
    hit, false = hit[keep], false[keep]
    recall, alarm, precision = hit / y.sum(), false / (len(y) - y.sum()), hit / (hit + false)
    roc = [[0.0, 0.0], *np.stack([alarm, recall], 1).tolist()]
    return {"roc": roc, "pr": np.stack([recall, precision], 1).tolist()}
