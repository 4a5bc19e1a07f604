"""Summaries of feature columns: exact while small, else within the error that the module states."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.learn import preparation
from clinloom.learn.sketch import CELLS, EXACT, FEWEST, Gathering, Sketch, cells, merged

RNG = np.random.default_rng(7)


def split_up(values, order, count):
    """Parts as workers would make them, in two rounds of merges."""
    cuts = np.array_split(np.arange(len(values)), count)
    tables = []
    for cut in cuts:
        held = Gathering()
        for part in np.array_split(cut, 3):
            held.add(values[part], order[part])
        tables.append(held.sketch.table())
    halls = [merged(tables[at::4]) for at in range(min(4, count))]
    return Sketch.read(merged(halls))


def small(n=3000, f=7):
    values = RNG.normal(size=(n, f)) * 10.0 ** np.arange(f)
    values[RNG.random((n, f)) < 0.1] = np.nan
    values[::5, 1:3] = values[::5, 2:4] = np.nan
    values[:, 5] = np.nan
    values[:, 6] = 3.5
    return values, RNG.integers(-(2**63), 2**63 - 1, n)


@pytest.mark.parametrize("count", [1, 3, 17])
def test_a_small_study_is_prepared_bit_by_bit_the_same_however_it_lies(count):
    values, order = small()
    expected = preparation.learn(values[np.argsort(order)], lower=0.001, upper=0.999)
    shuffled = RNG.permutation(len(values))
    found = split_up(values[shuffled], order[shuffled], count)
    learned = preparation.learned(found, lower=0.001, upper=0.999)
    for name, array in expected.arrays().items():
        assert np.array_equal(array, learned.arrays()[name]), name
    assert 5 not in learned.keep and 6 not in learned.keep


@pytest.mark.parametrize("compressed", [False, True])
def test_extremes_are_drawn_in_and_a_rare_code_stays(compressed):
    values = np.zeros((4000, 4))
    values[:, 0] = np.exp(RNG.normal(size=4000))
    values[:40, 1] = 1  # of one row in a hundred
    values[:-40, 2] = 1  # lacking in one of a hundred
    values[:400, 3] = 1
    sketch = Sketch.of(values, np.arange(4000))
    learned = preparation.learned(
        sketch.compressed() if compressed else sketch, lower=0.02, upper=0.98
    )
    ends = np.quantile(values[:, 0], [0.02, 0.98])
    np.testing.assert_allclose([learned.lower[0], learned.upper[0]], ends, rtol=0.01)
    assert learned.keep.tolist() == [0, 1, 2, 3]
    assert learned.lower[1:].tolist() == [0, 0, 0] and learned.upper[1:].tolist() == [1, 1, 1]
    told = preparation.prepare(values, learned)[:, 1:]
    assert all(len(np.unique(column)) == 2 for column in told.T)


def test_what_is_missing_together_is_told_by_hashes_as_by_the_rows():
    values, order = small()
    exact = preparation.learned(Sketch.of(values, order), lower=0.001, upper=0.999)
    rough = preparation.learned(Sketch.of(values, order).compressed(), lower=0.001, upper=0.999)
    assert np.array_equal(exact.indicator, rough.indicator)
    assert np.array_equal(exact.keep, rough.keep)


def test_the_order_of_parts_changes_no_bit():
    values, order = small(n=2000)
    parts = [
        Sketch.of(v, o).compressed()
        for v, o in zip(np.array_split(values, 5), np.array_split(order, 5), strict=True)
    ]
    one, other = Sketch.merge(parts), Sketch.merge(parts[::-1])
    assert np.array_equal(one.mean, other.mean, equal_nan=True)
    assert np.array_equal(one.weight, other.weight)


COLUMNS = {
    "normal": lambda n: RNG.normal(37, 0.7, n),
    "lognormal": lambda n: RNG.lognormal(0, 2, n),
    "cauchy": lambda n: RNG.standard_cauchy(n),
    "uniform": lambda n: RNG.random(n),
    "counts": lambda n: RNG.poisson(0.3, n).astype(float),
    "binary": lambda n: (RNG.random(n) < 0.02).astype(float),
    "sorted": lambda n: np.sort(RNG.gamma(2, 1, n)),
}
QUANTILES = [0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999]


def rank_error(column, value, q):
    """How far the share of values at or below, and below, lies from ``q``."""
    below, upto = (column < value).mean(), (column <= value).mean()
    return max(below - q, q - upto, 0.0)


def test_quantiles_of_many_rows_lie_within_the_stated_ranks():
    n = 1_200_000
    values = np.stack([make(n) for make in COLUMNS.values()], axis=1)
    values[RNG.random(n) < 0.3, 0] = np.nan
    found = split_up(values, RNG.integers(-(2**63), 2**63 - 1, n), 5)
    assert found.values is None and found.mean.shape[1] <= CELLS and n * len(COLUMNS) > EXACT
    told = found.quantiles(QUANTILES)
    for at, name in enumerate(COLUMNS):
        column = values[:, at][~np.isnan(values[:, at])]
        assert found.known[at] == len(column)
        assert found.least[at] == column.min() and found.most[at] == column.max()
        for q, value in zip(QUANTILES, told[:, at], strict=True):
            stated = min(5.8, 24 * min(q, 1 - q)) / CELLS
            assert rank_error(column, value, q) < stated, (name, q)
            assert rank_error(column, value, q) < 0.3 * stated + 2 / n, (name, q, "as measured")


def test_mean_and_sd_of_bounded_values_lie_within_a_thousandth_of_the_sd():
    n = 700_000
    values = np.stack([make(n) for make in COLUMNS.values()], axis=1)
    values[RNG.random((n, len(COLUMNS))) < 0.2] = np.nan
    found = preparation.learned(split_up(values, np.arange(n), 4), lower=0.001, upper=0.999)
    exact = preparation.learn(values, lower=0.001, upper=0.999)
    assert np.array_equal(found.keep, exact.keep)
    # The bounds' own error moves both where the tails are heavy; with the same bounds it is less.
    again = np.clip(np.where(np.isnan(values), found.fill, values), found.lower, found.upper)
    assert (np.abs(found.centre - again.mean(axis=0)) < 1e-3 * exact.scale).all()
    assert (np.abs(found.scale / again.std(axis=0) - 1) < 1e-3).all()
    assert (np.abs(found.scale / exact.scale - 1) < 0.02).all()


def test_fewer_centroids_where_there_are_many_features():
    assert cells(1) == CELLS and cells(2000) == 500 and cells(10**6) == FEWEST
    values = RNG.normal(size=(3000, 2000))
    found = Sketch.of(values, np.arange(3000))
    assert found.values is None and found.mean.size <= 2000 * 500
    assert np.abs(found.quantiles([0.5])[0] - np.median(values, axis=0)).max() < 0.03


def test_a_sketch_that_is_too_coarse_is_seen():
    """A case that must fail: far fewer centroids cannot keep the stated ranks."""
    column = RNG.normal(size=100_000)
    made = Sketch.of(column[:, None], np.arange(len(column))).compressed()
    coarse = Sketch(
        made.rows,
        made.missing,
        made.together,
        made.least,
        made.most,
        None,
        None,
        made.mean[:, ::64],
        made.weight[:, ::64] * 64,
    )
    errors = [
        rank_error(column, v, q)
        for q, v in zip(QUANTILES, coarse.quantiles(QUANTILES)[:, 0], strict=True)
    ]
    assert (
        max(
            e / (min(5.8, 24 * min(q, 1 - q)) / CELLS)
            for e, q in zip(errors, QUANTILES, strict=True)
        )
        > 1
    )


def test_no_rows_and_no_values():
    assert Gathering().sketch is None
    found = Sketch.of(np.full((10, 2), np.nan), np.arange(10)).compressed()
    assert np.isnan(found.quantiles([0.5])).all() and (found.known == 0).all()
    again = Sketch.read(found.table())
    assert again.rows == 10 and np.array_equal(again.missing, [10, 10])
    with pytest.raises(ValueError, match="nothing"):
        Sketch.merge([])
