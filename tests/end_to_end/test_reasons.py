"""A finished run's bundle tells the reasons of its risks, and what its readers should know."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clinloom.deploy import _cards
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.explain import Explainer, grouped
from clinloom.learn import calibration
from clinloom.store import finished as tables_of
from clinloom.tables import matrix


@pytest.fixture
def bundle(finished):
    return Bundle.load(finished / "bundle")


def test_the_reasons_of_a_runs_rows_add_up_to_their_risks(finished, bundle):
    explainer = Explainer.of(bundle)
    values = matrix(tables_of(finished)["dataset"].read(["values"]))[:50]
    total = explainer.base + explainer.contributions(values).sum(axis=1)
    raw = total if explainer.scale == "probability" else calibration.sigmoid(total)
    scorer = bundle.scorer
    risk = calibration.apply(raw, scorer.slope, scorer.intercept)
    assert np.abs(risk - scorer.score(values)).max() < 1e-9
    groups = grouped(explainer.contributions(values), bundle.features, "modality")
    assert set(groups) <= {"records", "images"}
    texts = [reason.text for row in values[:5] for reason in explainer.reasons(row)]
    assert texts and not any("|" in text or "//" in text for text in texts)


def test_the_bundle_knows_its_patients_and_warnings(finished, bundle):
    counted = json.loads(tables_of(finished)["counted"].text("summary.json"))["split"]
    patients = {part: counted[part]["subjects"] for part in ("train", "test")}
    assert bundle.document["patients"] == patients
    assert isinstance(bundle.document["warnings"], list)
    assert set(bundle.document["displays"]) <= {f.code for f in bundle.features}
    said = _cards.evidence(bundle)
    assert said[0].startswith("AUROC 0.")
    assert bundle.document["learned"]["rows"] == "all"
    assert f"learned from {sum(patients.values()):,} patients" in said[2]
    assert f"model of the other {patients['train']:,}" in said[2]
