"""Which changes raise an alarm: every question with its share of the false alarms, and its size.

``level`` is the chance that a report raises any alarm though nothing changed. The kinds of question
that the data can answer share it evenly; within a kind, Benjamini and Hochberg's rule (features,
codes) or Holm's (all others) divides it among periods, features and subgroups. An alarm needs a
change that chance does not explain *and* one large enough to matter, so that neither few rows nor
very many cry wolf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom.evaluate import calibration, cells, drift, fitness
from clinloom.evaluate.cells import CELLS
from clinloom.evaluate.fitness import Estimate, Sums
from clinloom.evaluate.watch import FEW, Reference, Seen, seen
from clinloom.learn.risks import Risks

KINDS = {
    "inputs": "the known values of a feature",
    "missing": "how often a feature is missing",
    "codes": "codes and units that training did not see",
    "predictions": "the distribution of the risks",
    "flagged": "the share of moments that are flagged",
    "calibration": "calibration intercept or slope of a period",
    "running": "the running sum of outcomes less what was expected",
    "discrimination": "the area under the ROC curve",
    "subgroups": "intercept or area of a subgroup",
}
SHIFTED = 0.1  # of the population stability index above chance, or of the KS distance
LACKING = 0.05  # of a share that is missing
OFTEN = 0.02  # of the share that is flagged
LOGITS = 0.1  # of an intercept or a slope
AREA = 0.02  # of an area under the ROC curve
SHOWN = 25  # features whose numbers are listed

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Alarm = dict[str, Any]


@dataclass
class _Asked:
    """The questions put so far: their p-values and what they would tell, by kind."""

    kinds: Sequence[str]
    level: float
    alarms: list[Alarm] = field(default_factory=list)
    tests: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The level of each kind."""
        return self.level / max(1, len(self.kinds))

    def told(self, kind: str, p: float, **told: Any) -> None:
        """Raise an alarm."""
        self.alarms.append({"kind": kind, **told, "p": _short(p)})

    def passed(self, kind: str, p: Floats, large: Flags) -> Iterator[tuple[int, int]]:
        """Features with an alarm, of tests (periods, f), each with its first period of one."""
        self.tests[kind] = p.size
        passed = drift.alarming(p, self.share) & large
        for feature in np.flatnonzero(passed.any(axis=0)):
            yield int(feature), int(np.argmax(passed[:, feature]))

    def several(self, kind: str, tests: Sequence[tuple[float, bool, Alarm]]) -> None:
        """A few tests of a kind: p-value, whether the change is large enough, and what to tell."""
        passed = drift.holm(np.array([test[0] for test in tests], float), self.share)
        self.tests[kind] = len(tests)
        for (one, large, told), rejects in zip(tests, passed, strict=True):
            if rejects and large:
                self.told(kind, one, **told)


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
    asked = _Asked(kinds, level)
    periods = {key: _period(labels[key], of[key]) for key in large}
    _predictions(asked, reference, found, of, periods)
    listed = _features(asked, reference, features, of, labels, large) if "inputs" in kinds else []
    if codes is not None:
        _codes(asked, reference, codes)
    limit = None
    if judged:
        limit = _outcomes(asked, reference, {k: of[k] for k in known}, periods, spread)
    told = _groups(asked, reference, of_group, spread) if "subgroups" in kinds else []
    order = list(KINDS)
    return {
        "alarms": sorted(asked.alarms, key=lambda a: (order.index(a["kind"]), a["p"])),
        "level": level,
        "kinds": {
            kind: {"asks": KINDS[kind], "level": _short(asked.share), "tests": asked.tests[kind]}
            for kind in kinds
        },
        "periods": list(periods.values()),
        "features": listed,
        "groups": told,
        "calibration": _tenths([of[key] for key in known if of[key].told]),
        "limit": limit,
        "hidden": len([key for key in labels if key in of]) - len(large),
    }


def _period(label: str, one: Seen) -> dict[str, Any]:
    """What is told of a period before anything is asked of it."""
    apart = min(one.flagged, one.rows - one.flagged) >= FEW
    told = {"period": label, "rows": one.rows}
    told["flagged"] = _round(one.flagged / one.rows) if apart else None
    told["known"] = one.known if one.known >= FEW else None
    return told


