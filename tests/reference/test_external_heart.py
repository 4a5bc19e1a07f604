"""A model of Cleveland's patients on Hungary's: real data, judged by scikit-learn beside."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from tests import outside
from tests.reference.test_examples import EXAMPLES, need

from clinloom import clean as cleaning
from clinloom import cohort, features
from clinloom.cohort import split as splitting
from clinloom.deploy import bundle as bundles
from clinloom.deploy.scorer import Scorer
from clinloom.learn import calibration, preparation
from clinloom.run import api, reference
from clinloom.run.external import validate_external
from clinloom.sources import load
from clinloom.tables import DATASET

sm = pytest.importorskip("statsmodels.api")


def hospital(name: str):
    """The example's study of one hospital, its events as they came, and clean."""
    told = f"sources.visits.include=processed.{name}.data"
    study = api.read_study(EXAMPLES / "heart_uci.yaml", overrides=[told])
    [options] = study.sources.values()
    kind = load(options.type)
    read = kind.read(iter(kind.plan(options, "sources.visits")), options, "visits")
    parcels = pa.concat_tables([parcel["events"] for parcel in read if "events" in parcel])
    patient = parcels["patient"].cast(pa.string()).combine_chunks().dictionary_encode()
    raw = bundles.acquired(parcels.append_column("subject_id", patient.indices.cast(pa.int64())))
    return study, raw, cleaning.clean(raw, study.clean, None, {})["events"], told


@pytest.fixture(scope="module")
def cleveland(data, tmp_path_factory):
    need(data, "heart_uci")
    study, raw, events, _ = hospital("cleveland")
    index = cohort.cohort(events, study.cohort)["index"]
    within = study.cohort.outcome.within
    index = splitting.assign(index, study.split, seed=0, within=within)
    training = index.filter(pc.equal(index["split"], "train"))
    seen = features.vocabulary(events, training, study.features)
    listed = features.resolve(study.features, seen, training.num_rows)
    values = features.matrix(events, index, listed)
    inside = np.array(index["split"].to_pylist()) == "train"
    label = index["boolean_value"].to_numpy(zero_copy_only=False)
    statistics = preparation.learn(values[inside], lower=0.001, upper=0.999)
    model = LogisticRegression(C=0.05, max_iter=500)
    model.fit(preparation.prepare(values, statistics)[inside], label[inside])
    arrays = {"coefficients": model.coef_[0], "intercept": model.intercept_}
    scorer = Scorer("logistic_regression", statistics, arrays, 1.0, 0.0, 0.4)
    columns = {name: index[name] for name in DATASET.arrow.names if name != "values"}
    dataset = pa.table({**columns, "values": list(values)}).cast(DATASET.arrow)
    folder = tmp_path_factory.mktemp("cleveland") / "bundle"
    codes = reference.codes_seen(raw)["seen"]
    return outside.bundled(folder, study, listed, scorer, dataset, codes, replicates=200)


def test_hungarys_patients_are_judged_as_other_libraries_judge_them(
    cleveland, tmp_path, monkeypatch
):
    _, _, events, there = hospital("hungarian")
    outside.alone(monkeypatch, events)
    out = tmp_path / "hungary"
    asked = {"overrides": [there], "recalibrate": True}
    validate_external(str(cleveland.place), out=str(out), **asked)
    told = json.loads((out / "external.json").read_text())
    index = cohort.cohort(events, cleveland.resolved.cohort)["index"]
    label = index["boolean_value"].to_numpy(zero_copy_only=False)
    risk = cleveland.risks(events, index)["predicted_boolean_probability"].to_numpy()
    assert (told["patients"], told["outcomes"]) == (294, 106) == (len(label), label.sum())
    here = {name: one["here"]["value"] for name, one in told["metrics"].items()}
    assert here["auroc"] == pytest.approx(roc_auc_score(label, risk), abs=1e-9)
    assert here["auprc"] == pytest.approx(average_precision_score(label, risk), abs=1e-9)
    assert here["brier"] == pytest.approx(brier_score_loss(label, risk), abs=1e-9)
    odds = calibration.logit(risk)
    slope = sm.Logit(label.astype(float), sm.add_constant(odds)).fit(disp=0, tol=1e-12).params[1]
    assert here["calibration_slope"] == pytest.approx(slope, abs=1e-6)
    mix = told["casemix"]
    assert mix["observed_expected"]["here"]["value"] == pytest.approx(label.sum() / risk.sum())
    assert mix["odds_sd"]["here"]["value"] == pytest.approx(odds.std(), abs=1e-6)
    # Hungary did not count the vessels; its patients are younger, and seldom had a thallium scan.
    assert [one["code"] for one in told["leaning"]["absent_codes"]] == ["HEART//ca"]
    apart = {row["feature"]: row["difference"] for row in told["characteristics"]}
    assert apart["measurements|HEART//age|last|all"] < -0.6
    assert apart["codes|THALLIUM//3|present|all"] < -1
    assert here["auroc"] > 0.85 and mix["odds_sd"]["there"] > mix["odds_sd"]["here"]["value"]
