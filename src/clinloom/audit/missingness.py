"""Missing values that tell the outcome: one column's, or their pattern alone.

Who is examined is ill, so that what is missing tells something; where it tells the outcome as well
as a strong model does, a value was asked for because of the outcome, or written after it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clinloom.audit import Evidence, Finding
from clinloom.audit._figures import area_of, auroc, exceeds, regressed

TITLE = "the outcome predicted from which values are missing, each alone and all together"
BLIND = "a pattern that tells less than a strong model does: that somebody was examined is honest"
SINGLE, TOGETHER = 0.8, 0.85
MOST = 400  # patterns in the regression, those nearest to half


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a code whose absence tells the outcome; else one for the pattern."""
    missing = np.isnan(seen.values)
    share = missing.mean(axis=0) if len(missing) else np.zeros(len(seen.features))
    varies = np.flatnonzero((share > 0) & (share < 1))
    if not len(varies):
        return
    kinds, first = np.unique(np.packbits(missing[:, varies], axis=0), axis=1, return_index=True)
    once = varies[np.sort(first)]
    alone = []
    for at in once:
        area = auroc(missing[:, at].astype(float), seen.positive)
        area = max(area, 1 - area)
        if exceeds(area, *seen.sizes, bound=SINGLE, looks=len(once)):
            alone.append((seen.features[at].code, area))
    for code, area in {code: area for code, area in sorted(alone, key=lambda a: a[1])}.items():
        yield Finding(
            "missingness",
            code,
            f"that it is missing has an AUROC of {area:.3f} alone",
            "it was asked for because of the outcome, or written after it",
            "leave it out, or see when and for whom it is written",
        )
    if alone:
        return
    chosen = once[np.argsort(np.abs(share[once] - 0.5), kind="stable")[:MOST]]
    score = regressed(missing[:, chosen].astype(float), seen.positive, seen.fold)
    area = area_of(score, seen.positive, seen.fold)
    if exceeds(area, *seen.sizes, bound=TOGETHER):
        yield Finding(
            "missingness",
            "pattern",
            f"which values are missing has an AUROC of {area:.3f}, out of fold",
            "what is measured tells the outcome, not what it shows",
            "see which values are written for patients with the outcome alone",
        )
