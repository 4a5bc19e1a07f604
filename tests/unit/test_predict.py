"""The one pass over the dataset: what it writes, and sums that are the same however rows lie."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clinloom.cohort import split
from clinloom.cohort.division import Division
from clinloom.deploy.scorer import Scorer
from clinloom.learn.preparation import learn
from clinloom.learn.risks import Risks
from clinloom.report import baseline
from clinloom.run import predict
from clinloom.tables import DATASET, matrix

RNG = np.random.default_rng(1)
N = 600


def dataset():
    values = RNG.normal(size=(N, 3))
    values[RNG.random((N, 3)) < 0.1] = np.nan
    rows = [
        {
            "subject_id": at // 2,
            "prediction_time": at,
            "boolean_value": [True, False, None][at % 3],
            "split": ["train", "test", "test", None][at // 2 % 4],
            "values": values[at].tolist(),
        }
        for at in range(N)
    ]
    return pa.Table.from_pylist(rows, schema=DATASET.arrow)


ROWS = dataset()


def scorer(slope):
    statistics = learn(matrix(ROWS), lower=0.01, upper=0.99)
    arrays = {"coefficients": np.full(statistics.width, slope), "intercept": np.zeros(1)}
    return Scorer("logistic_regression", statistics, arrays, 1.0, 0.0, 0.5)


SCORERS = [scorer(0.7), scorer(-0.2)]
HELD_OUT = Division(3, 0, (0,), ("test",))
CROSSED = Division(3, 5, (0, 4), ())


def passed(count):
    """Every sum, merged from parts of whole patients, and the written rows together."""
    kernel = {"scorers": [[one] for one in SCORERS], "selected": 1, "shown": [0, 2]}
    kernel["division"] = HELD_OUT
    edges = np.linspace(0, N // 2, count + 1).astype(int) * 2
    parts = [predict.scored(ROWS.slice(a, b - a), **kernel) for a, b in pairwise(edges)]
    sums = {
        name: merge([p[name] for p in parts if name in p]) for name, merge in predict.MERGES.items()
    }
    written = {
        n: pa.concat_tables([p[n] for p in parts if n in p]) for n in ("predictions", "risks")
    }
    return sums, written


def test_what_is_written_and_counted():
    sums, written = passed(1)
    test = ROWS.filter(pc.equal(ROWS["split"], "test"))
    risk = np.stack([one.score(matrix(test)) for one in SCORERS], axis=1)
    assert np.array_equal(matrix(written["risks"]), risk)
    assert written["risks"]["boolean_value"].null_count == 0
    made = written["predictions"]
    assert np.array_equal(made["predicted_boolean_probability"].to_numpy(), risk[:, 1])
    assert made["boolean_value"].to_pylist() == test["boolean_value"].to_pylist()
    found = predict._split(sums["split"])
    assert found["test"]["rows"] == test.num_rows
    assert found["test"]["subjects"] == len(set(test["subject_id"].to_pylist()))
    assert found["test"]["positive"] == sum(v is True for v in test["boolean_value"].to_pylist())
    assert predict._outliers(None, []).num_rows == 0
    bounds = SCORERS[1].statistics
    beyond = (matrix(ROWS) < bounds.lower) | (matrix(ROWS) > bounds.upper)
    pairs = sums["outliers"].select(["feature", "count"]).to_pylist()
    counted = {row["feature"]: row["count"] for row in pairs}
    assert counted == {at: n for at, n in enumerate(beyond.sum(axis=0)) if n}


@pytest.mark.parametrize("count", [3, 17])
def test_how_patients_are_chunked_changes_nothing(count):
    (one, wrote), (many, again) = passed(1), passed(count)
    assert wrote["predictions"].to_pylist() == again["predictions"].to_pylist()
    assert wrote["risks"].to_pylist() == again["risks"].to_pylist()
    for name in ("split", "outliers"):
        assert one[name].to_pylist() == many[name].to_pylist(), name
    names = ["a|X//1|last|all", "a|X//3|last|all"]
    assert baseline.told(names, one["baseline"]) == baseline.told(names, many["baseline"])
    for model in (0, 1):
        mine, other = (
            Risks.read(s["groups"].filter(pc.field("model") == model)) for s in (one, many)
        )
        assert mine.exact and all(
            np.array_equal(getattr(mine, n), getattr(other, n)) for n in mine.__dict__
        )


def test_where_folds_are_judged_each_row_is_scored_once_a_repeat_by_its_part_alone():
    """A scorer a part, each with a risk of its own: what a row is told says whose it is."""
    rows = ROWS.set_column(3, "split", pa.array(["crossed"] * N))
    models = [[scorer(0.1 * (n + 1)) for n in range(6)], [scorer(-0.1 * n) for n in range(6)]]
    models = [[replace(s, threshold=0.4 + 0.02 * n) for n, s in enumerate(m)] for m in models]
    kernel = {"scorers": models, "selected": 1, "shown": [0], "division": CROSSED}
    found = predict.scored(rows, **kernel)
    made, risks = found["predictions"], found["risks"]
    assert made.num_rows == 2 * N and risks.num_rows == 2 * N
    names = CROSSED.names
    by_hand = [CROSSED.part(rows, repeat) for repeat in (0, 1)]
    subject = rows["subject_id"].to_numpy()
    for repeat, parts in enumerate(by_hand):
        assert (
            parts.tolist()
            == (split.fold(subject, 3, 5, CROSSED.salts[repeat]) + 3 * repeat).tolist()
        )
        mine = made.filter(pc.equal(made["repeat"], repeat + 1))
        assert mine["prediction_time"].to_pylist() == rows["prediction_time"].to_pylist()
        assert mine["part"].to_pylist() == [names[part] for part in parts]
        told = mine["predicted_boolean_probability"].to_numpy()
        for part in np.unique(parts):
            own, at = models[1][part], parts == part
            assert np.array_equal(told[at], own.score(matrix(rows)[at]))
            flags = mine["predicted_boolean_value"].to_numpy(zero_copy_only=False)[at]
            assert np.array_equal(flags, told[at] >= own.threshold)
    assert predict._split(found["split"]).keys() == {"test"}
    groups = found["groups"]
    assert set(groups["part"].to_pylist()) == set(range(6))
    assert pc.sum(groups["total"]).as_py() == 2 * 2 * N
    halves = [predict.scored(rows.slice(a, N // 2), **kernel) for a in (0, N // 2)]
    assert pa.concat_tables([h["predictions"] for h in halves]).equals(made)
    assert predict.regrouped([h["groups"] for h in halves]).equals(predict.regrouped([groups]))
