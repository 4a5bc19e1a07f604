"""Codes that fire almost only with the outcome, ever or just before the prediction moment.

A code is a proxy where nine of ten rows that have it get the outcome, the likelihood ratio is 20 or
more, and both are more than chance: it lies above a ratio of 5 by a binomial test. A window of a
code is a code of its own, so that one which matters in its last hours alone is seen there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clinloom.audit import Evidence, Finding
from clinloom.audit._figures import ALPHA, Flags, Floats, likelier

TITLE = "codes that stand almost only in rows with the outcome, in every window of theirs"
BLIND = "a code that is rarer than ten rows, and one that follows every outcome and much else"
SHARE, RATIO, SURE = 0.9, 20.0, 5.0
FEWEST = 10  # rows that have the code


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a code."""
    positive, negative = seen.sizes
    if not positive or not negative:
        return
    told: set[str] = set()
    for at, feature in enumerate(seen.features):
        fires = _fires(seen.values[:, at], feature.statistic)
        with_it = int((fires & seen.positive).sum())
        without = int(fires.sum()) - with_it
        if feature.code not in told and _proxy(
            with_it, without, positive, negative, looks=len(seen.features)
        ):
            told.add(feature.code)
            yield Finding(
                "proxy_codes",
                feature.code,
                f"{with_it + without:,} sampled rows have it, of which {SHARE:.0%} or more get the"
                f" outcome, as {positive / (positive + negative):.0%} of all do",
                "the code may be the outcome's own shadow, written with or after it",
                "leave it out, or predict earlier",
            )


def _fires(column: Floats, statistic: str) -> Flags:
    """The rows that have the code."""
    known = column == column
    fires: Flags = known & (column > 0) if statistic in ("present", "count") else known
    return fires


def _proxy(with_it: int, without: int, positive: int, negative: int, *, looks: int) -> bool:
    total = with_it + without
    if total < FEWEST or with_it < SHARE * total:
        return False
    ratio = (with_it / positive) / (max(without, 0.5) / negative)
    odds = SURE * positive / negative
    chance = likelier(with_it, total, odds / (1 + odds))
    return ratio >= RATIO and bool(np.less(chance, ALPHA / max(looks, 1)))
