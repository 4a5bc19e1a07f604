"""XGBoost's trees as flat arrays: single precision, missing values, without Spark."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from clinloom.learn.preparation import learn, prepare
from clinloom.models import xgboost as module

library = pytest.importorskip("xgboost")
RNG = np.random.default_rng(8)


@pytest.fixture(scope="module")
def fitted():
    """Rows (n, 5) with missing values and ties at the splits, and a booster of them."""
    x = np.round(RNG.normal(size=(3000, 5)), 1).astype(np.float32)
    x[RNG.random(x.shape) < 0.2] = np.nan
    label = RNG.random(3000) < 1 / (1 + np.exp(1 - np.nan_to_num(x[:, 0]) - np.isnan(x[:, 1])))
    options = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "nthread": 1}
    return x, library.train(options, library.DMatrix(x, label), 300)


def arrays(booster):
    return module.flatten(SimpleNamespace(get_booster=lambda: booster), lambda: None)


def test_risks_are_xgboosts_within_the_tolerance(fitted):
    x, booster = fitted
    found = module.probability(arrays(booster), x.astype(float))
    off = np.abs(found - booster.predict(library.DMatrix(x))).max()
    assert off <= module.TOLERANCE / 4, off


def test_every_row_meets_the_same_leaf_in_every_tree(fitted):
    from clinloom.models import _forest

    x, booster = fitted
    flat = arrays(booster)
    found = _forest.leaves(flat, x.astype(float)) - flat["root"]
    assert np.array_equal(found, booster.predict(library.DMatrix(x), pred_leaf=True))


def test_a_double_beside_a_split_goes_where_its_float_goes():
    """Midway between two floats, a bit to each side, and across zero and the smallest float."""
    split = np.r_[RNG.normal(size=500), 0.0, 1e-45, -1e-45, 1.0, 3e38].astype(np.float32)
    near = np.stack([np.nextafter(split, np.float32(s * np.inf)) for s in (-1, 1)]).astype(float)
    middle = (near + split.astype(float)) / 2
    tries = [split.astype(float), *near, *middle]
    tries += [np.nextafter(at, s * np.inf) for at in tries for s in (-1, 1)]
    most = module._at_most(split)
    for x in tries:
        with np.errstate(over="ignore"):
            assert np.array_equal(x <= most, x.astype(np.float32) < split)


def test_covers_add_up_and_importance_is_the_gain(fitted):
    flat = arrays(fitted[1])
    inner = flat["feature"] >= 0
    cover = flat["cover"]
    assert (cover[inner] == cover[flat["left"][inner]] + cover[flat["right"][inner]]).all()
    gains = fitted[1].get_score(importance_type="total_gain")
    expected = np.array([gains[f"f{at}"] for at in range(5)])
    assert module.importance(flat, 5) == pytest.approx(expected / expected.sum(), rel=1e-5)


def test_unfilled_values_keep_their_scale_within_their_bounds_and_nan_stays():
    raw = RNG.normal(50, 10, size=(200, 3))
    raw[:80, 1], raw[:, 2] = np.nan, 7.0
    learned = learn(raw, lower=0.01, upper=0.99)
    unfilled = learned.unfilled()
    assert learned.width == 3 and unfilled.width == 2  # no flag, and no constant
    made = prepare(raw, unfilled)
    expected = np.clip(raw, learned.lower, learned.upper)[:, :2]
    assert np.array_equal(made, expected, equal_nan=True)


def test_a_bundle_scores_and_explains_where_the_library_is_not_installed(fitted, monkeypatch):
    import sys

    from clinloom.deploy.scorer import Scorer
    from clinloom.learn.additive import Columns

    x, booster = fitted
    statistics = learn(x.astype(float), lower=0.0, upper=1.0).unfilled()
    made = Scorer("xgboost", statistics, arrays(booster), 0.9, -0.1, 0.5).dump()
    monkeypatch.setitem(sys.modules, "xgboost", None)  # importing it fails
    scorer = Scorer.parse(made)
    found = scorer.score(x.astype(float))
    raw = booster.predict(library.DMatrix(x)).astype(float)
    assert np.abs(found - scorer.calibrator(raw)).max() <= module.TOLERANCE
    reasons = module.additive(scorer.arrays, Columns.of(statistics, 5)).of(x[:3].astype(float))
    assert reasons.shape == (3, 5) and np.abs(reasons).max() > 0.1


@pytest.mark.parametrize("installed", ["xgboost-cpu", "xgboost", None])
def test_the_library_serves_with_and_without_its_part_for_gpus(monkeypatch, installed):
    from importlib import metadata

    from clinloom import plugins
    from clinloom.errors import MissingDependency

    def version(name):
        if name == installed or (name == "scikit-learn" and installed):
            return "3.2.0"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    if installed:
        plugins.check("models", "xgboost")
    else:
        with pytest.raises(MissingDependency, match="xgboost-cpu") as error:
            plugins.check("models", "xgboost")
        assert error.value.mend == "pip install 'clinloom[xgboost]' scikit-learn"
        assert "scikit-learn" in error.value.message  # which xgboost.spark needs and brings not


def test_a_feature_that_tells_only_by_being_there_is_kept():
    values = np.random.default_rng(3).normal(size=(200, 2))
    values[:, 0] = np.where(values[:, 1] > 0.4, np.nan, 1.0)
    learned = learn(values, lower=0.02, upper=0.98)
    assert learned.keep.tolist() == [1] and learned.indicator.tolist() == [0]
    unfilled = learned.unfilled()
    assert unfilled.keep.tolist() == [0, 1] and unfilled.width == 2
    assert np.array_equal(np.isnan(prepare(values, unfilled)), np.isnan(values))
