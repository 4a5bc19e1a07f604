"""Recalibration equals the field's references: scikit-learn's and statsmodels'."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.learn import calibration
from clinloom.learn.risks import Risks

RNG = np.random.default_rng(6)
NEW = np.r_[0.0, RNG.random(2000), 1.0]


def rows(size, decimals):
    risk = np.round(RNG.random(size), decimals)
    return RNG.random(size) < risk**2, risk


@pytest.mark.parametrize(("size", "decimals"), [(3000, 6), (3000, 2), (40, 1), (1, 3)])
def test_isotonic_is_scikit_learns(size, decimals):
    isotonic = pytest.importorskip("sklearn.isotonic")
    label, risk = rows(size, decimals)
    made = calibration.learned(Risks.of(label, risk), "isotonic")
    peer = isotonic.IsotonicRegression(out_of_bounds="clip").fit(risk, label)
    assert np.abs(np.interp(NEW, *made.curve) - peer.predict(NEW)).max() < 1e-12
    drawn = np.clip(peer.predict(NEW), calibration.EDGE, 1 - calibration.EDGE)
    assert np.abs(made(NEW) - drawn).max() < 1e-12


def test_beta_is_the_logistic_regression_of_its_authors():
    sm = pytest.importorskip("statsmodels.api")
    label, risk = rows(3000, 6)
    risk = np.clip(risk, 1e-4, 1 - 1e-4)
    made = calibration.learned(Risks.of(label, risk), "beta")
    x = sm.add_constant(np.stack([np.log(risk), -np.log(1 - risk)], axis=1))
    c, a, b = sm.Logit(label.astype(float), x).fit(disp=0, tol=1e-12).params
    assert min(a, b) > 0
    assert [made.slope, made.slope - made.bend, made.intercept] == pytest.approx(
        [a, b, c], abs=1e-6
    )
    expected = 1 / (np.exp(-c) * (1 - NEW[1:-1]) ** b / NEW[1:-1] ** a + 1)  # equation 7
    inside = (NEW[1:-1] > calibration.EDGE) & (NEW[1:-1] < 1 - calibration.EDGE)
    assert np.abs(made(NEW[1:-1]) - expected)[inside].max() < 1e-6


def test_a_side_of_beta_that_falls_is_left_out_and_no_signal_is_none():
    risk = RNG.random(4000)
    label = RNG.random(4000) < 0.8 * risk  # near 1 the outcomes stay away
    made = calibration.learned(Risks.of(label, risk), "beta")
    assert (np.diff(made(np.sort(risk))) >= 0).all()
    upside_down = calibration.learned(Risks.of(RNG.random(4000) > risk, risk), "beta")
    assert upside_down.slope == 0.01 and upside_down.bend == 0


@pytest.mark.parametrize("method", ["platt", "isotonic", "beta", "none"])
def test_recalibration_never_turns_two_risks_round(method):
    label, risk = rows(500, 3)
    made = calibration.learned(Risks.of(label, risk), method)
    assert (np.diff(made(np.sort(NEW))) >= 0).all()


def test_none_leaves_the_risks_as_they_are():
    made = calibration.learned(Risks.of([True, False], [0.7, 0.2]), "none")
    assert np.abs(made(NEW[1:-1]) - NEW[1:-1]).max() < 1e-6
