"""The outcome predicted from metadata alone: site, device, projection, identifier, order.

What has nothing to do with illness must not tell it; where it does, a model learns the place and
not the patient, above all from images. Features whose names say that they are such are metadata.
(Zech et al., PLoS Med 2018, 15(11):e1002683; DeGrave et al., Nat Mach Intell 2021, 3:610-619)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clinloom.audit import Evidence, Finding
from clinloom.audit._figures import area_of, encoded, exceeds, levels, present, regressed
from clinloom.vocabulary import leaks

TITLE = (
    "the outcome predicted from metadata alone, where they are known: source, file, order,"
    " identifier, moment, and an image's manufacturer, view, modality and size"
)
BLIND = "a device, ward or site that no table names, such as one that can be seen in the pixels"
SINGLE, TOGETHER = 0.6, 0.65


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a column of metadata that tells the outcome; else one for all together."""
    columns = {name: values for name, values in seen.metadata.items() if _varies(values)}
    for at, feature in enumerate(seen.features):
        if leaks.metadata(feature.code) and _varies(seen.values[:, at]):
            columns[feature.code] = seen.values[:, at]
    fold, named = seen.fold, False
    shares = np.zeros((len(seen.positive), len(columns)))
    for at, (name, values) in enumerate(columns.items()):
        known = present(values)
        positive, part = seen.positive[known], fold[known]
        share = encoded(*levels(values[known]), positive, part)
        area = area_of(share, positive, part)
        ones = int(positive.sum())
        if exceeds(area, ones, len(positive) - ones, bound=SINGLE, looks=len(columns)):
            named = True
            yield _finding(name, area)
        shares[known, at] = share - share.mean()
    if named or len(columns) < 2:
        return
    score = regressed(shares, seen.positive, fold)
    area = area_of(score, seen.positive, fold)
    if exceeds(area, *seen.sizes, bound=TOGETHER):
        yield _finding("metadata", area)


def _varies(values: np.ndarray) -> bool:
    """Whether the known values are not all one."""
    known = values[present(values)]
    return len(known) > 0 and bool((known != known[0]).any())


def _finding(name: str, area: float) -> Finding:
    return Finding(
        "shortcuts",
        name,
        f"it predicts the outcome with an AUROC of {area:.3f} alone, out of fold",
        "a model may learn from where a patient's data come, and not what they say",
        "take patients with and without the outcome from the same places, or adjust for it",
    )
