"""Recalibration and thresholds of grouped risks equal those of the rows one by one."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.learn import calibration
from clinloom.learn.risks import Risks

RNG = np.random.default_rng(2)


def rows(ties):
    odds = RNG.normal(-1, 1.5, 3000)
    label = RNG.random(3000) < 1 / (1 + np.exp(-(0.4 + 0.6 * odds)))
    risk = 1 / (1 + np.exp(-odds))
    return label, np.round(risk, 1) if ties else risk


def best(label, risk, by):
    """Every threshold between two unequal risks, tried."""
    known = np.unique(risk)[::-1]
    found = []
    for at, p in enumerate(known):
        hit = (label & (risk >= p)).sum()
        called = (risk >= p).sum()
        f1 = 2 * hit / (called + label.sum())
        youden = hit / label.sum() - (called - hit) / (~label).sum()
        after = known[at + 1] if at + 1 < len(known) else 0.0
        found.append((f1 if by == "f1" else youden, (p + after) / 2))
    return max(found, key=lambda f: f[0])[1]


@pytest.mark.parametrize("ties", [False, True])
def test_slope_and_intercept_are_those_of_a_logistic_regression(ties):
    sm = pytest.importorskip("statsmodels.api")
    label, risk = rows(ties)
    x = sm.add_constant(calibration.logit(risk))
    intercept, slope = sm.Logit(label.astype(float), x).fit(disp=0, tol=1e-12).params
    assert calibration.learn(Risks.of(label, risk)) == pytest.approx((slope, intercept), abs=1e-7)


@pytest.mark.parametrize("by", ["f1", "youden"])
@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_is_the_best_of_all(ties, by):
    label, risk = rows(ties)
    found = calibration.threshold(Risks.of(label, risk), by=by)
    assert found == pytest.approx(best(label, risk, by), abs=1e-12)


def test_risks_without_signal_give_nearly_the_prevalence():
    risks = Risks.of(RNG.random(2000) < 0.2, RNG.random(2000))
    slope, intercept = calibration.learn(risks)
    assert slope == 0.01
    made = risks.mapped(calibration.Calibrator(slope, intercept))
    mean = np.average(made.score, weights=risks.total)
    assert mean == pytest.approx(risks.positives / 2000, abs=0.01)


@pytest.mark.parametrize("method", ["platt", "isotonic", "beta", "none"])
def test_a_calibration_learned_anew_comes_after_the_first(method):
    label, risk = rows(False)
    first = calibration.learned(Risks.of(label, risk), method)
    both = calibration.apply(first(risk), 0.7, -0.2)
    assert np.abs(first.then(0.7, -0.2)(risk) - both).max() < 1e-12
