"""Which changes raise an alarm: every question with its share of the false alarms, and its size.

``level`` is the chance that a report raises any alarm though nothing changed. The kinds of question
that the data can answer share it evenly; within a kind, Benjamini and Hochberg's rule (features,
codes) or Holm's (all others) divides it among periods, features and subgroups. An alarm needs a
change that chance does not explain *and* one large enough to matter, so that neither few rows nor
very many cry wolf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom.evaluate import cells, drift, outcomes
from clinloom.evaluate.asked import (
    KINDS,
    LACKING,
    OFTEN,
    SHIFTED,
    Asked,
    rounded,
    short,
)
from clinloom.evaluate.cells import CELLS
from clinloom.evaluate.watch import FEW, Reference, Seen, seen

SHOWN = 25  # features whose numbers are listed

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def judge(
    reference: Reference,
    found: Mapping[str, pa.Table],
    *,
    labels: Mapping[int, str],
    groups: Sequence[str] = (),
    features: pa.Table | None = None,
    codes: pa.Table | None = None,
    level: float = 0.05,
) -> dict[str, Any]:
    """The verdict on new rows, as plain data.

    ``found``: merged ``watch.sums``; ``labels``: the periods by number; ``groups``: the subgroups'
    names; ``features``: ``Cells.counts`` by the reference's edges; ``codes``: columns code, unit
    (null: the code itself) and patients. Answers ``alarms`` (kind, what, period, found, expected,
    p; of a feature the first period), ``kinds`` (with level and tests), ``periods``, ``features``,
    ``groups``, ``calibration``, ``limit`` of the running sum, and ``hidden``: how many periods are
    of too few patients.
    """
    of, spread = seen(found)
    large = [key for key in sorted(labels) if key in of and of[key].rows * of[key].apart >= FEW]
    known = [key for key in large if of[key].known]
    judged = bool(known) and np.isfinite(reference.whole.intercept)
    of_group = {
        name: of[-1 - at]
        for at, name in enumerate(groups)
        if -1 - at in of and of[-1 - at].known and name in reference.groups
    }
    kinds = [
        *(("inputs", "missing") if features is not None and reference.names else ()),
        *(("codes",) if codes is not None else ()),
        *("predictions", "flagged"),
        *(("calibration", "running", "discrimination") if judged else ()),
        *(("subgroups",) if judged and of_group else ()),
    ]
    asked = Asked(kinds, level)
    periods = {key: _period(labels[key], of[key]) for key in large}
    _predictions(asked, reference, found, of, periods)
    listed = _features(asked, reference, features, of, labels, large) if "inputs" in kinds else []
    if codes is not None:
        _codes(asked, reference, codes)
    limit = None
    if judged:
        limit = outcomes.by_period(asked, reference, {k: of[k] for k in known}, periods, spread)
    shown = [of[key] for key in known if of[key].told]
    told = (
        outcomes.by_group(asked, reference, of_group, spread, shown) if "subgroups" in kinds else []
    )
    order = list(KINDS)
    return {
        "alarms": sorted(asked.alarms, key=lambda a: (order.index(a["kind"]), a["p"])),
        "level": level,
        "kinds": {
            kind: {"asks": KINDS[kind], "level": short(asked.share), "tests": asked.tests[kind]}
            for kind in kinds
        },
        "periods": list(periods.values()),
        "features": listed,
        "groups": told,
        "calibration": outcomes.tenths(shown),
        "limit": limit,
        "hidden": len([key for key in labels if key in of]) - len(large),
    }


def _period(label: str, one: Seen) -> dict[str, Any]:
    """What is told of a period before anything is asked of it."""
    apart = min(one.patients.marked, one.patients.unmarked) >= FEW
    told = {"period": label, "rows": one.rows}
    told["flagged"] = rounded(one.flagged / one.rows) if apart else None
    told["known"] = one.known if one.known * one.known_apart >= FEW else None
    return told


def _predictions(
    asked: Asked,
    reference: Reference,
    found: Mapping[str, pa.Table],
    of: Mapping[int, Seen],
    periods: Mapping[int, dict[str, Any]],
) -> None:
    """The risks, and how many of them are flagged, by period."""
    counts, _ = cells.dense(found["risks"], list(periods), 1)
    old = reference.risk.counts[:, :CELLS]
    share = reference.flagged / reference.rows
    tests, often = [], []
    for at, (key, told) in enumerate(periods.items()):
        one = of[key]
        p, psi, ks = drift.cells(counts[at, :, :CELLS], one.apart, old, reference.rows_apart)
        size = _size(counts[at, 0], old[0], psi[0], ks[0])
        told |= size
        what = {"what": "risk", "period": told["period"], "expected": 0.0}
        tests.append((float(p[0]), _moved(psi[0], ks[0]), {**what, "found": size}))
        n, m = one.rows * one.apart, reference.rows * reference.rows_apart
        flagged = one.flagged / one.rows
        p_often = float(drift.changed(flagged * n, n, share * m, m))
        said = {"what": "flagged", "period": told["period"], "found": told["flagged"]}
        large = abs(flagged - share) >= OFTEN
        often.append((p_often, large, {**said, "expected": rounded(share)}))
    asked.several("predictions", tests)
    asked.several("flagged", often)


def _moved(psi: float, ks: float) -> bool:
    """Whether a change of a distribution is large enough to tell."""
    return bool(psi >= SHIFTED or ks >= SHIFTED)


def _size(new: Ints, old: Ints, psi: float, ks: float) -> dict[str, float | None]:
    """How large a change is; hidden where a few lie on a side of the cut that it tells of."""
    below, under = np.cumsum(new[:CELLS])[:-1], np.cumsum(old[:CELLS])[:-1]
    rows, others = max(1, int(new[:CELLS].sum())), max(1, int(old[:CELLS].sum()))
    side = int(below[np.argmax(np.abs(below / rows - under / others))])
    if any(0 < n < FEW for n in (side, rows - side)):
        return {"psi": None, "ks": None}
    return {"psi": rounded(psi), "ks": rounded(ks)}


def _features(
    asked: Asked,
    reference: Reference,
    features: pa.Table,
    of: Mapping[int, Seen],
    labels: Mapping[int, str],
    periods: Sequence[int],
) -> list[dict[str, Any]]:
    """Every feature in every period; the numbers of those that changed most."""
    names, old = reference.names, reference.features.counts
    counts, _ = cells.dense(features, periods, len(names))
    shape = (len(periods), len(names))
    p, psi, ks, p_missing, share = (np.full(shape, np.nan) for _ in range(5))
    rows, before = counts.sum(axis=2), old.sum(axis=1)
    was = old[:, CELLS] / np.maximum(1, before)
    for at, key in enumerate(periods):
        again = np.minimum(1.0, of[key].rows / np.maximum(1, rows[at]))  # moments that came twice
        n, m = of[key].apart * again, reference.apart
        p[at], psi[at], ks[at] = drift.cells(counts[at, :, :CELLS], n, old[:, :CELLS], m)
        x = counts[at, :, CELLS]
        p_missing[at] = drift.changed(n * x, n * rows[at], m * old[:, CELLS], m * before)
        share[at] = np.where(rows[at] > 0, x / np.maximum(1, rows[at]), np.nan)
    when = [labels[key] for key in periods]
    large = (psi >= SHIFTED) | (ks >= SHIFTED)
    for feature, at in asked.passed("inputs", p, large):
        size = _size(counts[at, feature], old[feature], psi[at, feature], ks[at, feature])
        told = {"what": names[feature], "period": when[at], "found": size, "expected": 0.0}
        asked.told("inputs", p[at, feature], **told)
    for feature, at in asked.passed("missing", p_missing, np.abs(share - was) >= LACKING):
        now = _masked(share[at, feature], rows[at, feature])
        told = {"what": names[feature], "period": when[at], "found": now}
        told["expected"] = rounded(was[feature])
        asked.told("missing", p_missing[at, feature], **told)
    least = np.minimum(p, p_missing).min(axis=0, initial=1.0)
    out = []
    for at in np.argsort(least, kind="stable")[:SHOWN]:
        columns = (counts[:, at], psi[:, at], ks[:, at])
        sizes = [_size(new, old[at], *one) for new, *one in zip(*columns, strict=True)]
        out.append(
            {
                "feature": names[at],
                "p": short(least[at]),
                "psi": [size["psi"] for size in sizes],
                "ks": [size["ks"] for size in sizes],
                "missing": [_masked(v, n) for v, n in zip(share[:, at], rows[:, at], strict=True)],
                "was_missing": rounded(was[at]),
            }
        )
    return out


def _masked(share: float, rows: int) -> float | None:
    """A share that is told where neither side is of few."""
    few = share == share and 0 < min(share, 1 - share) * rows < FEW
    return None if few else rounded(share)


def _codes(asked: Asked, reference: Reference, codes: pa.Table) -> None:
    """Codes, and units of known codes, that training did not see in 5 patients."""
    rows = codes.to_pylist()
    pairs = sum(row["patients"] for row in rows if row["unit"] is None)
    new: list[tuple[int, str]] = []
    for row in rows:
        code, unit = row["code"], row["unit"]
        units = reference.codes.get(code)
        if (units is None) if unit is None else (units is not None and unit not in units):
            what = code if unit is None else f"{code} in {unit or 'no unit'}"
            new.append((row["patients"], what))
    counts = np.array([count for count, _ in new], float)
    p = drift.changed(counts, pairs, FEW - 1, max(reference.pairs, FEW), sides=1)
    for at, _ in asked.passed("codes", p[None], (counts >= FEW)[None]):
        count, name = new[at]
        asked.told("codes", p[at], what=name, period=None, found=count, expected=f"<{FEW}")
