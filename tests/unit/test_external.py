"""External validation whole, on patients made up: the same numbers, told beside what they were."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests import outside

from clinloom import cli, evaluate, files, platforms
from clinloom.deploy.bundle import Bundle
from clinloom.errors import DataError, StoreError, UsageError
from clinloom.evaluate import METRICS
from clinloom.learn import calibration
from clinloom.learn.sketch import Sketch
from clinloom.platforms import Outcome
from clinloom.report import external as page
from clinloom.run import foreign
from clinloom.run.external import validate_external

SHIFT = {"shift": 0.3, "spread": 0.7, "slope": 0.6, "level": -0.3}
AWAY = ["sources.lab.path=elsewhere"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return outside.publish(tmp_path_factory.mktemp("published") / "bundle")


def validated(bundle, given: pa.Table, out, **asked):
    """What a validation of these events says, writes as JSON, and shows."""
    with pytest.MonkeyPatch.context() as patched:
        outside.alone(patched, given)
        said = validate_external(str(bundle.place), out=str(out), overrides=AWAY, **asked)
    return said, json.loads((out / "external.json").read_text()), (out / "report.html").read_text()


@pytest.fixture(scope="module")
def other(tmp_path_factory, bundle):
    """600 visits of 200 patients whose risks the model tells too low and too extreme."""
    made = outside.drawn(600, seed=5, each=3, **SHIFT)
    given = outside.events(made, without=(3,))
    root = tmp_path_factory.mktemp("other")
    told = validated(bundle, given, root / "out", recalibrate=True, recalibrated=str(root / "new"))
    return made, given, root, *told


def scored(bundle, given) -> tuple[np.ndarray, np.ndarray]:
    """Risks and subjects as the service tells them."""
    found = bundle.predict(given.drop_columns(["earlier"]))
    risk = found.column("predicted_boolean_probability").to_numpy()
    return risk, found.column("subject_id").to_numpy()


def test_every_metric_is_that_of_the_batchs_risks(bundle, other):
    made, given, _, _, told, _ = other
    risk, subject = scored(bundle, given)
    order = np.argsort(made["subject"], kind="stable")
    asked = {"threshold": 0.5, "replicates": 60}
    expected = evaluate.evaluate(made["outcome"][order], risk, subject, **asked)
    assert set(told["metrics"]) == set(METRICS) and told["moments"] == 600
    for name, one in told["metrics"].items():
        assert one["here"] == pytest.approx(expected[name], abs=1e-12), name
        assert one["there"] == bundle.document["evidence"]["test"][name]
        apart = expected[name]["value"] - one["there"]["value"]
        assert one["difference"]["value"] == pytest.approx(apart)
    ratio = told["casemix"]["observed_expected"]["here"]
    assert ratio["value"] == pytest.approx(made["outcome"].sum() / risk.sum(), abs=1e-9)
    assert ratio["low"] < ratio["value"] < ratio["high"]
    odds = told["casemix"]["odds_sd"]
    assert odds["here"]["value"] == pytest.approx(calibration.logit(risk).std(), abs=1e-9)
    assert odds["there"] > odds["here"]["value"]  # the patients here are more alike


def test_recalibration_is_judged_apart_and_written_beside(bundle, other):
    made, given, root, said, told, shown = other
    found = told["recalibration"]
    assert found["method"] == "intercept and slope" and found["bundle"] == str(root / "new")
    before = told["metrics"]["calibration_slope"]["here"]["value"]
    after = found["judged"]["chosen"]["calibration_slope"]["value"]
    assert abs(after - 1) < 0.3 < abs(before - 1) and after != pytest.approx(1, abs=1e-6)
    new, (risk, _) = Bundle.load(root / "new"), scored(bundle, given)
    assert scored(new, given)[0] == pytest.approx(
        calibration.apply(risk, found["slope"], found["intercept"]), abs=1e-12
    )
    [link] = new.document["recalibrated"]
    assert link["from"] == bundle.hash and link["moments"] == 600
    assert new.scorer.threshold == bundle.scorer.threshold
    assert new.reference.mix["observed_expected"] == pytest.approx(1, abs=1e-4)
    assert new.reference.features.plain() == bundle.reference.features.plain()
    assert said["bundle"] == str(root / "new") and str(root) not in shown


def test_what_the_model_leans_on_and_does_not_find_is_told(bundle, other):
    told = other[4]
    lean = told["leaning"]
    assert [one["code"] for one in lean["absent_codes"]] == ["LAB//3"] and lean["codes"] == 4
    weight = bundle.scorer.importance(4)[3]
    assert lean["absent_weight"] == pytest.approx(weight, abs=1e-4)
    assert lean["missing_here"] > lean["missing_there"] > 0
    by_name = {row["feature"]: row for row in told["characteristics"]}
    assert by_name["measurements|LAB//3|last|all"]["here"] is None
    assert 0.2 < by_name["measurements|LAB//0|last|all"]["difference"] < 0.6
    assert told["chance"] == pytest.approx(1.96 * (1 / 200 + 1 / 4000) ** 0.5, abs=1e-4)


def test_units_and_codes_that_training_did_not_see_are_told_of_five_patients(bundle):
    rows = [("LAB//0", None, 90), ("LAB//0", "", 80), ("LAB//0", "g/L", 9), ("LAB//1", "kg", 4)]
    rows += [("LAB//9", None, 30), ("RARE", None, 4), ("NEW", None, 40), ("LAB//9", "x", 30)]
    seen = outside.SEEN.rows(
        [dict(zip(("code", "unit", "patients"), row, strict=True)) for row in rows]
    )
    found = foreign.codes(bundle, seen)
    assert found["units"] == [{"code": "LAB//0", "unit": "g/L", "patients": 9}]
    assert [one["code"] for one in found["new_codes"]] == ["NEW", "LAB//9"] and found["new"] == 2


def test_the_page_is_whole_and_defines_what_it_shows(other):
    shown = other[5]
    assert "<script" not in shown and not re.search(r'(src|href)="(?!#|data:)', shown)
    for word in ("O:E ratio", "Linear predictor", "Cross-fitting", "Standardised difference"):
        assert f"<dt>{word}</dt>" in shown
    for part in re.findall(r'href="#([\w-]+)"', shown):
        assert f'id="{part}"' in shown, part
    for said in (
        "less well than those where it was learned",
        "16.8% of its weight",
        "lies in who the patients are",
    ):
        assert said in shown
    assert "<dt>Fold</dt>" not in shown


def test_who_has_no_known_outcome_is_left_out_as_the_study_has_it(bundle, tmp_path, other):
    """With follow-up to the end of the data, who has no outcome in the last 30 days is unknown."""
    made, given = other[:2]
    asked = ["cohort.time_at_risk.follow_up=data"]
    with pytest.MonkeyPatch.context() as patched:
        outside.alone(patched, given)
        validate_external(str(bundle.place), out=str(tmp_path / "out"), overrides=asked)
    told = json.loads((tmp_path / "out" / "external.json").read_text())
    third = np.arange(600) % 3 == 2
    unknown = (third & ~made["outcome"]).sum()
    assert told["moments"] == 600 - unknown and told["outcomes"] == made["outcome"].sum()
    assert "No source was led elsewhere" in told["warnings"][0]


def few(outcomes: int, rows: int = 60) -> pa.Table:
    made = outside.drawn(rows, seed=6)
    made["outcome"][:] = False
    made["outcome"][:outcomes] = True
    return outside.events(made)


def test_of_few_outcomes_nothing_is_told(bundle, tmp_path):
    said, told, shown = validated(bundle, few(3), tmp_path / "out", recalibrate=True)
    assert said["auroc"] == "not told" and told["outcomes"] is None
    assert all(one["here"]["value"] is None for one in told["metrics"].values())
    assert told["casemix"]["observed"]["here"]["value"] is None
    assert told["casemix"]["odds_sd"]["here"]["value"] > 0 and told["moments"] == 60
    assert "too few outcomes" in told["recalibration"]["refused"]
    assert "too few to judge a model by" in shown and '<svg class="plot' not in shown
    assert not re.search(r"(?<![\d.,])3 patients", shown)


def test_a_small_share_is_not_told_by_its_difference(bundle):
    known = bundle.reference
    edges, counts = known.features.cells.edges.copy(), known.features.counts.copy()
    edges[0], counts[0] = np.inf, 0
    edges[0, 0], counts[0, :2] = 0.0, (2000, 2000)
    kept = replace(known.features, cells=replace(known.features.cells, edges=edges), counts=counts)
    loaded = Bundle.load(bundle.place)
    loaded.__dict__["reference"] = replace(known, features=kept)
    rows = np.zeros((4, 11), np.int64)
    for rest, small, told, said in (
        (97, 3, False, "<5"),
        (70, 30, True, "30 (30.0%)"),
        (97, 60, True, "60 (38.2%)"),
        (2, 0, False, None),
    ):
        rows[0, :2] = (rest, small)
        values = np.zeros((rest + small, 4))
        values[:small, 0] = 1.0
        found = Sketch.of(values, np.arange(len(values)))
        one = foreign.characteristics(loaded, [0, 1, 2, 3], found, (rows, rows))[0]
        assert (one["difference"] is not None) == told
        assert (one["there"], one["here"], one["above"]) == (0.5, said, None)
    rows[0, :2], rows[0, 10] = (70, 30), 3  # 30% of the known would tell how few are not
    one = foreign.characteristics(loaded, [0, 1, 2, 3], found, (rows, rows))[0]
    assert (one["here"], one["missing_here"]) == ("30", "<5")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (few(2, rows=4), "fewer than 5 patients"),
        (few(0), "nobody of 60 prediction moments has the outcome"),
        (few(60), "everybody of 60 prediction moments has the outcome"),
        (few(9).filter(pc.field("code") != "VISIT"), "nobody is in the cohort"),
    ],
)
def test_data_that_cannot_judge_a_model_are_refused_and_the_trail_says_so(
    bundle, tmp_path, given, told
):
    with pytest.raises(DataError, match=told):
        validated(bundle, given, tmp_path / "out")
    [trail] = (tmp_path / "out.audit").glob("*.jsonl")
    began, *_, ended = map(json.loads, trail.read_text().splitlines())
    assert (began["action"], ended["action"]) == ("validate", "failed")
    assert began["bundle"] == bundle.hash and "elsewhere" in began["sources"]["lab"]["path"]
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".scoring*"))


def test_a_place_that_holds_something_else_is_refused(bundle, tmp_path):
    at = str(bundle.place)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    for out, new, told in (
        (tmp_path / "run", None, "the output of a run"),
        (at, None, "the bundle itself"),
        (tmp_path / "out", at, "--bundle is the bundle itself"),
        (tmp_path / "out", tmp_path / "run", "holds other files"),
        (tmp_path / "out", tmp_path / "out", "where the report goes"),
    ):
        with pytest.raises(UsageError, match=told):
            validate_external(at, out=str(out), recalibrated=new and str(new))
    assert not (tmp_path / "out.audit").exists()


def test_a_bundle_that_keeps_no_reference_is_refused_first(tmp_path):
    made = outside.publish(tmp_path / "bundle")
    text = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    del text["parts"]["reference"]
    (tmp_path / "bundle" / "bundle.json").write_text(json.dumps(text))
    with pytest.raises(StoreError, match="keeps no `reference`"):
        validate_external(str(made.place), out=str(tmp_path / "out"))
    # One of before the case mix was kept tells none of where it was learned.
    assert replace(made.reference, mix={}).plain()["mix"] == {}
    old = {key: part for key, part in made.reference.plain().items() if key != "mix"}
    assert type(made.reference).parse(old).mix == {}


def test_the_command_is_told_in_help_and_travels_to_a_platform(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["validate-external", "--help"])
    told = capsys.readouterr().out
    assert "example: clinloom validate-external out/bundle" in told and "--recalibrate" in told
    submitted = []

    def submit(task, options, *, note):
        submitted.append(task)
        return Outcome(0, task.report, True)

    monkeypatch.setattr(platforms.load("yarn"), "submit", submit)
    monkeypatch.chdir(tmp_path)
    places = ["--out", "ext", "--bundle", "new", "--set", "sources.ehr.path=there"]
    command = ["validate-external", "hdfs:///out/bundle", *places, "--recalibrate"]
    assert cli.main([*command, "--on", "yarn", "--quiet"]) == 0
    [task] = submitted
    assert task.command == (
        *("validate-external", "hdfs:///out/bundle", "--out", str(tmp_path / "ext")),
        *("--recalibrate", "--bundle", str(tmp_path / "new")),
        *("--set", f'sources.ehr.path="{tmp_path / "there"}"', "--quiet"),
    )
    assert task.report == files.address(tmp_path / "ext" / "report.html")
    assert task.places["--bundle"] == files.address(tmp_path / "new")


def test_a_long_title_and_a_code_from_outside_are_escaped(other):
    told = json.loads(json.dumps(other[4]))
    record = {
        **told,
        **{"curves": {}, "ledger": [], "rejected": [], "displays": {"LAB//3": "<b>x</b>"}},
        "split": {"test": {"rows": 600, "subjects": 200, "positive": 300}},
        "flow": [],
        "sources": [],
    }
    record["study"] = {**told["study"], "title": "<script>alert(1)</script>"}
    shown = page.render(record)
    assert "<script>" not in shown and "&lt;b&gt;x&lt;/b&gt;" in shown
