"""What is foreign to a bundle in other data: their patients' characteristics, its codes, its units.

What the training rows were like, the bundle tells in cells of which none holds fewer than 5
patients; of the rows here, no smaller count is told either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom.deploy.bundle import Bundle
from clinloom.evaluate import casemix
from clinloom.evaluate.cells import CELLS
from clinloom.events import ANSWER
from clinloom.features import Feature
from clinloom.learn.sketch import Sketch
from clinloom.report import validity
from clinloom.report.figures import FEW
from clinloom.run import predict

MOST = 25  # characteristics, and codes of a kind, that are listed
Ints = npt.NDArray[np.int64]


def shown(bundle: Bundle) -> list[int]:
    """The characteristics (columns) on whose codes the model leans most, in their order."""
    weight = bundle.scorer.importance(len(bundle.features))
    of_code: dict[str, float] = {}
    for feature, share in zip(bundle.features, weight, strict=True):
        of_code[_whole(feature)] = of_code.get(_whole(feature), 0.0) + float(share)
    every = predict.characteristics(bundle.features)
    ranked = sorted(every, key=lambda at: (-of_code[_whole(bundle.features[at])], at))
    return sorted(ranked[:MOST])


def _whole(feature: Feature) -> str:
    return f"{feature.family}|{feature.code}"


def characteristics(
    bundle: Bundle, shown: Sequence[int], found: Sketch, cells: tuple[Ints, Ints]
) -> list[dict[str, Any]]:
    """Table 1 of both: what training rows were like, these rows, and how far they differ.

    ``found``: of the features ``shown``; ``cells``: rows and patients (f, 11) by the reference's
    cells. A difference from which a small count could be had is left out.
    """
    kept, (rows, patients) = bundle.reference.features, cells
    apart = casemix.differences(rows, kept.counts)
    quartiles = found.quantiles((0.5, 0.25, 0.75))
    out = []
    for number, at in enumerate(shown):
        edges, counts, known = kept.cells.edges[at], kept.counts[at], patients[at, :CELLS]
        cuts, lacking = edges[np.isfinite(edges)], int(rows[at, CELLS])
        two = len(cuts) == 1
        few = known.sum() < FEW or (two and bool(((known > 0) & (known < FEW)).any()))
        whole = int(rows[at, :CELLS].sum())
        above = validity.counted(int(rows[at, 1]), whole, lacking)
        plain = two and cuts[0] == 0 and not found.most[number] > 1
        out.append(
            {
                "feature": bundle.features[at].name,
                "there": _there(edges, counts[:CELLS]),
                "here": None
                if whole < FEW
                else above
                if two
                else [round(float(v), 4) for v in quartiles[:, number]],
                "above": None if plain or not two else float(cuts[0]),
                "difference": None if few or np.isnan(apart[at]) else round(float(apart[at]), 4),
                "missing_there": _share(counts[CELLS], counts.sum()),
                "missing_here": validity.missing(lacking, whole),
            }
        )
    return out


def _there(edges: np.ndarray, counts: Ints) -> list[tuple[str, float]] | float | None:
    """Median and quartiles, or of two cells the share above the edge between them."""
    if np.isfinite(edges).sum() == 1:
        return _share(counts[1], counts.sum())
    return casemix.quantiles(edges, counts, (0.5, 0.25, 0.75)) or None


def chance(bundle: Bundle, patients: int) -> float:
    """How far a characteristic of so many patients may differ by chance, 19 times in 20."""
    kept = bundle.reference.features.counts
    there = float(kept.sum(axis=1).max(initial=1)) * bundle.reference.apart
    return round(float(1.96 * np.sqrt(1 / patients + 1 / max(there, 1.0))), 4)


def _share(part: int, whole: int) -> float | None:
    return round(float(part / whole), 4) if whole else None


def leaning(bundle: Bundle, present: Ints, rows: Ints) -> dict[str, Any]:
    """How much of what the model leans on is missing here.

    ``present`` (f,): patients with a value that is known and not 0; ``rows`` (f, 11): by cell. A
    code is absent where fewer than 5 patients have any of its features. ``weight``: its share of
    the model's importance; ``missing_there`` and ``missing_here``: how often a value is missing, on
    average by importance.
    """
    listed, weight = bundle.features, bundle.scorer.importance(len(bundle.features))
    most: dict[str, int] = {}
    leans: dict[str, float] = {}
    for feature, patients, share in zip(listed, present.tolist(), weight.tolist(), strict=True):
        most[feature.code] = max(most.get(feature.code, 0), patients)
        leans[feature.code] = leans.get(feature.code, 0.0) + share
    absent = [code for code, patients in most.items() if patients < FEW]
    absent.sort(key=lambda code: (-leans[code], code))
    there = bundle.reference.features.counts

    def missing(counts: Ints) -> float | None:
        known = counts.sum(axis=1) > 0
        share = counts[known, CELLS] / counts[known].sum(axis=1)
        total = weight[known].sum()
        return round(float((weight[known] * share).sum() / total), 4) if total > 0 else None

    return {
        "codes": len(most),
        "absent": len(absent),
        "absent_weight": round(sum(leans[code] for code in absent), 4),
        "absent_codes": [{"code": c, "weight": round(leans[c], 4)} for c in absent[:MOST]],
        "missing_there": missing(there),
        "missing_here": missing(rows),
    }


def codes(bundle: Bundle, seen: pa.Table) -> dict[str, Any]:
    """Units of the model's codes, and codes, that training did not see: of 5 patients or more.

    ``seen``: SEEN of the events here, before cleaning.
    """
    known, used = bundle.reference.codes, {f.code.split(ANSWER)[0] for f in bundle.features}
    rows = [row for row in seen.to_pylist() if row["patients"] >= FEW]
    units = [
        {"code": row["code"], "unit": row["unit"], "patients": row["patients"]}
        for row in rows
        if row["unit"] is not None
        and row["code"] in used
        and row["code"] in known
        and row["unit"] not in known[row["code"]]
    ]
    new = [row for row in rows if row["unit"] is None and row["code"] not in known]
    new.sort(key=lambda row: (-row["patients"], row["code"]))
    listed = [{"code": row["code"], "patients": row["patients"]} for row in new[:MOST]]
    return {"units": units[:MOST], "new": len(new), "new_codes": listed}
