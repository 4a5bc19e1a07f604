"""Groups of equal risk: exact while they fit, and within their own bound where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.learn.risks import MOST, Risks, merged

RNG = np.random.default_rng(11)


def area(label, risk):
    """The AUROC by midranks, row by row."""
    from scipy.stats import rankdata

    events = int(label.sum())
    wins = rankdata(risk)[label].sum() - events * (events + 1) / 2
    return wins / (events * (len(label) - events))


def precision(label, risk):
    """The average precision, row by row; rows of equal risk are flagged together."""
    order = np.argsort(-risk, kind="stable")
    hit, p = np.cumsum(label[order]), risk[order]
    last = np.flatnonzero(np.r_[p[1:] != p[:-1], True])
    return float((np.diff(np.r_[0, hit[last]]) * hit[last] / (last + 1)).sum() / hit[-1])


def grouped_precision(risks):
    true, called = np.cumsum(risks.positive), np.cumsum(risks.total)
    return float((risks.positive * true / called).sum() / risks.positives)


def parts_of(label, risk, count):
    """Parts as workers would make them: merged twice, each time compacted."""
    cuts = np.array_split(np.arange(len(risk)), count)
    tables = [Risks.of(label[cut], risk[cut]).compact().table() for cut in cuts]
    halls = [merged(tables[at::4]) for at in range(min(4, count))]
    return Risks.read(merged(halls))


def test_rows_of_equal_risk_are_one_group():
    found = Risks.of([1, 0, 0, 1, 0], [0.5, 0.5, 0.9, 0.1, 0.5])
    assert found.score.tolist() == [0.9, 0.5, 0.1]
    assert found.positive.tolist() == [0, 1, 1] and found.total.tolist() == [1, 3, 1]
    assert found.exact and found.bound() == 0 and found.rows == 5 and found.positives == 2
    assert found.number(np.array([0.1, 0.9, 0.5])).tolist() == [2, 0, 1]


@pytest.mark.parametrize("count", [1, 3, 17])
def test_parts_in_any_order_are_the_whole_where_it_is_exact(count):
    risk = np.round(RNG.random(20_000), 4)
    label = RNG.random(20_000) < risk
    whole = Risks.of(label, risk)
    shuffled = RNG.permutation(20_000)
    again = parts_of(label[shuffled], risk[shuffled], count)
    assert all(np.array_equal(getattr(whole, n), getattr(again, n)) for n in whole.__dict__)
    assert again.auroc() == pytest.approx(area(label, risk), abs=1e-12)
    assert grouped_precision(again) == pytest.approx(precision(label, risk), abs=1e-12)


def test_neighbouring_doubles_are_told_apart():
    risk = np.nextafter(0.3, 1) + np.zeros(4)
    risk[::2] = 0.3
    found = Risks.of([1, 0, 1, 0], risk)
    assert found.number(risk).tolist() == [1, 0, 1, 0]


def test_nothing_and_one_class():
    assert Risks.none().rows == 0 and Risks.merge([]).rows == 0
    assert np.isnan(Risks.of([1, 1], [0.1, 0.2]).auroc()) and np.isnan(Risks.none().auroc())
    assert Risks.of([1, 1], [0.1, 0.2]).bound() == 0


N = 5_000_000


def plain():
    risk = RNG.random(N)
    return RNG.random(N) < risk, risk


def few_points():
    """Nearly all mass at a few risks, each of them heavy, the rest between them."""
    risk = np.where(RNG.random(N) < 0.97, RNG.choice([0.1, 0.1000001, 0.5, 0.7], N), RNG.random(N))
    return RNG.random(N) < risk, risk


def heavy_tails():
    """Risks over forty orders of magnitude, two in a thousand with the outcome."""
    odds = RNG.standard_t(1, N) * 4 - 8
    risk = 1 / (1 + np.exp(-np.clip(odds, -90, 90)))
    return RNG.random(N) < 0.002 + 0.5 * (odds > 40), risk


def ties():
    risk = np.round(RNG.random(N), 5)
    return RNG.random(N) < risk**3, risk


def rare():
    """Outcomes as dense at the top as one in its rank: the hardest for average precision."""
    risk = RNG.random(N)
    rank = N * (1 - risk)
    return RNG.random(N) < np.minimum(0.9, 4000 / (1 + rank)), risk


def sorted_parts():
    """Every part holds a range of risks of its own, the outcome only in some."""
    risk = np.sort(RNG.beta(0.3, 3, N))
    return (RNG.random(N) < risk) & (np.arange(N) // 250_000 % 3 > 0), risk


def within():
    """Half of the parts spread wide, half of them inside one narrow range."""
    risk = RNG.random(N)
    risk[N // 2 :] = 0.4 + 1e-7 * risk[N // 2 :]
    label = RNG.random(N) < np.where(np.arange(N) < N // 2, risk, 1e7 * (risk - 0.4))
    return label, risk


@pytest.mark.parametrize(
    "make",
    [plain, few_points, heavy_tails, ties, rare, sorted_parts, within],
    ids=lambda m: m.__name__,
)
def test_five_million_rows_keep_their_areas_within_one_in_ten_thousand(make):
    label, risk = make()
    found = parts_of(label, risk, 20)
    assert len(found.score) <= MOST and found.rows == N and found.positives == label.sum()
    off = abs(found.auroc() - area(label, risk))
    assert off <= found.bound() + 1e-12
    assert found.bound() < 1e-4
    assert abs(grouped_precision(found) - precision(label, risk)) < 1e-4


def test_the_bound_tells_of_groups_that_are_too_wide():
    """A case that must fail: far fewer groups than the promise needs."""
    label, risk = plain()
    found = Risks.of(label[:200_000], risk[:200_000]).compact(50)
    assert len(found.score) <= 50 and found.bound() > 1e-3
    assert abs(found.auroc() - area(label[:200_000], risk[:200_000])) <= found.bound()


def test_a_heavy_risk_stays_alone():
    risk = np.r_[np.full(100_000, 0.25), RNG.random(200_000)]
    found = Risks.of(RNG.random(300_000) < risk, risk).compact(1000)
    at = int(np.flatnonzero(found.total >= 100_000)[0])
    assert found.low[at] == found.high[at] == 0.25 and found.total[at] == 100_000