def _predictions(
    asked: _Asked,
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
        told |= {"psi": _round(psi[0]), "ks": _round(ks[0])}
        what = {"what": "risk", "period": told["period"], "expected": 0.0}
        size = {"psi": _round(psi[0]), "ks": _round(ks[0])}
        tests.append((float(p[0]), _moved(psi[0], ks[0]), {**what, "found": size}))
        n, m = one.rows * one.apart, reference.rows * reference.rows_apart
        flagged = one.flagged / one.rows
        p_often = float(drift.changed(flagged * n, n, share * m, m))
        said = {"what": "flagged", "period": told["period"], "found": told["flagged"]}
        large = abs(flagged - share) >= OFTEN
        often.append((p_often, large, {**said, "expected": _round(share)}))
    asked.several("predictions", tests)
    asked.several("flagged", often)


def _moved(psi: float, ks: float) -> bool:
    """Whether a change of a distribution is large enough to tell."""
    return bool(psi >= SHIFTED or ks >= SHIFTED)


def _features(
    asked: _Asked,
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
        size = {"psi": _round(psi[at, feature]), "ks": _round(ks[at, feature])}
        told = {"what": names[feature], "period": when[at], "found": size, "expected": 0.0}
        asked.told("inputs", p[at, feature], **told)
    for feature, at in asked.passed("missing", p_missing, np.abs(share - was) >= LACKING):
        now = _masked(share[at, feature], rows[at, feature])
        told = {"what": names[feature], "period": when[at], "found": now}
        told["expected"] = _round(was[feature])
        asked.told("missing", p_missing[at, feature], **told)
    least = np.minimum(p, p_missing).min(axis=0, initial=1.0)
    return [
        {
            "feature": names[at],
            "p": _short(least[at]),
            "psi": [_round(v) for v in psi[:, at]],
            "ks": [_round(v) for v in ks[:, at]],
            "missing": [_masked(v, n) for v, n in zip(share[:, at], rows[:, at], strict=True)],
            "was_missing": _round(was[at]),
        }
        for at in np.argsort(least, kind="stable")[:SHOWN]
    ]


def _masked(share: float, rows: int) -> float | None:
    """A share that is told where neither side is of few."""
    few = share == share and 0 < min(share, 1 - share) * rows < FEW
    return None if few else _round(share)


def _codes(asked: _Asked, reference: Reference, codes: pa.Table) -> None:
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


def _outcomes(
    asked: _Asked,
    reference: Reference,
    of: Mapping[int, Seen],
    periods: Mapping[int, dict[str, Any]],
    spread: float,
) -> float | None:
    """Calibration and discrimination of each period, and the running sum; answers its limit."""
    whole = reference.whole
    believed, area, stream = [], [], []
    for key, one in of.items():
        told = periods[key]
        made = fitness.estimate(one.risks, spread=spread, apart=one.known_apart)
        sums = Sums.of(one.risks, whole.intercept)
        stream.append(sums)
        what = {"what": "all", "period": told["period"]}
        believed += _believed(made, whole, sums, spread, what, told=one.told)
        area.append(_area(made, whole, sums, what, told=one.told))
        told |= _told(made, one)
    asked.several("calibration", believed)
    asked.several("discrimination", area)
    ran = fitness.running(stream, level=asked.share, spread=spread, error=whole.intercept_error)
    for at, key in enumerate(of):
        periods[key] |= {"up": _round(ran.up[at]), "down": _round(ran.down[at])}
    asked.tests["running"] = len(stream)
    for way, path in (("more", ran.up), ("fewer", ran.down)):
        over = np.flatnonzero(path > ran.limit)
        if over.size:
            label = periods[list(of)[over[0]]]["period"]
            sides = {"found": _round(path.max()), "expected": _round(ran.limit)}
            name = f"{way} outcomes than expected"
            asked.told("running", asked.share, what=name, period=label, **sides)
    return _round(ran.limit)


def _groups(
    asked: _Asked, reference: Reference, of: Mapping[str, Seen], spread: float
) -> list[dict[str, Any]]:
    """Calibration and discrimination of each subgroup over all periods."""
    tests, out = [], []
    for name, one in of.items():
        was = reference.groups[name]
        made = fitness.estimate(one.risks, spread=spread, apart=one.known_apart)
        sums = Sums.of(one.risks, was.intercept if np.isfinite(was.intercept) else 0.0)
        what = {"what": name, "period": None}
        if np.isfinite(was.intercept):
            tests += _believed(made, was, sums, spread, what, told=one.told)[:1]
            tests.append(_area(made, was, sums, what, told=one.told))
        out.append({"group": name, "known": one.known, **_told(made, one)})
    asked.several("subgroups", tests)
    few = {one["group"].split()[0] for one in out if one["observed"] is None}
    blank = dict.fromkeys(("known", "observed", "predicted", "intercept", "slope", "auroc"))
    return [{**one, **(blank if one["group"].split()[0] in few else {})} for one in out]


def _believed(
    made: Estimate, was: Estimate, sums: Sums, spread: float, what: Alarm, *, told: bool
) -> list[tuple[float, bool, Alarm]]:
    """The tests of an intercept and, where there are outcomes enough, of a slope."""
    p = fitness.too_many(sums, spread=spread, error=was.intercept_error)
    large = not abs(made.intercept - was.intercept) < LOGITS
    tests = [(p, large, _change(what, "intercept", made.intercept, was.intercept, told=told))]
    if _enough(sums):
        p = fitness.differs(made.slope, made.slope_error, was.slope, was.slope_error)
        large = abs(made.slope - was.slope) >= LOGITS
        tests.append((p, large, _change(what, "slope", made.slope, was.slope, told=told)))
    return tests


def _change(what: Alarm, of: str, found: float, was: float, *, told: bool) -> Alarm:
    """What an alarm tells; of few outcomes only that it is one."""
    return {**what, "of": of, "found": _round(found) if told else None, "expected": _round(was)}


def _area(
    made: Estimate, was: Estimate, sums: Sums, what: Alarm, *, told: bool
) -> tuple[float, bool, Alarm]:
    """The test of whether an area fell."""
    p = 1.0
    if _enough(sums):
        p = fitness.differs(made.area, made.area_error, was.area, was.area_error, sides=1)
    now, before = _auroc(made), _auroc(was)
    return p, before - now >= AREA, _change(what, "auroc", now, before, told=told)


def _enough(sums: Sums) -> bool:
    """Whether a slope or an area is tested; what is expected does not depend on what came."""
    return min(sums.expected, sums.total - sums.expected) >= fitness.EXPECTED


def _auroc(found: Estimate) -> float:
    return float(1 / (1 + np.exp(-found.area)))


def _told(made: Estimate, one: Seen) -> dict[str, Any]:
    """What is told of outcomes; nothing where few have, or have not, the outcome."""
    names = ("observed", "predicted", "intercept", "slope", "auroc")
    if not one.told:
        return dict.fromkeys(names)
    predicted = float((one.risks.score * one.risks.total).sum() / one.known)
    values = (one.positive / one.known, predicted, made.intercept, made.slope, _auroc(made))
    errors = {
        "intercept_error": _round(made.intercept_error),
        "auroc_error": _round(made.area_error * _auroc(made) * (1 - _auroc(made))),
    }
    return dict(zip(names, map(_round, values), strict=True)) | errors


def _tenths(of: Sequence[Seen]) -> list[dict[str, Any]]:
    """The calibration of all periods together, in tenths of the rows by risk."""
    risks = Risks.merge([one.risks for one in of])
    if min(risks.positives, risks.rows - risks.positives) < FEW:
        return []
    total, positive = risks.total.astype(float), risks.positive.astype(float)
    return calibration.tenths(risks.score, positive, total)


def lines(alarms: Sequence[Alarm]) -> Iterator[str]:
    """A line for each alarm."""
    for one in alarms:
        when = f" in {one['period']}" if one.get("period") else ""
        of = f"{one['of']} " if one.get("of") else ""
        yield f"{one['kind']}: {one['what']}{when}: {of}{one['found']}, was {one['expected']}"


def _round(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _short(p: float) -> float:
    return float(f"{p:.2g}")
