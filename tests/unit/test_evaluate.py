"""Evaluation: intervals, undefined numbers, curves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clinloom.errors import DataError
from clinloom.evaluate import METRICS, Judged, blocks, curves, evaluate, replicated, told
from clinloom.learn.risks import Risks

RNG = np.random.default_rng(0)
RISK = RNG.random(400)
LABEL = RNG.random(400) < RISK


def test_every_metric_lies_in_its_interval():
    found = evaluate(LABEL, RISK, np.arange(400), threshold=0.5, replicates=200, seed=3)
    assert tuple(found) == METRICS
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())
    assert found == evaluate(LABEL, RISK, np.arange(400), threshold=0.5, replicates=200, seed=3)
    assert found["calibration_slope"]["low"] < 1 < found["calibration_slope"]["high"]


def test_the_order_of_rows_changes_nothing():
    subject, order = RNG.integers(0, 100, 400), RNG.permutation(400)
    ours = evaluate(LABEL, RISK, subject, threshold=0.4, replicates=50)
    theirs = evaluate(LABEL[order], RISK[order], subject[order], threshold=0.4, replicates=50)
    for name in METRICS:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-9)


@pytest.mark.parametrize("count", [1, 3, 17])
def test_parts_and_blocks_change_no_bit_where_the_groups_are_exact(count):
    subject = np.sort(RNG.integers(0, 100, 400))
    whole = evaluate(LABEL, RISK, subject, threshold=0.5, replicates=60, seed=3)
    cuts = np.array_split(RNG.permutation(400), count)
    risks = Risks.merge(Risks.of(LABEL[cut], RISK[cut]) for cut in cuts)
    judged = [Judged.of(risks, 0.5), Judged.of(risks, 0.2)]
    risk = np.stack([RISK, RISK], axis=1)
    rows = [(subject[cut], LABEL[cut], risk[cut]) for cut in cuts]
    parts = [replicated(rows, judged, block, seed=3) for block in blocks(60, 800, least=count)]
    assert len(parts) >= count
    assert told(np.concatenate([part[0] for part in parts]), confidence=0.95) == whole


def test_many_distinct_risks_are_judged_on_fewer_groups():
    risk = RNG.random(3000)
    label = RNG.random(3000) < risk
    subject = np.arange(3000)
    fine = Judged.of(Risks.of(label, risk), 0.5)
    coarse = Judged.of(Risks.of(label, risk).compact(500), 0.5)
    assert not coarse.risks.exact
    both = replicated(
        [(subject, label, np.stack([risk, risk], axis=1))], [fine, coarse], [0, 1, 2], seed=1
    )
    off = np.abs(both[0] - both[1])
    at = {name: off[:, n].max() for n, name in enumerate(METRICS)}
    assert max(at[n] for n in ("accuracy", "precision", "recall", "specificity", "f1")) == 0
    assert at["brier"] < 1e-12  # of the rows, not of the groups
    assert at["auroc"] <= coarse.risks.bound() + 1e-3 and at["auprc"] < 2e-3
    assert at["calibration_slope"] < 1e-3 and at["calibration_intercept"] < 1e-3


def test_blocks_hold_bounded_numbers():
    for replicates, groups, least in [(500, 65_536 * 5, 1), (500, 300, 8), (0, 10, 4), (7, 10, 99)]:
        made = blocks(replicates, groups, least=least)
        assert [n for block in made for n in block] == list(range(replicates + 1))
        assert max(map(len, made)) * groups <= max(2_000_000, 20 * groups)


def test_repeated_rows_of_a_patient_do_not_narrow_the_interval():
    def width(times, patients):
        found = evaluate(
            np.repeat(LABEL, times), np.repeat(RISK, times), patients, threshold=0.5, replicates=300
        )["auroc"]
        return found["high"] - found["low"]

    once = width(1, np.arange(400))
    assert width(4, np.repeat(np.arange(400), 4)) == pytest.approx(once, rel=1e-6)
    assert width(4, np.arange(1600)) < 0.7 * once


def test_what_is_undefined_is_none():
    found = evaluate(LABEL, RISK, np.arange(400), threshold=1.0, replicates=20)
    assert found["precision"] == {"value": None, "low": None, "high": None}
    assert found["recall"]["value"] == 0
    apart = evaluate([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [1, 2, 3, 4], threshold=0.5, replicates=20)
    assert apart["calibration_slope"]["value"] is None
    assert apart["auroc"]["value"] == 1
    flat = evaluate([0, 1, 0], [0.3, 0.3, 0.3], [1, 2, 3], threshold=0.5, replicates=20)
    assert flat["auroc"]["value"] == 0.5 and flat["calibration_slope"]["value"] is None
    json.dumps([found, apart, flat], allow_nan=False)


@pytest.mark.parametrize("few", [1, 4])
def test_a_handful_of_either_class_gives_no_interval(few):
    """Two negatives below all positives gave an AUROC of 1.000 from 1.000 to 1.000."""
    rare = np.r_[np.ones(few, bool), np.zeros(100, bool)]
    risk = np.r_[np.full(few, 0.9), RNG.random(100) * 0.8]
    for label, p in ((rare, risk), (~rare, 1 - risk)):
        found = evaluate(label, p, np.arange(len(p)), threshold=0.5, replicates=50)
        assert {(one["low"], one["high"]) for one in found.values()} == {(None, None)}
    enough = np.r_[np.ones(5, bool), np.zeros(100, bool)]
    p = np.r_[np.full(5, 0.9), RNG.random(100)]
    assert evaluate(enough, p, np.arange(105), threshold=0.5)["auroc"]["low"] is not None


def test_without_replicates_there_is_no_interval():
    found = evaluate(LABEL, RISK, np.arange(400), threshold=0.5, replicates=0)
    assert found["auroc"]["value"] > 0.5 and found["auroc"]["low"] is None


@pytest.mark.parametrize(
    ("label", "risk"),
    [([1, 1], [0.1, 0.2]), ([0, 0], [0.1, 0.2]), ([], []), ([0, 1], [0.5, np.nan]), ([0], [2.0])],
)
def test_rows_that_cannot_be_judged(label, risk):
    with pytest.raises(DataError):
        evaluate(label, risk, np.arange(len(label)), threshold=0.5)


def test_curves():
    found = curves(LABEL, RISK)
    assert found["roc"][0] == [0, 0] and found["roc"][-1] == [1, 1]
    assert found["pr"][-1][0] == 1
    assert all(len(points) <= 200 for points in found.values())
    assert sum(part["n"] for part in found["calibration"]) == 400
    predicted = [part["predicted"] for part in found["calibration"]]
    assert predicted == sorted(predicted) and len(predicted) == 10
    at = {round(one["threshold"], 2): one for one in found["net_benefit"]}
    flagged = RISK >= 0.2
    expected = (LABEL & flagged).mean() - (~LABEL & flagged).mean() * 0.25
    assert at[0.2]["model"] == pytest.approx(expected)
    assert at[0.2]["all"] == pytest.approx(LABEL.mean() - (1 - LABEL.mean()) * 0.25)


def test_ties_share_a_tenth():
    found = curves([0, 1] * 50, [0.2] * 60 + [0.7] * 40)
    assert [part["n"] for part in found["calibration"]] == [60, 40]
