"""What is judged part by part, and the plain rivals that are judged beside."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinloom import evaluate as evaluation
from clinloom.cohort.division import Division
from clinloom.errors import DataError
from clinloom.evaluate import Judged
from clinloom.evaluate.subgroups import Cut
from clinloom.features import Feature
from clinloom.learn.risks import Risks
from clinloom.report import judged as page
from clinloom.run import judge, learners, parts, predict
from clinloom.run.subgroups import Keys
from clinloom.tables import GROUPS, RISKS

RNG = np.random.default_rng(3)
N, LIMITS = 900, np.array([0.3, 0.5, 0.42])
PART, LABEL = RNG.integers(0, 3, N), RNG.random(N) < 0.4
RISK = np.round(np.clip(0.25 + 0.3 * LABEL + 0.2 * RNG.normal(size=N), 0.01, 0.99), 3)
CROSSED = Division(3, 0, (0,), ())


class Scorer:
    def __init__(self, threshold: float):
        self.threshold = threshold


NONE = pa.array(np.zeros(N, np.int64))  # in no subgroup, and in the first month
SCORERS = [Scorer(limit) for limit in LIMITS]


def grouped(part=PART, label=LABEL, risk=RISK) -> pa.Table:
    made = [predict.keyed(0, Risks.of(label[part == n], risk[part == n]), n) for n in range(3)]
    return predict._named(predict.regrouped(made), ["lr"])


def test_the_flags_of_each_part_are_at_its_own_threshold(tmp_path):
    table = grouped()
    assert table.schema == GROUPS.arrow
    flags = RISK >= LIMITS[PART]
    lists = pa.array(RISK[:, None].tolist(), pa.list_(pa.float64()))
    rows = pa.table(
        [pa.array(np.arange(N)), pa.array(LABEL), pa.array(PART), lists, NONE, NONE],
        schema=RISKS.arrow,
    )
    pq.write_table(rows, tmp_path / "risks.parquet")
    judged = [
        Judged.of(parts.together(table, "lr"), 0.5),
        Judged.of(parts.flags(table, "lr", SCORERS), 0.5),
    ]
    limits = {0: parts.limits(SCORERS)}
    keys = Keys(Cut.of(judged[0].risks, 0.5), 0, 0, (), 1)
    read = judge._rows([str(tmp_path / "risks.parquet")], limits, keys)
    drawn = evaluation.replicated(read, judged, range(21), seed=1)
    risks, told = (evaluation.told(one, confidence=0.95) for one in drawn)
    assert told["recall"]["value"] == pytest.approx(flags[LABEL].mean())
    assert told["precision"]["value"] == pytest.approx(LABEL[flags].mean())
    assert told["accuracy"]["value"] == pytest.approx((LABEL == flags).mean())
    assert told["recall"]["low"] < told["recall"]["value"] < told["recall"]["high"]
    assert risks["auroc"]["value"] == pytest.approx(Risks.of(LABEL, RISK).auroc())


def test_what_each_part_tells_alone():
    told = parts.told(grouped(), "lr", CROSSED)
    for n, row in enumerate(told["parts"]):
        mine = PART == n
        assert row["part"] == f"fold {n + 1}" and row["rows"] == mine.sum()
        assert row["positive"] == LABEL[mine].sum()
        assert row["auroc"] == pytest.approx(Risks.of(LABEL[mine], RISK[mine]).auroc())
        assert row["brier"] == pytest.approx(((RISK - LABEL)[mine] ** 2).mean())
    assert told["mean"]["auroc"] == pytest.approx(np.mean([r["auroc"] for r in told["parts"]]))
    assert parts.told(grouped(), "lr", Division(3, 0, (0,), ("test",))) == {}


def test_nothing_is_told_of_a_part_with_few_outcomes_nor_what_would_tell_how_many():
    label = LABEL.copy()
    label[PART == 1] = False
    label[np.flatnonzero(PART == 1)[:4]] = True
    told = parts.told(grouped(label=label), "lr", CROSSED)
    assert [row["auroc"] is None for row in told["parts"]] == [False, True, False]
    assert {row["positive"] for row in told["parts"]} == {None}  # it leaves with the bundle, too
    shown = page.view({"judged": {"method": "kfold", "parts": CROSSED.names}}, told, "patients")
    assert {row["positive"] for row in shown["parts"]} == {"hidden"}
    assert "Every patient was judged by a model" in shown["how"][0]
    assert told["mean"]["auroc"] == pytest.approx(
        np.mean([told["parts"][n]["auroc"] for n in (0, 2)])
    )


def feature(name: str) -> Feature:
    return Feature.named(name, modality="records")


FEATURES = [
    feature("demographics|MEDS_BIRTH|age|all"),
    feature("demographics|GENDER//F|present|all"),
    feature("measurements|LAB//x|mean|all"),
    feature("measurements|LAB//x|last|all"),
    feature("measurements|SOFA|max|all"),
]


class Study:
    def __init__(self, **asked):
        from clinloom.study import Evaluate

        self.models, self.evaluate = {}, Evaluate(**asked)


def rivals(features=FEATURES, **asked):
    return {one.name: one for one in learners.learners(Study(**asked), features)}


def test_age_and_sex_and_a_score_stand_beside():
    found = rivals(score="SOFA")
    assert found["baseline"].use == (0, 1) and found["score"].use == (4,)
    assert all(one.rival and one.algorithm == "logistic_regression" for one in found.values())
    assert rivals(baseline="LAB//*")["baseline"].use == (3,)  # of a code's features the latest
    assert rivals(FEATURES[2:]) == {}
    with pytest.raises(DataError, match="did you mean 'LAB//x'"):
        rivals(baseline="LAB//y")


def test_a_rival_is_never_selected(monkeypatch):
    from clinloom.run import train

    told = {
        "lr": {"fold_auroc": 0.6, "rival": False},
        "baseline": {"fold_auroc": 0.9, "rival": True},
    }
    monkeypatch.setattr(train, "told", lambda models, name: told[name])
    assert train.selected(dict.fromkeys(told, {})) == "lr"
