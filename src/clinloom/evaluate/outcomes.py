"""What outcomes say of a model at work: by period, as a running sum, and by subgroup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinloom.evaluate import calibration, fitness
from clinloom.evaluate.asked import AREA, LOGITS, Alarm, Asked, rounded
from clinloom.evaluate.fitness import Estimate, Sums
from clinloom.evaluate.watch import FEW, Reference, Seen
from clinloom.learn.risks import Risks

TOLD = ("predicted", "observed", "low", "high")  # of a tenth


def by_period(
    asked: Asked,
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
    for at, (key, one) in enumerate(of.items()):
        if one.told:
            periods[key] |= {"up": rounded(ran.up[at]), "down": rounded(ran.down[at])}
    asked.tests["running"] = len(stream)
    for way, path in (("more", ran.up), ("fewer", ran.down)):
        over = np.flatnonzero(path > ran.limit)
        if over.size:
            label = periods[list(of)[over[0]]]["period"]
            sides = {"found": rounded(path.max()), "expected": rounded(ran.limit)}
            name = f"{way} outcomes than expected"
            asked.told("running", asked.share, what=name, period=label, **sides)
    return rounded(ran.limit)


def by_group(
    asked: Asked,
    reference: Reference,
    of: Mapping[str, Seen],
    spread: float,
    periods: Sequence[Seen],
) -> list[dict[str, Any]]:
    """Calibration and discrimination of each subgroup over all periods; ``periods``: those told.

    Nothing is told of a kind (sexes, ages, sites) of which one subgroup has few outcomes, or what
    the subgroups leave of the periods' outcomes, or have beyond them.
    """
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
    kinds: dict[str, list[Seen]] = {}
    for name, one in of.items():
        kinds.setdefault(_kind(name), []).append(one)
    few = {kind for kind, some in kinds.items() if _few(some, periods)}
    blank = dict.fromkeys(("known", "observed", "predicted", "intercept", "slope", "auroc"))
    return [{**one, **(blank if _kind(one["group"]) in few else {})} for one in out]


def _kind(group: str) -> str:
    return group.split()[0]


def _few(groups: Sequence[Seen], periods: Sequence[Seen]) -> bool:
    """Whether groups tell of few, by themselves or by what they differ from the periods.

    Of whom they differ only the moments are known: they are counted as if each had as many as those
    of the group or period whose patients have the most.
    """
    having = sum(one.positive for one in groups) - sum(one.positive for one in periods)
    rows = sum(one.known for one in groups) - sum(one.known for one in periods)
    every = [*groups, *periods]
    shares = (
        [(one.patients.having, one.positive) for one in every],
        [(one.patients.lacking, one.known - one.positive) for one in every],
    )
    least = [min((who / n for who, n in some if n), default=1.0) for some in shares]
    who = [abs(n) * share for n, share in zip((having, rows - having), least, strict=True)]
    apart = any(0 < patients < FEW for patients in who)
    return apart or not all(one.told for one in groups)


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
    return {**what, "of": of, "found": rounded(found) if told else None, "expected": rounded(was)}


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
        "intercept_error": rounded(made.intercept_error),
        "auroc_error": rounded(made.area_error * _auroc(made) * (1 - _auroc(made))),
    }
    return dict(zip(names, map(rounded, values), strict=True)) | errors


def tenths(of: Sequence[Seen]) -> list[dict[str, Any]]:
    """The calibration of all periods together, in tenths of the rows by risk."""
    risks = Risks.merge([one.risks for one in of])
    if min(risks.positives, risks.rows - risks.positives) < FEW:
        return []
    total, positive = risks.total.astype(float), risks.positive.astype(float)
    found = calibration.tenths(risks.score, positive, total)
    return [{**tenth, **{k: round(tenth[k], 4) for k in TOLD}} for tenth in found]
