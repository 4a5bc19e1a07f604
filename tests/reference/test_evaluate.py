"""Metrics, calibration and the weighted bootstrap against scikit-learn and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.evaluate import (
    METRICS,
    Judged,
    bootstrap,
    calibration,
    curves,
    evaluate,
    replicated,
)
from clinloom.learn.risks import Risks

metrics = pytest.importorskip("sklearn.metrics")
sm = pytest.importorskip("statsmodels.api")


def rows(seed=1, n=600, *, ties=False):
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 1.4, n)
    label = rng.random(n) < 1 / (1 + np.exp(-(0.3 + 0.7 * odds)))
    risk = 1 / (1 + np.exp(-odds))
    return label, np.round(risk, 1) if ties else risk, rng.integers(0, n // 3, n)


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_scikit_learn(ties):
    label, risk, subject = rows(ties=ties)
    found = {
        name: one["value"]
        for name, one in evaluate(label, risk, subject, threshold=0.3, replicates=2).items()
    }
    flagged = risk >= 0.3
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(label, risk), abs=1e-12)
    assert found["auprc"] == pytest.approx(metrics.average_precision_score(label, risk), abs=1e-12)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(label, risk), abs=1e-12)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(label, flagged))
    assert found["precision"] == pytest.approx(metrics.precision_score(label, flagged))
    assert found["recall"] == pytest.approx(metrics.recall_score(label, flagged))
    assert found["specificity"] == pytest.approx(metrics.recall_score(~label, ~flagged))
    assert found["f1"] == pytest.approx(metrics.f1_score(label, flagged))


def logit(risk):
    inside = np.clip(risk, calibration.EDGE, 1 - calibration.EDGE)
    return np.log(inside / (1 - inside))


def glm(label, risk, weight):
    """Slope and calibration in the large, from statsmodels."""
    odds, family = logit(risk), sm.families.Binomial()
    y = label.astype(float)
    both = sm.GLM(y, sm.add_constant(odds), family=family, freq_weights=weight).fit(tol=1e-12)
    ones = np.ones((len(y), 1))
    large = sm.GLM(y, ones, family=family, offset=odds, freq_weights=weight).fit(tol=1e-12)
    return both.params[1], large.params[0]


def test_calibration_is_that_of_statsmodels():
    label, risk, subject = rows()
    found = evaluate(label, risk, subject, threshold=0.3, replicates=2)
    slope, large = glm(label, risk, np.ones(len(label)))
    assert found["calibration_slope"]["value"] == pytest.approx(slope, abs=1e-8)
    assert found["calibration_intercept"]["value"] == pytest.approx(large, abs=1e-8)


@pytest.mark.parametrize("ties", [False, True])
def test_each_replicate_is_the_weighted_metric(ties):
    label, risk, subject = rows(3, ties=ties)
    judged = Judged.of(Risks.of(label, risk), 0.3)
    chunks = [(subject[at::3], label[at::3], risk[at::3, None]) for at in range(3)]
    (found,) = replicated(chunks, [judged], range(1, 6), seed=4)
    times = bootstrap.times(subject, range(1, 6), seed=4)
    flagged = risk >= 0.3
    for at, weight in enumerate(times):
        slope, large = glm(label, risk, weight)
        expected = {
            "auroc": metrics.roc_auc_score(label, risk, sample_weight=weight),
            "auprc": metrics.average_precision_score(label, risk, sample_weight=weight),
            "brier": metrics.brier_score_loss(label, risk, sample_weight=weight),
            "accuracy": metrics.accuracy_score(label, flagged, sample_weight=weight),
            "precision": metrics.precision_score(label, flagged, sample_weight=weight),
            "recall": metrics.recall_score(label, flagged, sample_weight=weight),
            "specificity": metrics.recall_score(~label, ~flagged, sample_weight=weight),
            "f1": metrics.f1_score(label, flagged, sample_weight=weight),
        }
        for name, value in expected.items():
            assert found[at][METRICS.index(name)] == pytest.approx(value, abs=1e-12), name
        fits = [METRICS.index("calibration_slope"), METRICS.index("calibration_intercept")]
        assert found[at][fits] == pytest.approx([slope, large], abs=1e-7)


def test_how_often_a_patient_counts_is_poisson():
    stats = pytest.importorskip("scipy.stats")
    subject = np.arange(2000).repeat(2)
    times = bootstrap.times(subject, range(1, 501), seed=9)
    assert np.array_equal(times[:, ::2], times[:, 1::2])  # a patient's rows follow it
    seen = np.bincount(times[:, ::2].astype(int).ravel(), minlength=12)
    expected = stats.poisson.pmf(np.arange(12), 1) * 1_000_000
    assert (np.abs(seen[:12] - expected) < 5 * np.sqrt(expected + 1)).all()
    apart = np.corrcoef(times[:100, ::2])
    assert np.abs(apart - np.eye(100)).max() < 0.12  # replicates know nothing of one another
    among = np.corrcoef(times[:, :200:2].T)
    assert np.abs(among - np.eye(100)).max() < 0.25  # nor do patients


def test_the_interval_is_that_of_drawing_patients_with_replacement():
    label, risk, subject = rows(8, 1200)
    found = evaluate(label, risk, subject, threshold=0.3, replicates=1000)["auroc"]
    rng, of = np.random.default_rng(0), [np.flatnonzero(subject == s) for s in np.unique(subject)]
    drawn = []
    for _ in range(1000):
        chosen = np.concatenate([of[s] for s in rng.integers(0, len(of), len(of))])
        drawn.append(metrics.roc_auc_score(label[chosen], risk[chosen]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found["high"] - found["low"] == pytest.approx(high - low, rel=0.1)
    assert [found["low"], found["high"]] == pytest.approx([low, high], abs=0.1 * (high - low))


def test_the_interval_is_as_wide_as_delong_says():
    """With one row a patient, the bootstrap's spread is that of the Mann-Whitney statistic."""
    label, risk, _ = rows(5, 1500)
    found = evaluate(label, risk, np.arange(1500), threshold=0.3, replicates=1000)["auroc"]
    above, below = risk[label], risk[~label]
    wins = (above[:, None] > below[None]).astype(float)
    spread = np.sqrt(wins.mean(1).var() / len(above) + wins.mean(0).var() / len(below))
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_wilson_is_that_of_statsmodels():
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    for events, n in [(0, 10), (3, 17), (40, 40)]:
        expected = proportion.proportion_confint(events, n, method="wilson")
        assert calibration.wilson(events, n) == pytest.approx(expected, abs=1e-12)


def test_curves_lie_on_those_of_scikit_learn():
    label, risk, _ = rows(6, 3000)
    found = curves(label, risk)
    fpr, tpr, _ = metrics.roc_curve(label, risk, drop_intermediate=False)
    known = {(round(x, 6), round(y, 6)) for x, y in zip(fpr, tpr, strict=True)}
    assert {tuple(point) for point in found["roc"]} <= known
    assert metrics.auc(*zip(*found["roc"], strict=True)) == pytest.approx(
        metrics.roc_auc_score(label, risk), abs=0.003
    )
    precision, recall, _ = metrics.precision_recall_curve(label, risk)
    known = {(round(x, 6), round(y, 6)) for x, y in zip(recall, precision, strict=True)}
    assert {tuple(point) for point in found["pr"]} <= known
