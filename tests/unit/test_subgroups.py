"""Subgroups, months and shuffled features: what workers add up, and what may be told of it."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from clinloom.cohort.division import Division
from clinloom.deploy.scorer import Scorer
from clinloom.evaluate import Judged, importance, replicated
from clinloom.evaluate.subgroups import (
    EVERY,
    FAIRNESS,
    NUMBERS,
    Cut,
    Group,
    Grouped,
    members,
    unfound,
)
from clinloom.evaluate.subgroups import subgroups as found_in
from clinloom.learn.preparation import learn
from clinloom.learn.risks import Risks
from clinloom.run import explain, predict, subgroups
from clinloom.spark.sums import unpacked
from clinloom.study.schema import Evaluate
from clinloom.tables import DATASET, SAMPLED, matrix

metrics = pytest.importorskip("sklearn.metrics")
N = 1200
RNG = np.random.default_rng(5)
MONTH = 2_629_746_000_000  # microseconds


def feature(code, statistic="present", family="codes"):
    return SimpleNamespace(
        code=code, statistic=statistic, family=family, name=f"{family}|{code}|{statistic}|all"
    )


FEATURES = [
    feature("MEDS_BIRTH", "age", "demographics"),
    feature("GENDER//F", family="demographics"),
    feature("RACE//x"),
    feature("MANUFACTURER//Acme"),
    feature("ICD10CM//I50.9"),
    feature("ICD10CM//I10", "count"),
    feature("LOINC//1", "last", "measurements"),
]


def test_subgroups_are_those_that_features_tell_and_the_study_names():
    names = [g.name for g in found_in(FEATURES, ["ICD10CM//I5*", "X//*"], EVERY)]
    assert names[:5] == [
        f"age {b}" for b in ("0 to 17", "18 to 44", "45 to 64", "65 to 79", "80 on")
    ]
    assert names[5:] == [
        "sex F",
        "ethnicity x",
        "scanner Acme",
        "code ICD10CM//I50.9",
    ]
    assert [g.kind for g in found_in(FEATURES)][5:] == ["sex"]  # those that are watched
    groups = found_in(FEATURES, ["ICD10CM//I5*", "X//*"], EVERY)
    assert unfound(groups, ["ICD10CM//I5*", "X//*"]) == ["X//*"]


GROUPS = [
    Group("sex", "sex F", 1, 0.5, np.inf),
    Group("sex", "sex M", 1, -np.inf, 0.5),
    Group("age", "age 65 on", 0, 65, np.inf),
]


def dataset():
    age, sex, signal = RNG.normal(60, 12, N), RNG.random(N) < 0.5, RNG.normal(size=N)
    values = np.column_stack([age, sex, signal])
    values[RNG.random(N) < 0.05, 2] = np.nan
    label = RNG.random(N) < 1 / (1 + np.exp(1 - np.nan_to_num(signal)))
    rows = {
        "subject_id": np.arange(N) // 2,
        "prediction_time": (600 + np.arange(N) % 5) * MONTH + MONTH // 3,
        "boolean_value": label,
        "split": ["train" if at // 2 % 3 == 0 else "test" for at in range(N)],
        "values": values.tolist(),
    }
    return pa.table(rows).cast(DATASET.arrow)


ROWS = dataset()
STATISTICS = learn(matrix(ROWS), lower=0.01, upper=0.99)
WEIGHTS = np.r_[0.0, 0.0, 1.1, np.zeros(STATISTICS.width - 3)]
SCORER = Scorer(
    "logistic_regression",
    STATISTICS,
    {"coefficients": WEIGHTS, "intercept": np.array([-1.0])},
    1.0,
    0.0,
    0.4,
)


def passed(count):
    """Every sum and row, merged from parts of whole patients."""
    kernel = {"scorers": [[SCORER]], "selected": 0, "shown": [0], "groups": GROUPS, "sample": 150}
    kernel["division"] = Division(2, 0, (0,), ("test",))
    edges = np.linspace(0, N // 2, count + 1).astype(int) * 2
    parts = [predict.scored(ROWS.slice(a, b - a), **kernel) for a, b in pairwise(edges)]
    merges = {**subgroups.MERGES, "sampled": lambda t: explain.merged(t, most=150)}
    made = {n: merge([p[n] for p in parts if n in p]) for n, merge in merges.items()}
    return made, pa.concat_tables(p["risks"] for p in parts if "risks" in p)


def test_how_patients_are_chunked_changes_no_sum_and_no_sample():
    (one, rows), (many, again) = passed(1), passed(13)
    assert rows.equals(again)
    assert one["sampled"]["drawn"].equals(many["sampled"]["drawn"])
    assert np.array_equal(matrix(one["sampled"]), matrix(many["sampled"]), equal_nan=True)
    assert one["sampled"].num_rows == 150
    assert set(one["sampled"]["subject_id"].to_pylist()) <= set(rows["subject_id"].to_pylist())
    order = [("key", "ascending")]
    assert one["patients"].sort_by(order).equals(many["patients"].sort_by(order))
    ours, theirs = (subgroups.by_key(made["subgroups"]) for made in (one, many))
    assert list(ours) == list(theirs) and len(ours) == 3 + 5
    for key, risks in ours.items():
        assert risks.exact and np.array_equal(risks.total, theirs[key].total)
    women = matrix(ROWS)[:, 1] > 0.5
    test = np.array(ROWS["split"].to_pylist()) == "test"
    assert ours[0].rows == (women & test).sum() and ours[0].rows + ours[1].rows == test.sum()


def judged(made, rows, replicates=range(41)):
    """The replicates by key, as workers make them."""
    label = rows["boolean_value"].to_numpy(zero_copy_only=False)
    risk = matrix(rows)
    whole = Judged.of(Risks.of(label, risk[:, 0]), SCORER.threshold)
    found = subgroups.by_key(made["subgroups"])
    patients = {row.pop("key"): row for row in made["patients"].to_pylist()}
    periods, step = subgroups.periods(patients)
    cut = Cut.of(whole.risks, SCORER.threshold)
    keys = subgroups.Keys(cut, 0, len(GROUPS), periods, step)
    grouped = Grouped(cut, keys.count, len(replicates))
    pairs = keys.pairs(rows["member"].to_numpy(), rows["month"].to_numpy())
    chunk = (rows["subject_id"].to_numpy(), label, risk, pairs)
    replicated([chunk], [whole], replicates, seed=1, grouped=grouped)
    return grouped.measured(), keys, found


def test_what_is_told_of_subgroups_and_months_is_of_their_rows():
    made, rows = passed(3)
    drawn, keys, found = judged(made, rows)
    patients = {row.pop("key"): row for row in made["patients"].to_pylist()}
    told = subgroups.told(
        drawn, keys, GROUPS, found, patients, threshold=SCORER.threshold, confidence=0.9
    )
    json.dumps(told, allow_nan=False)
    assert [row["name"] for row in told["subgroups"]] == ["sex F", "sex M", "age 65 on"]
    assert len(told["months"]) == 5 and told["months"][0]["name"].startswith("20")
    values, risk = matrix(ROWS), matrix(rows)[:, 0]
    values = values[np.array(ROWS["split"].to_pylist()) == "test"]
    label = rows["boolean_value"].to_numpy(zero_copy_only=False)
    member = members(values, GROUPS)
    for at, row in enumerate(told["subgroups"]):
        inside = member[:, at]
        auroc = metrics.roc_auc_score(label[inside], risk[inside])
        rest = metrics.roc_auc_score(label[~inside], risk[~inside])
        assert row["rows"] == inside.sum() and row["shown"]
        assert row["metrics"]["auroc"]["value"] == pytest.approx(auroc, abs=1e-9)
        assert row["difference"]["auroc"]["value"] == pytest.approx(auroc - rest, abs=1e-9)
        flagged = risk >= SCORER.threshold
        recall = [metrics.recall_score(label[s], flagged[s]) for s in (inside, ~inside)]
        fair = row["fairness"]["equal_opportunity_difference"]
        assert fair["value"] == pytest.approx(recall[0] - recall[1], abs=1e-9)
        ratio = flagged[inside].mean() / flagged[~inside].mean()
        assert row["fairness"]["alert_rate_ratio"]["value"] == pytest.approx(ratio, abs=1e-9)
        assert all(one["low"] < one["value"] < one["high"] for one in row["difference"].values())
        assert set(row["metrics"]) == set(NUMBERS) and set(row["fairness"]) == set(FAIRNESS)
    assert sum(row["rows"] for row in told["months"]) == len(label)


def test_many_months_are_told_by_year_and_shifted_dates_not_at_all():
    def found(months, having):
        return {
            base + at: {"having": having * step, "lacking": 90}
            for step, base in subgroups.PERIODS.items()
            for at in range(-(-months // step))
        }

    assert subgroups.periods(found(36, 5)) == (tuple(range(36)), 1)
    assert subgroups.periods(found(36, 2)) == (tuple(range(12)), 3)
    assert subgroups.periods(found(40, 1)) == ((0, 1, 2, 3), 12)
    assert subgroups.periods(found(600, 5)) == ((), 1)
    assert subgroups.periods({0: {"having": 9, "lacking": 9}}) == ((), 1)
    assert [subgroups._called(*one) for one in ((663, 1), (221, 3), (55, 12), (-1, 1))] == [
        "2025-04",
        "2025 Q2",
        "2025",
        "1969-12",
    ]
    keys = subgroups.Keys(None, 0, 2, (0, 2), 12)
    pairs = keys.pairs(np.array([3, 0, 2]), np.array([5, 13, 30]))
    assert pairs.row.tolist() == [0, 0, 0, 2, 2] and pairs.key.tolist() == [0, 1, 2, 1, 3]


def test_a_shuffled_feature_costs_what_scikit_learn_says():
    made, _ = passed(1)
    values = matrix(made["sampled"])
    label = made["sampled"]["boolean_value"].to_numpy(zero_copy_only=False)
    subject = made["sampled"]["subject_id"].to_numpy()
    from clinloom.learn import preparation

    x, score = preparation.prepare(values, STATISTICS), explain.scored(SCORER)
    shuffled = importance.Shuffled(score, x, label, subject, seed=3)
    whole = metrics.roc_auc_score(label, SCORER.score(values))
    assert shuffled.base[0] == pytest.approx(whole, abs=1e-9)
    of = explain.columns(SCORER, 3)
    assert of == [[], [], [2]]  # only what the model uses is shuffled
    assert not shuffled.lost(of[0]).any()
    rng, areas = np.random.default_rng([3, 2, 1]), []
    for _ in range(5):
        moved = values.copy()
        moved[:, 2] = values[rng.permutation(len(values)), 2]
        areas.append(metrics.roc_auc_score(label, SCORER.score(moved)))
    lost = shuffled.lost(of[2])
    assert lost[0] == pytest.approx(whole - np.mean(areas), abs=1e-9)
    low, high = np.quantile(lost[1:], [0.025, 0.975])
    assert low < lost[0] < high


def test_explanations_come_in_parts(monkeypatch, tmp_path):
    made, _ = passed(1)
    table = made["sampled"].cast(SAMPLED.arrow)
    monkeypatch.setattr(explain, "stream", lambda *_, **__: iter([table]))
    listed = list(importance.sets([feature("a", family="f"), feature("b"), feature("b")]))
    assert [kind for kind, *_ in listed] == ["feature"] * 3 + ["family"] * 2 + ["code"]
    sets = [of for *_, of in listed]

    def parts(count):
        made: dict[str, list] = {"lost": [], "added": []}
        for at in range(count):
            one = {"files": ["x"], "scorer": SCORER, "sets": sets, "parts": count, "seed": 3}
            for batch in explain.part(at, **one):
                for row in batch.to_pylist():
                    made[row["name"]].append(unpacked(row["sum"]))
        lost = pa.concat_tables(made["lost"]).sort_by("number")
        blocks = pa.concat_tables(made["added"]).sort_by("block").to_pylist()
        added = np.sum([block["values"] for block in blocks], axis=0)
        return lost, added

    (lost, added), (again, same) = parts(1), parts(2)
    assert lost.equals(again) and np.array_equal(added, same)  # to the last bit
    x = explain.preparation.prepare(matrix(table), STATISTICS)
    mean = np.r_[np.zeros(3), STATISTICS.share]
    expected = np.abs(WEIGHTS * (x - mean)).sum(axis=0)[:3]
    assert added == pytest.approx(expected)
    told = importance.told(
        [listed[at][:2] for at in range(6)],
        {row["number"]: np.array(row["values"]) for row in lost.to_pylist()},
        most=2,
        confidence=0.95,
    )
    assert [row["name"] for row in told["feature"]] == [listed[2][1]]
    assert [row["name"] for row in told["code"]] == ["b"]


def test_defaults_of_a_study():
    asked = Evaluate()
    assert asked.alert_rates == [0.1] and asked.sensitivities == [0.8] and asked.explain == 1000
    with pytest.raises(ValueError, match="less than 1"):
        Evaluate(thresholds=[1.5])
