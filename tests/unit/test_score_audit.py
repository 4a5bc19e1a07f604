"""Who scored what, when and by which bundle stays beside the scores, also where scoring failed."""

from __future__ import annotations

import json
import stat

import numpy as np
import pytest
import yaml

from clinloom import files, plugins
from clinloom import study as studies
from clinloom.deploy import bundle as bundles
from clinloom.deploy.scorer import Scorer
from clinloom.errors import SourceError
from clinloom.learn.preparation import learn
from clinloom.run import score as scoring
from clinloom.tables import COUNTS, FLOW

STUDY = """
name: audited
sources: {lab: {type: table, path: lab, patient: pid, time: {static: true}, code: {column: what}}}
cohort: {index: {at: A}, outcome: {codes: B, within: 30d}}
features: {measurements: {codes: "*"}}
models: [logistic_regression]
"""


@pytest.fixture
def bundle(tmp_path):
    document = yaml.safe_load(STUDY)
    study = studies.parse(document, rooms=plugins, base=str(tmp_path))
    arrays = {"coefficients": np.zeros(1), "intercept": np.zeros(1)}
    statistics = learn(np.arange(10.0)[:, None], lower=0.01, upper=0.99)
    place = files.address(tmp_path) / "bundle"
    bundles.publish(
        place,
        scorer=Scorer("logistic_regression", statistics, arrays, 1.0, 0.0, 0.5),
        study=study.portable(),
        features=[],
        evidence={},
        check=lambda: None,
    )
    return place


def trails(tmp_path) -> list[list[dict]]:
    found = sorted((tmp_path / "risk.parquet.audit").glob("audit-*.jsonl"))
    return [[json.loads(line) for line in trail.read_text().splitlines()] for trail in found]


def test_a_scoring_that_fails_is_kept_and_so_is_the_next(tmp_path, bundle):
    for _ in range(2):
        with pytest.raises(SourceError):
            scoring.score(str(bundle), out=str(tmp_path / "risk.parquet"))
    kept = trails(tmp_path)
    assert len(kept) == 2 and not list(tmp_path.glob(".scoring*"))
    for began, *_, ended in kept:
        assert (began["action"], ended["action"]) == ("score", "failed")
        assert began["time"] <= ended["time"] and began["user"] and ended["error"] == "SourceError"
        assert began["bundle"] == bundles.Bundle.load(bundle).hash and len(began["bundle"]) == 64
        assert began["sources"] == {"lab": {"type": "table", "path": str(tmp_path / "lab")}}
    mode = (tmp_path / "risk.parquet.audit").stat().st_mode
    assert stat.S_IMODE(mode) == 0o700


class Told:
    """A committed table that holds these rows."""

    def __init__(self, table):
        self.table = table

    def read(self):
        return self.table


def test_a_scoring_that_ends_well_tells_its_rows_and_refusals(tmp_path, bundle, monkeypatch):
    refusal = {"table": "rejected", "source": "lab", "stage": "clean", "reason": "no_time"}
    refusal["field"] = "time"
    counts = COUNTS.rows([{**refusal, "rows": 3}, {"table": "events", "source": "lab", "rows": 9}])
    monkeypatch.setattr(scoring, "acquire", lambda *_: {})
    monkeypatch.setattr(scoring.dataset, "clean", lambda *_: {"counts": Told(counts)})
    monkeypatch.setattr(scoring, "predict", lambda *_, **__: {"flow": Told(FLOW.empty)})
    monkeypatch.setattr(scoring, "_write", lambda *_: 7)
    told = scoring.score(str(bundle), out=str(tmp_path / "risk.parquet"))
    [[began, refused, ended]] = trails(tmp_path)
    assert told["audit"] == str(tmp_path / "risk.parquet.audit") and began["action"] == "score"
    [told_of] = refused["reasons"]
    assert (refused["rows"], told_of["reason"], told_of["field"]) == (3, "no_time", "time")
    assert (ended["action"], ended["rows"]) == ("scored", 7)


def test_a_scoring_tells_what_was_refused_and_hides_small_counts(tmp_path, bundle, monkeypatch):
    refusal = {"table": "rejected", "source": "lab"}
    found = [
        {**refusal, "stage": "acquire", "reason": "no_time", "rows": 30},
        {**refusal, "stage": "clean", "reason": "no_time", "rows": 3},
        {**refusal, "stage": "clean", "reason": "impossible_time", "rows": 2},
    ]
    monkeypatch.setattr(scoring, "acquire", lambda *_: {})
    monkeypatch.setattr(scoring, "predict", lambda *_, **__: {"flow": Told(FLOW.empty)})
    monkeypatch.setattr(scoring, "_write", lambda *_: 7)

    def refused(events: int, *more: dict) -> dict:
        rows = [{"table": "events", "source": "lab", "rows": events}, *found, *more]
        counts = {"counts": Told(COUNTS.rows(rows))}
        monkeypatch.setattr(scoring.dataset, "clean", lambda *_: counts)
        return scoring.score(str(bundle), out=str(tmp_path / "risk.parquet"))["refused"]["lab"]

    assert refused(100) == {"no_time": 33, "impossible_time": "<5"}
    # Where the line on what is mostly refused tells the sum, no part can be had by subtraction.
    assert refused(9) == {"no_time": "hidden", "impossible_time": "<5"}
    more = {**refusal, "stage": "clean", "reason": "invalid_date", "rows": 50}
    told = {"no_time": "hidden", "impossible_time": "<5", "invalid_date": 50}
    assert refused(9, more) == told


def test_another_scorer_is_another_bundle(tmp_path, bundle):
    before = bundles.Bundle.load(bundle).hash
    loaded = bundles.Bundle.load(bundle)
    (tmp_path / "bundle" / loaded.mark).write_bytes(b"changed")
    assert loaded.hash != before
