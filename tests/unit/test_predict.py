"""The one pass over the dataset: what it writes, and sums that are the same however rows lie."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

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


def passed(count):
    """Every sum, merged from parts of whole patients, and the written rows together."""
    kernel = {"scorers": SCORERS, "selected": 1, "shown": [0, 2]}
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
