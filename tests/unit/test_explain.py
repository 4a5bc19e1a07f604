"""A patient's reasons: additive, grouped, in clinical words; and an older bundle that has none."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tests.unit.test_additive import TREES, model

from clinloom import files
from clinloom.deploy import bundle as bundles
from clinloom.deploy import explain
from clinloom.deploy.scorer import Scorer
from clinloom.errors import StoreError
from clinloom.features import Feature
from clinloom.learn import calibration
from clinloom.learn.preparation import Statistics, learn
from clinloom.report import names

RNG = np.random.default_rng(8)
NAMES = {
    "measurements|LOINC//2160-0|last|24h": "records",
    "measurements|LOINC//8480-6|min|24h": "records",
    "measurements|LOINC//8480-6|slope|48h": "records",
    "measurements|LOCAL//peep|mean|all": "records",
    "measurements|LOCAL//peep|count|all": "records",
    "codes|ICD10CM//I50.9|present|365d": "records",
    "demographics|MEDS_BIRTH|age|all": "records",
    "imaging|IMAGE//CR//CHEST//glcm_contrast|last|all": "images",
}
FEATURES = [Feature.named(name, modality=modality) for name, modality in NAMES.items()]
MODELS = (*TREES, "logistic_regression", "neural_network")


def rows(n=300):
    values = RNG.normal(size=(n, len(FEATURES))) * 3 + 9
    values[:, 5] = RNG.random(n) < 0.4
    values[RNG.random(n) < 0.3, 0] = np.nan
    values[RNG.random(n) < 0.5, 7] = np.nan
    return values


ROWS = rows()
STATISTICS = learn(ROWS, lower=0.01, upper=0.99)


def scorer(name="logistic_regression"):
    arrays = model(name, STATISTICS.width, np.random.default_rng(3))
    return Scorer(name, STATISTICS, arrays, 0.8, -0.4, 0.3)


def explainer(name="logistic_regression", **more):
    return explain.Explainer(scorer(name), FEATURES, **more)


@pytest.mark.parametrize("name", MODELS)
def test_the_reasons_add_up_to_the_output_that_recalibration_maps_to_the_risk(name):
    made, one = explainer(name), scorer(name)
    total = made.base + made.contributions(ROWS).sum(axis=1)
    raw = total if made.scale == "probability" else calibration.sigmoid(total)
    assert np.abs(calibration.apply(raw, one.slope, one.intercept) - one.score(ROWS)).max() < 1e-9
    if made.scale == "log-odds":
        inside = np.abs(total) < 13
        assert inside.any()
        odds = calibration.logit(one.score(ROWS))
        assert np.abs(odds - (one.intercept + made.slope * total))[inside].max() < 1e-6


@pytest.mark.parametrize("by", ["code", "family", "modality"])
def test_groups_of_features_add_up_to_the_same(by):
    found = explainer("random_forest").contributions(ROWS)
    groups = explain.grouped(found, FEATURES, by)
    assert list(groups) == list(dict.fromkeys(getattr(f, by) for f in FEATURES))
    assert np.abs(sum(groups.values()) - found.sum(axis=1)).max() < 1e-12
    if by == "modality":
        assert np.array_equal(groups["images"], found[:, 7])


def test_a_reason_says_what_when_and_how_much():
    row = np.array([3.14159, 88.0, -12.5, 5.0, 1234.0, 1.0, 71.26, np.nan])
    made = explainer(units={"LOCAL//peep": "cm[H2O]"}, displays={"LOCAL//peep": "PEEP"})
    reasons = made.reasons(row, most=20)
    assert {r.text for r in reasons} == {
        "Creatinine, last in 24 h: 3.14 mg/dL",
        "Systolic blood pressure, lowest in 24 h: 88 mmHg",
        "Systolic blood pressure, trend per day in 48 h: \N{MINUS SIGN}12.5 mmHg",
        "PEEP, mean: 5 cmH2O",
        "PEEP, times recorded: 1,234",
        "Heart failure, in 365 days: recorded",
        "Age, years: 71.3",
        "Chest radiograph (CR): texture contrast: not measured",
    }
    sizes = [abs(r.contribution) for r in reasons]
    assert sizes == sorted(sizes, reverse=True) and min(sizes) > 0
    assert [r.feature.name for r in made.reasons(row, most=3)] == [
        r.feature.name for r in reasons[:3]
    ]
    row[[2, 5, 6]] = np.nan, 0, np.nan
    said = {r.feature.statistic: r.said for r in made.reasons(row, most=20)}
    assert (said["slope"], said["age"]) == ("too few values", "not known")
    told = next(r for r in made.reasons(row, most=20) if r.feature.family == "codes")
    assert told.text == "Heart failure, in 365 days: not recorded" and told.value == 0


@pytest.mark.parametrize(
    ("statistic", "value", "text"),
    [
        ("since", 0.13, "Creatinine, time since last in 7 days: 3.12 h"),
        ("since", 2.5, "Creatinine, time since last in 7 days: 2.5 days"),
        ("since", None, "Creatinine, time since last in 7 days: not measured"),
        ("sd", 0.4, "Creatinine, variability (SD) in 7 days: 0.4 mg/dL"),
        ("sd", None, "Creatinine, variability (SD) in 7 days: too few values"),
        ("first", 1.2, "Creatinine, first in 7 days: 1.2 mg/dL"),
        ("sum", 7.0, "Creatinine, total in 7 days: 7 mg/dL"),
    ],
)
def test_each_statistic_is_told_in_clinical_words(statistic, value, text):
    feature = Feature.named(f"measurements|LOINC//2160-0|{statistic}|7d", modality="records")
    words = names.feature(feature.name)
    told = explain.Reason(feature, words, value, explain.unit(feature, {}), 0.1)
    assert told.text == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.1, "0.1"),
        (3.0, "3"),
        (99.96, "100"),
        (0.01234, "0.0123"),
        (123456.7, "123,457"),
        (-0.5, "\N{MINUS SIGN}0.5"),
        (1e-12, "1.00e\N{MINUS SIGN}12"),
        (math.inf, "\N{EN DASH}"),
    ],
)
def test_figures_have_three_digits_that_count(value, text):
    assert explain.figure(value) == text


def published(tmp_path, made, **evidence):
    place = files.address(tmp_path) / "bundle"
    told = {"study": {"name": "s"}, "features": FEATURES, "evidence": evidence}
    bundles.publish(place, scorer=made, check=lambda: None, **told)
    return place


def test_the_explainer_of_a_bundle_speaks_the_words_of_its_sources(tmp_path):
    shown = {"LOCAL//peep": "Positive end-expiratory pressure"}
    loaded = bundles.Bundle.load(published(tmp_path, scorer(), displays=shown))
    made = explain.Explainer.of(loaded)
    assert np.array_equal(made.contributions(ROWS), explainer().contributions(ROWS))
    words = [r.words for r in made.reasons(ROWS[0], most=20)]
    assert "Positive end-expiratory pressure, mean" in words


def test_a_model_of_another_package_without_reasons_says_so(monkeypatch):
    monkeypatch.setattr(explain, "algorithm", lambda name: object())
    with pytest.raises(StoreError, match="tells no reasons"):
        explainer()


def test_an_older_bundle_scores_and_says_that_it_holds_no_reasons(tmp_path):
    kept = {k: v for k, v in STATISTICS.arrays().items() if k != "share"}
    now = scorer("random_forest")
    arrays = {k: v for k, v in now.arrays.items() if k != "cover"}
    old = Scorer("random_forest", Statistics(**kept), arrays, 0.8, -0.4, 0.3)
    place = published(tmp_path, old)
    document = json.loads(files.read(place / "bundle.json"))
    files.write(place / "bundle.json", json.dumps({**document, "format": 2}).encode())
    data = dict(np.load(tmp_path / "bundle" / document["parts"]["scorer"]))
    del data["preparation.share"]  # as it was
    np.savez(tmp_path / "bundle" / document["parts"]["scorer"], **data)
    loaded = bundles.Bundle.load(place)
    assert np.array_equal(loaded.scorer.score(ROWS), now.score(ROWS))
    with pytest.raises(StoreError, match="run its study again"):
        explain.Explainer.of(loaded)
    files.write(place / "bundle.json", json.dumps({**document, "format": 4}).encode())
    with pytest.raises(StoreError, match="another version"):
        bundles.Bundle.load(place)
