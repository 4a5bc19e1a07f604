"""One feature that tells the outcome too well alone.

What is measured before an outcome reaches an AUROC of .85, seldom .9; what was written after it
reaches more. A feature is named where its AUROC lies above .9 by more than chance, by its numbers
or by its levels, of which missing is one.
"""

from __future__ import annotations

from collections.abc import Iterator

from clinloom.audit import Evidence, Finding
from clinloom.audit._figures import alone, exceeds, plain

TITLE = "each feature's AUROC alone, in training rows, by its numbers and by its levels"
BLIND = "a leak that tells a part only of the outcomes, and several that tell it together"
BOUND = 0.9


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a code whose best feature is too good: its statistics tell the same."""
    best: dict[str, tuple[float, str]] = {}
    fold, looks = seen.fold, 2 * len(seen.features)
    for at, feature in enumerate(seen.features):
        column = seen.values[:, at]
        area, ones, zeros = plain(column, seen.positive)
        areas = [area] if exceeds(area, ones, zeros, bound=BOUND, looks=looks) else []
        area = alone(column, seen.positive, fold)
        areas += [area] if exceeds(area, *seen.sizes, bound=BOUND, looks=looks) else []
        if areas and max(areas) > best.get(feature.code, (0.0, ""))[0]:
            best[feature.code] = max(areas), feature.name
    for code, (area, name) in best.items():
        yield Finding(
            "strong_feature",
            code,
            f"{name} alone has an AUROC of {area:.3f}",
            f"what is known before an outcome seldom tells it better than {BOUND}",
            "leave the code out where it is written with or after the outcome",
        )
