"""A model as a sum over features: additive, and the Shapley values of the slow definition."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from clinloom.errors import StoreError
from clinloom.learn.additive import LOG_ODDS, PROBABILITY, Columns
from clinloom.learn.algorithm import algorithm
from clinloom.learn.preparation import Statistics, learn, prepare

RNG = np.random.default_rng(4)
TREES = ("decision_tree", "random_forest", "gradient_boosting", "xgboost")
OTHERS = ("logistic_regression", "linear_svm", "naive_bayes", "factorisation_machine")
MODELS = (*TREES, *OTHERS, "neural_network")


def grown(trees: int, depth: int, width: int, rng=RNG, *, early: float = 0.1):
    """Random trees as the arrays of a fitted ensemble: covers add up, some leaves are early."""
    feature, threshold, left, right, cover, root = [], [], [], [], [], []

    def grow(rows: int, level: int) -> int:
        at = len(feature)
        for column, start in ((feature, -1), (threshold, 0.0), (left, at), (right, at)):
            column.append(start)
        cover.append(rows)
        if level < depth and rows > 1 and rng.random() > early:
            feature[at], threshold[at] = int(rng.integers(width)), float(rng.normal())
            part = int(rng.integers(1, rows))
            left[at], right[at] = grow(part, level + 1), grow(rows - part, level + 1)
        return at

    for _ in range(trees):
        root.append(grow(5000, 0))
    size = len(feature)
    return {
        "feature": np.array(feature),
        "threshold": np.array(threshold),
        "left": np.array(left),
        "right": np.array(right),
        "counts": rng.random((size, 2)) + 0.01,
        "prediction": rng.normal(size=size),
        "gain": np.zeros(size),
        "cover": np.array(cover, float),
        "root": np.array(root),
        "weight": rng.random(trees) if trees > 1 else np.ones(1),
    }


def model(name: str, width: int, rng=RNG):
    if name == "naive_bayes":
        spread = {"mean": rng.normal(size=(2, width)), "variance": rng.random((2, width)) + 0.1}
        return {"prior": np.log([0.7, 0.3]), **spread}
    if name in OTHERS:
        pairs = {"factors": 0.3 * rng.normal(size=(width, 3))} if name == OTHERS[-1] else {}
        return {"coefficients": rng.normal(size=width), "intercept": rng.normal(size=1), **pairs}
    if name == "neural_network":
        layers = np.array([width, 7, 5, 2])
        size = sum((a + 1) * b for a, b in zip(layers[:-1], layers[1:], strict=True))
        return {"layers": layers, "weights": rng.normal(size=size)}
    arrays = grown({"decision_tree": 1}.get(name, 12), 5, width, rng)
    if name == "xgboost":
        size = len(arrays["feature"])
        arrays |= {"lacking": rng.random(size) < 0.5, "base": rng.normal(size=1)}
    return arrays


def rows(name: str, count: int, width: int, rng=RNG):
    """Prepared rows; some values are missing where the model takes them so."""
    x = rng.normal(size=(count, width))
    return np.where(rng.random(x.shape) < 0.3, np.nan, x) if algorithm(name).MISSING else x


def columns(width: int, features: int | None = None, rng=RNG) -> Columns:
    """Columns of which the last ones are the missing flags of some features."""
    count = features or width
    flagged = rng.permutation(count)[: width - count]
    mean = np.r_[np.zeros(count), rng.random(width - count)]
    return Columns(mean, np.r_[np.arange(count), flagged], count)


def output(name: str, arrays, x):
    """The model's own output, in the scale in which its reasons add up."""
    risk = algorithm(name).probability(arrays, x)
    return risk if name in TREES[:2] else np.log(risk / (1 - risk))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", range(5))
def test_the_base_and_what_the_features_add_are_the_models_output(name, seed):
    rng = np.random.default_rng(seed)
    arrays, x = model(name, 9, rng), rows(name, 20, 9, rng)
    made = algorithm(name).additive(arrays, columns(9, 6, rng))
    assert made.scale == (PROBABILITY if name in TREES[:2] else LOG_ODDS)
    found = made.of(x)
    assert found.shape == (20, 6)
    assert np.abs(made.base + found.sum(axis=1) - output(name, arrays, x)).max() < 1e-9
    assert made.of(x[:0]).shape == (0, 6)


def known(arrays, value, row, players, inside, at):
    """What a tree answers where the features ``inside`` are known: both branches at any other."""
    column = arrays["feature"][at]
    if column < 0:
        return value[at]
    sides = arrays["left"][at], arrays["right"][at]
    if players[column] in inside:
        below = row[column] <= arrays["threshold"][at]
        if np.isnan(row[column]):
            below = arrays["lacking"][at]
        return known(arrays, value, row, players, inside, sides[0 if below else 1])
    rows = [arrays["cover"][side] for side in sides]
    answers = [known(arrays, value, row, players, inside, side) for side in sides]
    return np.dot(rows, answers) / sum(rows)


def shapley(answer, count):
    """The definition: what a player adds to each set of the others, averaged over all orders."""
    out = np.zeros(count)
    for player in range(count):
        others = [p for p in range(count) if p != player]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for inside in combinations(others, size):
                out[player] += weight * (answer({*inside, player}) - answer(set(inside)))
    return out


