"""The step on Spark: what it answers is what the kernels answer of all rows at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import roc_auc_score
from tests.hospital import clinloom
from tests.properties import test_alarms as hospital

from clinloom import files, plugins
from clinloom import study as studies
from clinloom.deploy import bundle as bundles
from clinloom.deploy.scorer import Scorer
from clinloom.errors import DataError, UsageError
from clinloom.evaluate import alarms, asked, watch
from clinloom.features import Feature
from clinloom.learn.preparation import learn
from clinloom.run import api, reference
from clinloom.tables import FEATURES, PREDICTIONS, SEEN

SEXES = {12: "demographics|GENDER//a|present|all", 13: "demographics|GENDER//b|present|all"}
LISTED = [
    Feature.named(SEXES.get(n, f"measurements|F//{n}|last|24h"), modality="records")
    for n in range(hospital.FEATURES)
]
STUDY = """
name: watched
sources: {lab: {type: table, path: lab, patient: pid, time: {static: true}, code: {column: what}}}
cohort: {index: {at: A}, outcome: {codes: B, within: 30d}}
features: {measurements: {codes: "*"}}
models: [logistic_regression]
"""


@pytest.fixture(scope="module")
def made() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    made = hospital.drawn(rng, 1800, each=3)
    hospital.shifted_unit(rng, made)
    months = np.array([f"2026-{m + 1:02}" for m in range(hospital.PERIODS)], "datetime64[M]")
    start = months[made["period"]].astype("datetime64[us]").astype(np.int64)
    order = np.arange(len(start)) % 3
    made["at"] = start + order * 3_600_000_000
    return made


@pytest.fixture(scope="module")
def known() -> watch.Reference:
    made = hospital.reference(np.random.default_rng(12), each=3, rows=3999, tests=1599)
    names = tuple(feature.name for feature in LISTED)
    groups = dict(zip(("sex a", "sex b"), made.groups.values(), strict=True))
    return replace(made, names=names, groups=groups)


@pytest.fixture(scope="module")
def laid(tmp_path_factory, made, known):
    """A bundle, scores in two files, their features, and later outcomes."""
    root = tmp_path_factory.mktemp("watched")
    study = studies.parse(yaml.safe_load(STUDY), rooms=plugins, base=str(root))
    arrays = {"coefficients": np.zeros(1), "intercept": np.zeros(1)}
    statistics = learn(np.arange(10.0)[:, None], lower=0.01, upper=0.99)
    bundles.publish(
        files.address(root) / "bundle",
        scorer=Scorer("logistic_regression", statistics, arrays, 1.0, 0.0, 0.25),
        study=study.portable(),
        features=LISTED,
        evidence={},
        check=lambda: None,
        reference=json.dumps(known.plain()),
    )
    at = pa.array(made["at"], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    keys = [pa.array(made["subject"]), at]
    flagged = pa.array(made["risk"] >= 0.25)
    none = pa.nulls(len(at), pa.bool_())
    scores = pa.table([*keys, none, flagged, pa.array(made["risk"])], schema=PREDICTIONS.arrow)
    values = pa.FixedSizeListArray.from_arrays(pa.array(made["x"].ravel()), hospital.FEATURES)
    rows = pa.table([*keys, values.cast(pa.list_(pa.float64()))], schema=FEATURES.arrow)
    shuffled = np.random.default_rng(0).permutation(len(at))
    for part, which in enumerate((slice(0, 900), slice(900, None))):
        file = root / "scores" / f"{part}.parquet"
        beside = root / "scores" / f"{part}.parquet.features"
        (beside / "moments").mkdir(parents=True)
        pq.write_table(scores.take(pa.array(shuffled[which])), file)
        pq.write_table(rows.take(pa.array(shuffled[which])), beside / "moments" / "a.parquet")
        pq.write_table(SEEN.rows([{"code": "C//0", "patients": 90}]), beside / "codes.parquet")
    labels = {"subject_id": keys[0], "prediction_time": at, "boolean_value": made["outcome"]}
    pq.write_table(pa.table(labels).take(pa.array(shuffled)), root / "later.parquet")
    return root


def given(root, **more):
    return {"predictions": root / "scores", "outcomes": str(root / "later.parquet"), **more}


@pytest.mark.core
def test_the_step_answers_as_the_kernels_do(spark, laid, made, known):
    told = api.monitor(laid / "bundle", **given(laid), out=str(laid / "seen"), spark=spark)
    found = json.loads((laid / "seen" / "monitor.json").read_text())
    groups = reference.subgroups(LISTED)
    free = made["at"][~made["outcome"]].max()
    rows = hospital.told(made)._replace(
        member=reference.members(made["x"], groups), known=made["at"] <= free
    )
    order = np.lexsort((made["at"], made["subject"]))
    rows = rows._replace(**{name: part[order] for name, part in rows._asdict().items()})
    expected = alarms.judge(
        known,
        watch.sums(rows, known.risk.cells, known.whole.intercept),
        labels={n: f"2026-{n + 1:02}" for n in range(hospital.PERIODS)},
        groups=[group.name for group in groups],
        features=known.features.cells.counts(made["x"], made["period"], made["subject"]),
        codes=SEEN.rows([{"code": "C//0", "patients": 90}]),
    )
    assert {name: found[name] for name in expected} == json.loads(json.dumps(expected))
    assert told["verdict"] == "alarm" and set(found["kinds"]) == set(asked.KINDS)
    assert {a["what"] for a in found["alarms"] if a["kind"] == "inputs"} == {LISTED[3].name}
    assert "needs a look" in (laid / "seen" / "monitor.html").read_text()


@pytest.mark.core
def test_without_features_and_outcomes_less_is_asked(spark, laid, tmp_path):
    scores = tmp_path / "scores.parquet"
    scores.write_bytes((laid / "scores" / "0.parquet").read_bytes())
    api.monitor(laid / "bundle", predictions=scores, out=str(tmp_path), by="week", spark=spark)
    found = json.loads((tmp_path / "monitor.json").read_text())
    assert set(found["kinds"]) == {"predictions", "flagged"} and found["outcomes_until"] is None


def test_only_outcomes_whose_time_at_risk_has_ended_count(spark, laid, tmp_path):
    more = {"until": "2026-05-01", "out": str(tmp_path)}
    api.monitor(laid / "bundle", **given(laid), **more, spark=spark)
    found = json.loads((tmp_path / "monitor.json").read_text())
    known = {one["period"]: one["known"] for one in found["periods"]}
    assert known["2026-03"] and known["2026-05"] is None and known["2026-06"] is None


def test_features_of_another_bundle_are_refused(spark, laid, tmp_path):
    rows = pq.read_table(laid / "scores" / "0.parquet.features" / "moments" / "a.parquet")
    short = pa.array([v[:3] for v in rows.column("values").to_pylist()], pa.list_(pa.float64()))
    pq.write_table(rows.set_column(2, "values", short), tmp_path / "short.parquet")
    with pytest.raises(DataError, match="a row has 3 features, and the bundle has 40"):
        api.monitor(
            laid / "bundle", **given(laid), features=str(tmp_path / "short.parquet"), spark=spark
        )


@pytest.mark.slow
def test_a_run_is_watched_from_the_command_line(finished, scored, tmp_path):
    """Its own patients, of whom most trained it, raise no alarm but a few of chance."""
    out = tmp_path / "seen"
    kept = (
        finished
        / "bundle"
        / json.loads((finished / "bundle" / "bundle.json").read_text())["parts"]["reference"]
    )
    document = json.loads(kept.read_text())
    for one in (*document["features"], document["risk"]):
        assert all(n == 0 or n >= watch.FEW for n in (*one["counts"], one["missing"]))
    moments = [*Path(f"{scored}.features", "moments").glob("*.parquet")]
    assert sum(pq.read_metadata(m).num_rows for m in moments) == pq.read_metadata(scored).num_rows
    command = ("monitor", finished / "bundle", "--predictions", scored, "--out", out, "--json")
    done = clinloom(*command, check=False)
    assert done.returncode in (0, 3), done.stderr
    told = json.loads(done.stdout)
    found = json.loads((out / "monitor.json").read_text())
    assert (told["verdict"] == "alarm") == (done.returncode == 3) == bool(found["alarms"])
    assert not [a for a in found["alarms"] if a["kind"] in ("codes", "inputs", "missing")]
    assert {"inputs", "codes", "calibration", "running"} <= set(found["kinds"])


def test_outcomes_recalibrate_a_model_whose_level_has_moved(spark, laid, made, tmp_path):
    scores = tmp_path / "scores.parquet"
    told = pa.concat_tables([pq.read_table(f) for f in sorted((laid / "scores").glob("*.parquet"))])
    low = 1 / (1 + np.exp(1.2) * (1 / np.array(told.column(4)) - 1))  # odds told by far too low
    pq.write_table(told.set_column(4, told.schema.field(4), pa.array(low)), scores)
    asked = {"predictions": str(scores), "outcomes": str(laid / "later.parquet"), "spark": spark}
    found = api.recalibrate(laid / "bundle", **asked, out=tmp_path / "new")
    assert found["verdict"] == "recalibrated" and 0.9 < found["intercept"] < 1.5
    before, after = (bundles.Bundle.load(at) for at in (laid / "bundle", tmp_path / "new"))
    assert after.scorer.slope == found["slope"] * before.scorer.slope
    assert after.scorer.intercept == pytest.approx(
        found["intercept"] + found["slope"] * before.scorer.intercept
    )
    assert after.scorer.threshold == before.scorer.threshold
    (link,) = after.document["recalibrated"]
    assert link["from"] == before.hash and link["moments"] == found["moments"]
    assert abs(after.reference.whole.intercept) < 3 * after.reference.whole.intercept_error
    assert after.reference.rows == len(made["at"]) and after.features == before.features
    again = told.set_column(4, told.schema.field(4), pa.array(moved(low, found)))
    pq.write_table(again, scores)
    same = api.recalibrate(tmp_path / "new", **asked, out=tmp_path / "newer")
    assert same["method"] == "none" and not (tmp_path / "newer").exists()
    with pytest.raises(UsageError, match="the bundle itself"):
        api.recalibrate(laid / "bundle", **asked, out=laid / "bundle")


def moved(risk, found):
    return 1 / (1 + np.exp(-(found["intercept"] + found["slope"] * np.log(risk / (1 - risk)))))


def test_a_challenger_is_held_against_the_model_on_the_moments_that_both_scored(
    spark, laid, made, tmp_path
):
    told = pa.concat_tables([pq.read_table(f) for f in sorted((laid / "scores").glob("*.parquet"))])
    risk = np.array(told.column(4))
    noisy = 1 / (
        1 + np.exp(-(np.log(risk / (1 - risk)) + np.random.default_rng(1).normal(0, 2, len(risk))))
    )
    pq.write_table(
        told.set_column(4, told.schema.field(4), pa.array(noisy)).slice(10), tmp_path / "b.parquet"
    )
    asked = {"predictions": str(laid / "scores"), "outcomes": str(laid / "later.parquet")}
    asked |= {"challenger_predictions": str(tmp_path / "b.parquet"), "spark": spark}
    shown = api.compare(laid / "bundle", laid / "bundle", **asked, out=str(tmp_path))
    found = json.loads((tmp_path / "compare.json").read_text())
    assert found["verdict"] == shown["challenger"] == "worse"
    rows = len(made["at"])
    assert found["moments"] == {
        "both": rows - 10,
        "bundle_alone": 10,
        "challenger_alone": 0,
        "known": found["moments"]["known"],
    }
    known = made["at"] <= made["at"][~made["outcome"]].max()
    order = np.lexsort((made["at"], made["subject"]))
    key = {
        (s, t): r
        for s, t, r in zip(
            told.column(0).to_pylist(),
            told.column(1).cast(pa.int64()).to_pylist(),
            noisy,
            strict=True,
        )
    }
    late = {(s, t) for s, t in list(key)[:10]}
    kept = [n for n in order if known[n] and (made["subject"][n], made["at"][n]) not in late]
    label, mine = made["outcome"][kept], made["risk"][kept]
    its = np.array([key[made["subject"][n], made["at"][n]] for n in kept])
    for name, value in (("bundle", mine), ("challenger", its)):
        assert found["metrics"]["auroc"][name]["value"] == pytest.approx(
            roc_auc_score(label, value), abs=1e-5
        )
        assert found["metrics"]["brier"][name]["value"] == pytest.approx(
            np.mean((value - label) ** 2), abs=1e-5
        )
    apart = found["metrics"]["auroc"]["difference"]
    assert apart["low"] < apart["value"] < apart["high"] < 0
    flagged = mine >= 0.25
    won = (flagged & label).sum() - (flagged & ~label).sum() / 3
    assert found["metrics"]["net_benefit"]["bundle"]["value"] == pytest.approx(
        won / len(kept), abs=1e-5
    )
    same = api.compare(
        laid / "bundle",
        laid / "bundle",
        **{**asked, "challenger_predictions": str(laid / "scores")},
    )
    assert same["challenger"] == "not told apart"
