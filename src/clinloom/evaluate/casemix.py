"""Other patients than those a model was learned from: how they differ, and what that explains.

A model may tell other patients apart less well because it fails there, or because they are more
alike. The spread of its linear predictor (the log odds of its risks) says how alike they are
(Debray et al., J. Clin. Epidemiol. 68 (2015) 279), and the concordance that its risks would have if
they were right, the model-based one, what is left for it to tell apart (van Klaveren et al., Stat.
Med. 35 (2016) 4136).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from clinloom.evaluate import bootstrap, fitness
from clinloom.evaluate.cells import CELLS
from clinloom.learn.risks import Risks

NUMBERS = ("observed", "predicted", "observed_expected", "odds_mean", "odds_sd", "expected_auroc")
OF_OUTCOMES = ("observed", "observed_expected")  # which tell how many have the outcome

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rows = tuple[Ints, npt.NDArray[np.bool_], Floats]
Number = Mapping[str, float | None]


def measured(score: Floats, positive: Floats, total: Floats) -> Floats:
    """(b, NUMBERS) of groups of equal risk: ``score`` (g,) by falling risk, weights (b, g).

    ``observed`` and ``predicted``: the mean outcome and the mean risk; ``observed_expected``: their
    ratio; ``odds_mean`` and ``odds_sd``: of the linear predictor, in logits; ``expected_auroc``:
    see :func:`concordance`. NaN where a replicate holds no row.
    """
    rows = total.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed, predicted = positive.sum(axis=1) / rows, (total @ score) / rows
        odds = fitness.logit(score)
        mean = (total @ odds) / rows
        apart = (total * (odds - mean[:, None]) ** 2).sum(axis=1) / rows
        found = (observed, predicted, observed / predicted, mean, np.sqrt(apart))
    return np.stack([*found, concordance(score, total)], axis=1)


def concordance(score: Floats, total: Floats) -> Floats:
    """The area under the ROC curve (b,) that these risks would have if they were right.

    Of two rows, one with the outcome and one without, drawn as the risks have it, how often the
    former has the higher risk; ties one half. Outcomes are not looked at.
    """
    events, others = total * score, total * (1 - score)
    itself = (total * score * (1 - score)).sum(axis=1)  # a row is no pair with itself
    above = np.cumsum(events, axis=1) - events / 2
    wins = (others * above).sum(axis=1) - itself / 2
    pairs = events.sum(axis=1) * others.sum(axis=1) - itself
    out: Floats = np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return out


def told(risks: Risks) -> dict[str, float | None]:
    """The numbers of all rows, by name; None where one is undefined."""
    once = risks.positive[None].astype(float), risks.total[None].astype(float)
    return dict(zip(NUMBERS, map(_defined, measured(risks.score, *once)[0]), strict=True))


def drawn(rows: Iterable[Rows], risks: Risks, replicates: Sequence[int], *, seed: int) -> Floats:
    """(replicates, NUMBERS) of a clustered bootstrap; see ``evaluate.replicated``.

    ``rows``: chunks of subject (n,), label (n,) and risks (n, models), of which the first counts;
    ``risks``: the groups of all rows.
    """
    groups = len(risks.score)
    positive, total = np.zeros((2, len(replicates), groups))
    for subject, label, risk in rows:
        group = risks.number(risk[:, 0])
        for at, number in enumerate(replicates):
            weight = bootstrap.times(subject, [number], seed=seed)[0]
            total[at] += np.bincount(group, weight, groups)
            positive[at] += np.bincount(group, weight * label, groups)
    return measured(risks.score, positive, total)


def intervals(replicates: Floats, *, confidence: float) -> dict[str, dict[str, float | None]]:
    """The numbers with percentile intervals, of replicates (1 + b, NUMBERS), ``ONCE`` first."""
    low, high = bootstrap.interval(replicates[1:], confidence)
    return {
        name: {
            "value": _defined(replicates[bootstrap.ONCE, at]),
            "low": _defined(low[at]),
            "high": _defined(high[at]),
        }
        for at, name in enumerate(NUMBERS)
    }


def change(here: Number, there: Number) -> dict[str, float | None]:
    """By how much a number differs between other patients, with an interval made of the two.

    (The method of variance estimates recovery: Zou and Donner, Stat. Med. 27 (2008) 1693)
    """
    new, old = ([one.get(name) for name in ("value", "low", "high")] for one in (here, there))
    if new[0] is None or old[0] is None:
        return dict.fromkeys(("value", "low", "high"))
    apart = new[0] - old[0]
    if None in (*new, *old):
        return {"value": apart, "low": None, "high": None}
    (a, a_low, a_high), (b, b_low, b_high) = np.array(new, float), np.array(old, float)
    return {
        "value": apart,
        "low": float(apart - np.hypot(a - a_low, b_high - b)),
        "high": float(apart + np.hypot(a_high - a, b - b_low)),
    }


def differences(new: Ints, old: Ints) -> Floats:
    """The standardised difference (f,) of features whose known values lie in cells: (f, k) counts.

    A value counts as the share of the old rows below it, half of those in its cell added (its
    ridit: Bross, Biometrics 14 (1958) 18); the difference of the means is divided by the root of
    the mean variance. Of a feature of two cells that is the usual one of a share (Austin, Stat.
    Med. 28 (2009) 3083). NaN where nothing is known, or nothing differs among all rows.
    """
    x, c = np.asarray(new, float)[:, :CELLS], np.asarray(old, float)[:, :CELLS]
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = x / x.sum(axis=1, keepdims=True), c / c.sum(axis=1, keepdims=True)
        ridit = np.cumsum(q, axis=1) - q / 2
        means = [(share * ridit).sum(axis=1) for share in (p, q)]
        spread = sum(
            (share * (ridit - mean[:, None]) ** 2).sum(axis=1)
            for share, mean in zip((p, q), means, strict=True)
        )
        out = (means[0] - means[1]) / np.sqrt(spread / 2)
    return np.asarray(np.where(np.isfinite(out), out, np.nan))


def quantiles(edges: Floats, counts: Ints, at: Sequence[float]) -> list[tuple[str, float]]:
    """Quantiles of one feature from its cells: ``edges`` (9,) and ``counts`` (10,) of known values.

    Values are taken to be spread evenly within a cell; the first and the last have one end only:
    ("<=", edge) and (">", edge). Empty where there is no cell to tell by.
    """
    cuts = edges[np.isfinite(edges)]
    held = np.asarray(counts, float)[: len(cuts) + 1]
    if not len(cuts) or not held.sum():
        return []
    upto = np.cumsum(held) / held.sum()
    out = []
    for share in at:
        cell = int(np.searchsorted(upto, share - 1e-12))
        if cell == 0:
            out.append(("<=", float(cuts[0])))
        elif cell == len(cuts):
            out.append((">", float(cuts[-1])))
        else:
            part = (share - upto[cell - 1]) / (upto[cell] - upto[cell - 1])
            out.append(("", float(cuts[cell - 1] + part * (cuts[cell] - cuts[cell - 1]))))
    return out


def _defined(number: Any) -> float | None:
    return float(number) if np.isfinite(number) else None
