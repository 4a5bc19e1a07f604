"""Case mix and what it explains, against brute force, scikit-learn, SciPy and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from tests import outside

from clinloom.evaluate import bootstrap, calibration, casemix
from clinloom.evaluate.casemix import NUMBERS
from clinloom.evaluate.cells import CELLS, Cells
from clinloom.learn.risks import Risks
from clinloom.learn.sketch import Sketch

RNG = np.random.default_rng(4)


def rows(count: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    risk = RNG.beta(1.5, 4, count)
    risk = np.round(risk, 2) if ties else risk
    return RNG.random(count) < risk, risk


@pytest.mark.parametrize("ties", [False, True])
def test_the_expected_auroc_is_that_of_every_pair_of_two_rows(ties):
    _, risk = rows(150, ties=ties)
    wins = pairs = 0.0
    for i, p in enumerate(risk):
        for j, q in enumerate(risk):
            if i != j:  # i has the outcome, j has not (van Klaveren et al., 2016)
                pairs += p * (1 - q)
                wins += p * (1 - q) * ((p > q) + (p == q) / 2)
    found = casemix.told(Risks.of(np.zeros(150), risk))["expected_auroc"]
    assert found == pytest.approx(wins / pairs, abs=1e-12)
    # scikit-learn, of both outcomes of each row by their chance, pairs a row with itself, too.
    both = np.r_[np.ones(150), np.zeros(150)]
    whole = roc_auc_score(both, np.r_[risk, risk], sample_weight=np.r_[risk, 1 - risk])
    itself, all_pairs = (risk * (1 - risk)).sum(), risk.sum() * (1 - risk).sum()
    expected = (whole * all_pairs - itself / 2) / (all_pairs - itself)
    assert found == pytest.approx(expected, abs=1e-12)


def test_where_the_risks_are_right_the_auroc_is_as_expected():
    label, risk = rows(200_000, ties=False)
    found = casemix.told(Risks.of(label, risk))
    assert found["expected_auroc"] == pytest.approx(roc_auc_score(label, risk), abs=0.004)
    assert found["observed_expected"] == pytest.approx(1, abs=0.02)


def test_the_numbers_are_those_of_the_rows_one_by_one():
    label, risk = rows(3000, ties=True)
    risk = np.clip(risk, 0.01, 0.99)
    odds = np.log(risk / (1 - risk))
    expected = (label.mean(), risk.mean(), label.sum() / risk.sum(), odds.mean(), odds.std())
    found = casemix.told(Risks.of(label, risk))
    assert [found[name] for name in NUMBERS[:5]] == pytest.approx(expected, abs=1e-12)


def test_a_replicate_is_of_patients_that_count_so_many_times():
    label, risk = rows(400, ties=False)
    subject = np.repeat(np.arange(100), 4)
    chunks = [(subject[at : at + 200], label[at : at + 200], risk[at : at + 200, None])
              for at in (0, 200)]  # fmt: skip
    found = casemix.drawn(chunks, Risks.of(label, risk), range(3), seed=7)
    for number in range(3):
        times = bootstrap.times(subject, [number], seed=7)[0].astype(int)
        again = Risks.of(np.repeat(label, times), np.repeat(risk, times))
        assert found[number] == pytest.approx(list(casemix.told(again).values()), abs=1e-9)


def test_the_difference_of_a_share_is_the_usual_one():
    new, old = np.zeros((2, 1, CELLS), int)
    new[0, :2], old[0, :2] = (30, 70), (150, 50)
    p, q = 0.7, 0.25
    usual = (p - q) / np.sqrt((p * (1 - p) + q * (1 - q)) / 2)  # Austin, 2009
    assert casemix.differences(new, old)[0] == pytest.approx(usual, abs=1e-12)
    assert np.isnan(casemix.differences(0 * new, old)[0])


def test_the_difference_of_means_is_that_of_mann_and_whitney_and_near_that_of_the_values():
    old, new = RNG.normal(0, 1, (20_000, 1)), RNG.normal(0.3, 1, (20_000, 1))
    cut = Cells.of(Sketch.of(old, np.arange(len(old))))
    counts = [outside.counts(values, cut) for values in (new, old)]
    found = casemix.differences(*counts)[0]
    assert found == pytest.approx((new.mean() - old.mean()), abs=0.03)  # both of a deviation of 1
    cell = [np.searchsorted(cut.edges[0], values[:, 0], side="left") for values in (new, old)]
    share = stats.mannwhitneyu(*cell).statistic / len(old) / len(new)
    p, q = (one[0, :CELLS] / one[0, :CELLS].sum() for one in counts)
    ridit = np.cumsum(q) - q / 2
    assert p @ ridit == pytest.approx(share, abs=1e-9)


def test_quartiles_lie_within_the_cells_that_they_are_read_from():
    values = RNG.gamma(2, 30, (5000, 1))
    cut = Cells.of(Sketch.of(values, np.arange(5000)))
    counts = outside.counts(values, cut)
    found = casemix.quantiles(cut.edges[0], counts[0, :CELLS], (0.5, 0.25, 0.75))
    exact = np.quantile(values, (0.5, 0.25, 0.75))
    assert [side for side, _ in found] == ["", "", ""]
    assert [value for _, value in found] == pytest.approx(exact, rel=0.02)
    ends = casemix.quantiles(cut.edges[0], counts[0, :CELLS], (0.01, 0.99))
    assert ends == [("<=", cut.edges[0, 0]), (">", cut.edges[0, 8])]


def test_the_interval_of_a_difference_is_that_of_its_method():
    """Newcombe, Stat. Med. 17 (1998) 873, table II, method 10: 56 of 70 less 48 of 80."""

    def share(events: int, of: int) -> dict[str, float | None]:
        low, high = calibration.wilson(events, of)
        return {"value": events / of, "low": low, "high": high}

    found = casemix.change(share(56, 70), share(48, 80))
    assert [found[n] for n in ("value", "low", "high")] == pytest.approx(
        [0.2, 0.0524, 0.3339], abs=5e-5
    )
    none = dict.fromkeys(("value", "low", "high"))
    assert casemix.change(share(1, 2), none) == none
    known = {"value": 0.5, "low": None, "high": None}
    assert casemix.change(known, share(48, 80))["low"] is None
