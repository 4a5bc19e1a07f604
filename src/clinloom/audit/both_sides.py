"""A patient on both sides of a division: of the split, or of the folds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from clinloom.audit import Evidence, Finding
from clinloom.audit._figures import Ints, few

TITLE = "patients who stand on both sides of the split, or in several folds, counted over all rows"
BLIND = "one person under two identifiers that no source links"


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a division that somebody straddles."""
    for division, patients in seen.straddling.items():
        if patients:
            yield Finding(
                "both_sides",
                division,
                f"{few(patients)} patients are on several sides",
                "the model is judged on patients that it has learned from",
                "give each patient one side",
            )


def straddling(subject: Ints, sides: Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many of whole patients' rows (n,) are on several sides of each division.

    ``sides``: the side of each row by division; "" or a negative number: on none.
    """
    out = {}
    for division, side in sides.items():
        there = side != "" if side.dtype.kind in "UO" else side >= 0
        _, place = np.unique(side[there], return_inverse=True)
        pairs = np.unique(np.stack([subject[there], place.astype(np.int64)]), axis=1)
        _, count = np.unique(pairs[0], return_counts=True)
        out[division] = int((count > 1).sum())
    return out
