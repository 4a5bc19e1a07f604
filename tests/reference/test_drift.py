"""Drift's statistics against SciPy, exact sums and hand-made numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from clinloom.evaluate import drift, fitness
from clinloom.evaluate.cells import CELLS, Cells
from clinloom.learn.risks import Risks
from clinloom.learn.sketch import Sketch


def counts(values, cut):
    cell = np.searchsorted(cut.edges[0], values, side="left")
    return np.bincount(cell, minlength=CELLS)[None], cell


@pytest.mark.parametrize("seed", range(4))
def test_the_ks_distance_is_scipys_of_the_values_in_their_cells(seed):
    rng = np.random.default_rng(seed)
    old, new = rng.normal(size=700), rng.normal(0.1 * seed, 1 + 0.2 * seed, 310)
    cut = Cells.of(Sketch.of(old[:, None], np.arange(700)))
    (c, of_old), (x, of_new) = counts(old, cut), counts(new, cut)
    found = drift.cells(x, 1.0, c, 1.0)
    assert found.ks[0] == pytest.approx(stats.ks_2samp(of_old, of_new).statistic, abs=1e-12)
    assert found.ks[0] <= stats.ks_2samp(old, new).statistic + 1e-12  # of ten cells, never more


def test_psi_by_hand():
    old, new = np.array([[50, 30, 20]]), np.array([[30, 30, 40]])
    a, b = (np.array([[50.5, 30.5, 20.5], [30.5, 30.5, 40.5]]) / 101.5).tolist()
    raw = sum((q - p) * math.log(q / p) for p, q in zip(a, b, strict=True))
    found = drift.cells(new, 1.0, old, 1.0)
    assert found.psi[0] == pytest.approx(raw - 2 * (1 / 100 + 1 / 100))
    assert drift.cells(old, 1.0, old, 1.0).psi[0] == 0.0  # what chance gives is taken off
    assert found.ks[0] == pytest.approx(0.2)


def test_what_the_old_bound_calls_drift_is_chance_alone_where_rows_are_few():
    """The index of 50 rows against 500 is above 0.2 in a third of all unchanged data; its p-value
    is below 5 % in fewer than that, and above chance it is 0 on average."""
    rng = np.random.default_rng(5)
    old = rng.multinomial(500, np.full(10, 0.1), size=2000)
    new = rng.multinomial(50, np.full(10, 0.1), size=2000)
    a, b = (old + 0.5) / 505, (new + 0.5) / 55
    folklore = ((b - a) * np.log(b / a)).sum(axis=1) > 0.2
    found = drift.cells(new, 1.0, old, 1.0)
    assert folklore.mean() > 0.3
    assert (found.p < 0.05).mean() < 0.05


@pytest.mark.parametrize(("n", "m"), [(20, 300), (50, 5000), (400, 400), (3000, 800)])
def test_two_shares_are_told_apart_as_by_the_exact_test_far_into_the_tail(n, m):
    x, c = (k.ravel() for k in np.meshgrid(np.arange(n + 1)[:60], np.array([0, 1, 3, 10, 40, 150])))
    exact = np.minimum(
        1.0,
        2
        * np.minimum(
            stats.hypergeom.sf(x - 1, n + m, x + c, n), stats.hypergeom.cdf(x, n + m, x + c, n)
        ),
    )
    found = drift.changed(x, n, c, m)
    seen = (exact < 0.05) & (exact > 1e-12)
    ratio = np.log10(found[seen] / exact[seen])
    assert ratio.min() > -0.5  # never much bolder than the exact test, at 1e-12 as at 0.05
    assert np.median(ratio) < 0.5  # nor much shyer


def test_one_side_asks_for_more_alone():
    assert drift.changed(9, 100, 40, 100, sides=1) == 1.0
    more = drift.changed(40, 100, 9, 100, sides=1)
    assert more == pytest.approx(drift.changed(40, 100, 9, 100) / 2) and more < 1e-5
    assert drift.changed(0, 0, 3, 10) == 1.0


def test_the_rules_for_many_and_for_several_tests_are_the_published_ones():
    rng = np.random.default_rng(2)
    for _ in range(20):
        p = rng.random(40) ** 3
        adjusted = stats.false_discovery_control(p, method="bh")
        assert (drift.alarming(p, 0.1) == (adjusted <= 0.1)).all()
        order = np.sort(p)
        holm = np.maximum.accumulate(order * np.arange(40, 0, -1))
        assert drift.holm(p, 0.1).sum() == (holm <= 0.1).sum()


def test_independent_rows_are_patients_where_each_has_as_many_rows():
    assert drift.effective(120, 120) == 120
    assert drift.effective(120, 30 * 4**2) == 30


def test_an_area_has_delongs_error():
    rng = np.random.default_rng(8)
    y = rng.random(90) < 0.3
    risk = np.round(np.clip(0.3 + 0.15 * y + 0.2 * rng.normal(size=90), 0.01, 0.99), 2)
    pairs = (risk[y][:, None] > risk[~y]) + 0.5 * (risk[y][:, None] == risk[~y])
    area = pairs.mean()
    variance = pairs.mean(1).var(ddof=1) / y.sum() + pairs.mean(0).var(ddof=1) / (~y).sum()
    found = fitness.estimate(Risks.of(y, risk))
    assert found.auroc == pytest.approx(area)
    assert found.area_error == pytest.approx(math.sqrt(variance) / (area * (1 - area)))


def test_intercept_and_slope_have_the_errors_of_their_likelihood():
    rng = np.random.default_rng(3)
    odds = rng.normal(-1.0, 1.0, 800)
    y = rng.random(800) < 1 / (1 + np.exp(-(0.3 + 0.8 * odds)))
    found = fitness.estimate(Risks.of(y, 1 / (1 + np.exp(-odds))))

    def information(design, at):
        p = 1 / (1 + np.exp(-at))
        return design.T @ (design * (p * (1 - p))[:, None])

    one = np.ones((800, 1))
    assert found.intercept_error == pytest.approx(
        information(one, odds + found.intercept)[0, 0] ** -0.5, rel=1e-6
    )
    both = np.column_stack([np.ones(800), odds])
    at = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-both @ at))
        at = at + np.linalg.solve(information(both, both @ at), both.T @ (y - p))
    errors = np.sqrt(np.diag(np.linalg.inv(information(both, both @ at))))
    assert found.slope == pytest.approx(at[1], rel=1e-6)
    assert found.slope_error == pytest.approx(errors[1], rel=1e-4)


def test_the_running_sum_is_that_of_each_rows_likelihood_ratio():
    rng = np.random.default_rng(4)
    p = rng.uniform(0.02, 0.4, 300)
    y = rng.random(300) < p
    ratio = math.exp(fitness.SHIFT)
    steps = np.where(y, math.log(ratio), 0.0) - np.log(1 - p + ratio * p)
    months = np.arange(300) // 50
    now, expected = 0.0, []
    for month in range(6):
        now = max(0.0, now + steps[months == month].sum())
        expected.append(now)
    sums = [fitness.Sums.of(Risks.of(y[months == m], p[months == m]), 0.0) for m in range(6)]
    found = fitness.running(sums, level=0.05, spread=1.0, error=0.0)
    assert found.up == pytest.approx(expected, abs=1e-6)
