"""Flags at other points, flexible calibration, decision curves and subgroups, against references.

Equal to scikit-learn, statsmodels, dcurves and pyspark.ml.evaluation where they have the number.
"""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.evaluate import METRICS, Judged, bootstrap, flexible, replicated, summed_up
from clinloom.evaluate.points import Asked
from clinloom.evaluate.subgroups import NUMBERS, Cut, Grouped, Pairs, exactly
from clinloom.learn.risks import Risks

metrics = pytest.importorskip("sklearn.metrics")
sm = pytest.importorskip("statsmodels.api")
ASKED = Asked(thresholds=(0.2, 0.5), alert_rates=(0.1,), sensitivities=(0.8,))
CLOSE = 1e-9


def rows(seed=1, n=900, *, ties=False):
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 1.4, n)
    label = rng.random(n) < 1 / (1 + np.exp(-(0.3 + 0.7 * odds)))
    risk = 1 / (1 + np.exp(-odds))
    return label, np.round(risk, 2) if ties else risk, np.sort(rng.integers(0, n // 3, n))


def drawn(label, risk, subject, replicates=range(6)):
    judged = Judged.of(Risks.of(label, risk), 0.3, ASKED)
    return judged, replicated([(subject, label, risk[:, None])], [judged], replicates, seed=4)[0]


def reference(label, flagged, weight):
    """Every number of flags, by scikit-learn."""
    of = {"sample_weight": weight}
    return {
        "alert_rate": np.average(flagged, weights=weight),
        "recall": metrics.recall_score(label, flagged, **of),
        "specificity": metrics.recall_score(~label, ~flagged, **of),
        "precision": metrics.precision_score(label, flagged, **of),
        "npv": metrics.precision_score(~label, ~flagged, **of),
        "f1": metrics.f1_score(label, flagged, **of),
        "accuracy": metrics.accuracy_score(label, flagged, **of),
        "balanced_accuracy": metrics.balanced_accuracy_score(label, flagged, **of),
        "mcc": metrics.matthews_corrcoef(label, flagged, **of),
        "number_needed": 1 / metrics.precision_score(label, flagged, **of),
    }


@pytest.mark.parametrize("ties", [False, True])
def test_flags_at_the_threshold_are_those_of_scikit_learn_in_every_replicate(ties):
    label, risk, subject = rows(ties=ties)
    _, found = drawn(label, risk, subject)
    times = bootstrap.times(subject, range(6), seed=4)
    for at, weight in enumerate(times):
        for name, value in reference(label, risk >= 0.3, weight).items():
            assert found[at][METRICS.index(name)] == pytest.approx(value, abs=CLOSE), name
        loss = metrics.brier_score_loss(label, risk, sample_weight=weight)
        share = np.average(label, weights=weight)
        scaled = 1 - loss / (share * (1 - share))
        assert found[at][METRICS.index("brier_scaled")] == pytest.approx(scaled, abs=CLOSE)
        ratio = (weight @ label) / (weight @ risk)
        assert found[at][METRICS.index("observed_expected")] == pytest.approx(ratio, abs=CLOSE)


@pytest.mark.parametrize("ties", [False, True])
def test_points_are_those_of_scikit_learn(ties):
    label, risk, subject = rows(2, ties=ties)
    judged, found = drawn(label, risk, subject)
    told = summed_up(found, judged, confidence=0.95)["points"]
    assert [(one["fixed"], one["at"]) for one in told] == ASKED.names
    fall = np.unique(risk)[::-1]
    few = next(t for t in fall[::-1] if (risk >= t).mean() <= 0.1)
    fpr, tpr, cut = metrics.roc_curve(label, risk, drop_intermediate=False)
    most = cut[np.flatnonzero(tpr >= 0.8)[0]]
    for one, threshold in zip(told, (0.2, 0.5, few, most), strict=True):
        assert one["threshold"]["value"] == pytest.approx(threshold, abs=CLOSE)
        for name, value in reference(label, risk >= threshold, np.ones(len(risk))).items():
            assert one[name]["value"] == pytest.approx(value, abs=CLOSE), (threshold, name)
            assert one[name]["low"] <= one[name]["high"]


def natural(odds, knots):
    """A natural cubic spline's space by SciPy's interpolation: linear beyond the outer knots."""
    interpolate = pytest.importorskip("scipy.interpolate")
    out = []
    for unit in np.eye(len(knots)):
        spline = interpolate.CubicSpline(knots, unit, bc_type="natural")
        inside = spline(np.clip(odds, knots[0], knots[-1]))
        below, above = np.minimum(odds - knots[0], 0), np.maximum(odds - knots[-1], 0)
        out.append(inside + below * spline(knots[0], 1) + above * spline(knots[-1], 1))
    return np.column_stack(out)


@pytest.mark.parametrize("ties", [False, True])
def test_the_flexible_curve_is_the_spline_regression_of_statsmodels(ties):
    label, risk, subject = rows(3, 1500, ties=ties)
    risk = np.clip(risk, 0.001, 0.999)
    odds = np.log(risk / (1 - risk))
    order = np.sort(odds)
    at = np.searchsorted(np.arange(1, 1501), np.array(flexible.KNOTS) * 1500)
    judged, found = drawn(label, risk, subject, range(4))
    assert judged.knots == pytest.approx(order[at], abs=CLOSE)
    basis = natural(odds, order[at])
    times = bootstrap.times(subject, range(4), seed=4)
    for number, weight in enumerate(times):
        family = sm.families.Binomial()
        y = label.astype(float)
        made = sm.GLM(y, basis, family=family, freq_weights=weight).fit(tol=1e-13, maxiter=200)
        apart = np.repeat(np.abs(made.predict(basis) - risk), weight.astype(int))
        expected = [apart.mean(), np.quantile(apart, 0.5), np.quantile(apart, 0.9)]
        told = [found[number][METRICS.index(name)] for name in ("ici", "e50", "e90")]
        assert told == pytest.approx(expected, abs=1e-8)


def test_many_risks_are_fitted_on_cells_within_a_thousandth():
    label, risk, subject = rows(5, 20_000)
    _, found = drawn(label, risk, subject, range(1, 3))
    times = bootstrap.times(subject, range(1, 3), seed=4)
    once = np.argsort(-risk)
    whole = flexible.distances(
        risk[once],
        times[:, once] * label[once],
        times[:, once],
        flexible.knots_of(risk[once], np.ones(len(risk))),
    )
    for name in ("ici", "e50", "e90"):
        assert found[:, METRICS.index(name)] == pytest.approx(whole[name], abs=1e-4)


def test_the_decision_curve_is_that_of_dcurves():
    dcurves, pd = pytest.importorskip("dcurves"), pytest.importorskip("pandas")
    label, risk, subject = rows(6)
    judged, found = drawn(label, risk, subject, range(30))
    curve = summed_up(found, judged, confidence=0.9)["curves"]["net_benefit"]
    frame = pd.DataFrame({"label": label.astype(int), "risk": risk})
    asked = np.round(np.arange(1, 100) / 100, 2)
    theirs = dcurves.dca(data=frame, outcome="label", modelnames=["risk"], thresholds=asked)
    for model, name in (("risk", "model"), ("all", "all")):
        expected = theirs[theirs["model"] == model].sort_values("threshold")["net_benefit"]
        assert [one[name] for one in curve] == pytest.approx(list(expected), abs=CLOSE)
    for one in curve:
        assert one["model_low"] <= one["model_high"] and one["all_low"] <= one["all_high"]
        assert one["gain"] == pytest.approx(one["model"] - max(one["all"], 0), abs=CLOSE)


def test_the_observed_share_of_a_tenth_has_the_interval_of_its_patients():
    label, risk, subject = rows(7)
    judged, found = drawn(label, risk, subject, range(401))
    told = summed_up(found, judged, confidence=0.95)["curves"]["calibration"]
    times = bootstrap.times(subject, range(1, 401), seed=4)
    top = np.argsort(-risk)[:90]  # nine hundred rows
    shares = (times[:, top] @ label[top]) / times[:, top].sum(axis=1)
    assert told[-1]["observed"] == pytest.approx(label[top].mean(), abs=CLOSE)
    limits = np.quantile(shares, [0.025, 0.975])
    assert [told[-1]["low"], told[-1]["high"]] == pytest.approx(list(limits), abs=CLOSE)


@pytest.mark.parametrize("ties", [False, True])
def test_a_subgroup_and_the_rest_are_those_of_scikit_learn(ties):
    label, risk, subject = rows(8, ties=ties)
    inside = np.random.default_rng(0).random(len(risk)) < 0.3
    risks = Risks.of(label, risk)
    cut = Cut.of(risks, 0.3, most=10_000)
    grouped = Grouped(cut, 1, 3)
    weight = bootstrap.times(subject, range(3), seed=4)
    row = np.flatnonzero(inside)
    grouped.add(label, risk, weight, Pairs(row, np.zeros(len(row), np.int64)))
    found = grouped.measured()
    for replicate, times in enumerate(weight):
        for side, part in enumerate((inside, ~inside)):
            y, p, w = label[part], risk[part], times[part]
            expected = reference(y, p >= 0.3, w)
            expected["auroc"] = metrics.roc_auc_score(y, p, sample_weight=w)
            expected["brier"] = metrics.brier_score_loss(y, p, sample_weight=w)
            expected["prevalence"] = np.average(y, weights=w)
            for at, name in enumerate(NUMBERS):
                if name in expected:
                    told = found[replicate, 0, side, at]
                    assert told == pytest.approx(expected[name], abs=CLOSE), name
    value = exactly(risks, Risks.of(label[inside], risk[inside]), 0.3)
    fits = [NUMBERS.index(name) for name in ("calibration_slope", "calibration_intercept")]
    others = [at for at in range(len(NUMBERS)) if at not in fits]
    assert value[:, others] == pytest.approx(found[0, 0][:, others], abs=CLOSE)
    assert value[:, fits] == pytest.approx(found[0, 0][:, fits], abs=5e-3)  # of 128 cells
    for side, part in enumerate((inside, ~inside)):
        whole = Judged.of(Risks.of(label[part], risk[part]), 0.3).whole
        assert value[side, fits] == pytest.approx([whole[NUMBERS[at]] for at in fits], abs=1e-8)
    coarse = Grouped(Cut.of(risks, 0.3, most=50), 1, 3)
    coarse.add(label, risk, weight, Pairs(row, np.zeros(len(row), np.int64)))
    at = [NUMBERS.index(name) for name in ("recall", "precision", "alert_rate", "prevalence")]
    assert coarse.measured()[..., at] == pytest.approx(found[..., at], abs=CLOSE)
    auroc = NUMBERS.index("auroc")
    assert coarse.measured()[..., auroc] == pytest.approx(found[..., auroc], abs=2e-3)


@pytest.mark.core
def test_the_areas_are_those_of_spark(spark):
    """Spark's ROC is exact with ties; its precision-recall area joins points by straight lines."""
    from pyspark.ml.evaluation import (
        BinaryClassificationEvaluator,
        MulticlassClassificationEvaluator,
    )

    label, risk, subject = rows(9, 300, ties=True)
    _, found = drawn(label, risk, subject, range(1))
    told = dict(zip(METRICS, found[0], strict=False))
    made = [(float(y), float(p), float(p >= 0.3)) for y, p in zip(label, risk, strict=True)]
    frame = spark.createDataFrame(made, "label double, rawPrediction double, prediction double")
    area = BinaryClassificationEvaluator(numBins=0).evaluate(frame)
    assert told["auroc"] == pytest.approx(area, abs=CLOSE)
    for theirs, ours in (
        ("accuracy", "accuracy"),
        ("precisionByLabel", "precision"),
        ("recallByLabel", "recall"),
        ("fMeasureByLabel", "f1"),
    ):
        made = MulticlassClassificationEvaluator(metricName=theirs, metricLabel=1.0)
        assert told[ours] == pytest.approx(made.evaluate(frame), abs=CLOSE), ours