def values(name, arrays):
    """What a leaf adds to the output."""
    share = arrays["counts"][:, 1] / arrays["counts"].sum(axis=1)
    if name == "xgboost":
        return arrays["prediction"]
    if name != "gradient_boosting":
        return share / len(arrays["root"])
    tree = np.searchsorted(arrays["root"], np.arange(len(share)), side="right") - 1
    return 2 * arrays["weight"][tree] * arrays["prediction"]


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("seed", range(6))
def test_trees_tell_the_shapley_values_of_the_definition(name, seed):
    rng = np.random.default_rng(seed)
    arrays, cols = model(name, 6, rng), columns(6, 4, rng)
    made, value = algorithm(name).additive(arrays, cols), values(name, arrays)
    start = arrays.get("base", np.zeros(1))[0]
    for row in rows(name, 3, 6, rng):

        def answer(inside, row=row):
            found = (known(arrays, value, row, cols.feature, inside, at) for at in arrays["root"])
            return start + sum(found)

        assert np.abs(made.of(row[None])[0] - shapley(answer, 4)).max() < 1e-9
        assert made.base == pytest.approx(answer(set()), abs=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_others_tell_what_the_definition_says_with_the_mean_in_place_of_the_unknown(name):
    arrays, cols = model(name, 6), columns(6, 4)
    made, row = algorithm(name).additive(arrays, cols), RNG.normal(size=6)

    def answer(inside):
        x = np.where([f in inside for f in cols.feature], row, cols.mean)
        return output(name, arrays, x[None])[0]

    assert np.abs(made.of(row[None])[0] - shapley(answer, 4)).max() < 1e-9


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_a_steep_network_still_adds_up_and_each_part_is_its_integral(scale):
    arrays = model("neural_network", 6)
    arrays["weights"] = arrays["weights"] * scale ** (np.arange(len(arrays["weights"])) < 49)
    cols, row = columns(6, 4), RNG.normal(size=(1, 6)) * 3
    found = algorithm("neural_network").additive(arrays, cols)
    at = (np.arange(400_000) + 0.5) / 400_000  # the midpoint rule, the slow and plain way
    from clinloom.models import neural_network as module

    matrices = module._matrices(arrays)
    gradient = np.zeros(6)
    for part in np.array_split(at, 100):
        x = cols.mean + part[:, None] * (row[0] - cols.mean)
        gradient += module._margin(matrices, x)[1].sum(axis=0) / len(at)
    expected = cols.gathered(((row[0] - cols.mean) * gradient)[None])
    assert np.abs(found.of(row) - expected).max() < 1e-6
    total = found.base + found.of(row).sum()
    assert total == pytest.approx(module._margin(matrices, row)[0][0], rel=1e-9, abs=1e-9)


def test_a_tree_of_one_leaf_and_a_branch_that_no_row_took():
    alone = grown(1, 0, 2)
    made = algorithm("decision_tree").additive(alone, columns(2))
    assert made.of(np.ones((3, 2))).tolist() == [[0, 0]] * 3 and np.isfinite(made.base)
    empty = grown(1, 3, 2, early=0.0)
    empty["cover"][empty["left"][0]] = 0
    made, x = algorithm("decision_tree").additive(empty, columns(2)), RNG.normal(size=(9, 2))
    total = made.base + made.of(x).sum(axis=1)
    assert np.abs(total - algorithm("decision_tree").probability(empty, x)).max() < 1e-9


def test_a_missing_value_and_its_flag_are_one_reason_of_one_feature():
    raw = RNG.normal(size=(200, 3))
    raw[:80, 1] = np.nan
    statistics = learn(raw, lower=0.0, upper=1.0)
    assert statistics.indicator.tolist() == [1] and statistics.share.tolist() == [0.4]
    cols = Columns.of(statistics, 3)
    prepared = prepare(raw, statistics)
    assert np.abs(cols.mean - prepared.mean(axis=0)).max() < 1e-12  # the training rows' mean
    arrays = {"coefficients": np.array([0.0, 2.0, 0.0, 5.0]), "intercept": np.zeros(1)}
    found = algorithm("logistic_regression").additive(arrays, cols).of(prepared)
    assert (found[:, [0, 2]] == 0).all()
    assert found[0, 1] == pytest.approx(2 * prepared[0, 1] + 5 * (1 - 0.4))


@pytest.mark.parametrize("name", TREES)
def test_a_model_from_before_its_reasons_were_kept_says_so(name):
    arrays = model(name, 3)
    del arrays["cover"]
    with pytest.raises(StoreError, match="reasons"):
        algorithm(name).additive(arrays, columns(3))
    raw = np.where(RNG.random((50, 2)) < 0.3, np.nan, RNG.random((50, 2)))
    statistics = learn(raw, lower=0, upper=1)
    old = Statistics(**{k: v for k, v in statistics.arrays().items() if k != "share"})
    with pytest.raises(StoreError, match="run its study again"):
        Columns.of(old, 2)


def test_one_patient_and_a_hundred_trees_take_milliseconds():
    import time

    arrays = grown(100, 8, 200, early=0.0)
    made = algorithm("random_forest").additive(arrays, columns(200))
    x, spent = RNG.normal(size=(1, 200)), []
    for _ in range(7):
        begun = time.process_time()
        made.of(x)
        spent.append(time.process_time() - begun)
    assert min(spent) < 0.02, spent
