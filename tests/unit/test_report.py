"""The report: everything is there, nothing comes from outside, nobody can be picked out."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from clinloom.audit.future import differing
from clinloom.evaluate import METRICS, curves, evaluate
from clinloom.features import Feature, matrix
from clinloom.report import baseline, figures, names, page, render, summary
from clinloom.report.baseline import table_one
from clinloom.report.charts import above, bars, forest, ticks
from clinloom.run.record import warnings
from clinloom.tables import EVENTS, INDEX

SECTIONS = "summary cohort models curves modalities table1 quality run glossary".split()
VOID = {"meta", "link", "input", "br", "hr", "img"}
FEATURES = [
    "demographics|MEDS_BIRTH|age|all",
    "measurements|LOINC//8867-4|last|24h",
    "codes|ICD10CM//I50.9|present|all",
    "imaging|IMAGE//CR//CHEST//coarse_glcm_contrast|last|all",
]


def model(rng: np.random.Generator, *, title: str) -> dict:
    risk = rng.beta(1, 4, 300)
    label = rng.random(300) < risk
    return {
        "title": title,
        "point": {"maxDepth": 5},
        "fold_auroc": 0.7,
        "folds": [0.7, 0.7],
        "threshold": 0.25,
        "parity": 1e-15,
        "test": evaluate(label, risk, np.arange(300), threshold=0.25, replicates=20),
        "curves": curves(label, risk),
        "importance": [{"feature": f, "value": 0.4 / (n + 1)} for n, f in enumerate(FEATURES)],
    }


@pytest.fixture(scope="module")
def made() -> dict:
    rng = np.random.default_rng(3)
    models = {n: model(rng, title=n.title()) for n in ("first", "second")}
    auroc = models["first"]["test"]["auroc"]
    values = np.column_stack([rng.normal(60, 9, 400), rng.random(400) < 0.3]).astype(float)
    return {
        "study": {
            "name": "made",
            "title": "Made up",
            "description": "A question?",
            "seed": 7,
            "hash": "f" * 64,
        },
        "versions": {"clinloom": "0.1.0", "pyspark": "4.2.1"},
        "created": "2026-03-01T09:05:00+00:00",
        "stages": [{"name": "train/first", "seconds": 61.2, "rows": None, "reused": True}],
        "kinds": {"ehr": "fhir"},
        "models": models,
        "selected": "first",
        "modalities": {k: {"auroc": auroc} for k in ("both", "records", "images")},
        "sources": [{"name": "ehr", "type": "fhir", "events": 12345, "images": 0}],
        "flow": [
            {"step": 0, "name": "patients", "subjects": 1500, "rows": 0},
            {"step": 1, "name": "age at least 18", "subjects": 1000, "rows": 1000},
            {"step": 2, "name": "outcome", "subjects": 200, "rows": 200},
        ],
        "split": {
            "train": {"rows": 700, "subjects": 700, "positive": 140},
            "test": {"rows": 300, "subjects": 300, "positive": 60},
        },
        "ledger": [
            {
                "source": "ehr",
                "code": "LOINC//8867-4",
                "rule": "duplicate",
                "action": "removed",
                "count": 1200,
            }
        ],
        "rejected": [{"source": "ehr", "stage": "clean", "reason": "no_time", "count": 3}],
        "table1": table_one([FEATURES[0], FEATURES[2]], values, rng.random(400) < 0.5),
        "leakage": {"rows_checked": 1000, "rows_differing": 0},
        "warnings": ["Look here first."],
    }


class Reader(HTMLParser):
    """Holds that tags close in order; collects ids, links, attributes and SVGs without title."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.untitled = 0
        self.tags: set[str] = set()
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[k] for k in ("href", "src") if k in given]
        assert not [name for name in given if name.startswith("on")]
        self.untitled += tag == "svg" and given.get("role") == "img"
        self.untitled -= tag == "title" and "svg" in self.open[-1:]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_every_section_is_there_and_linked(made):
    page = render(made)
    read = Reader(page)
    assert [name for name in read.ids if name in SECTIONS] == SECTIONS
    assert len(read.ids) == len(set(read.ids))
    assert {f"#{name}" for name in SECTIONS} <= set(read.links)
    assert read.untitled == 0
    for said in (
        "Made up",
        "A question?",
        "Look here first.",
        "1,000",
        "20.0%",
        "500 patients left out",
        "The same fact told more than once",
        "Heart rate 1,200",
        "Chest radiograph (CR): texture contrast, coarse",
        "No feature looks past its prediction moment.",
        "n = 400",
        "1 min 1 s",
        "1 March 2026, 09:05 UTC",
        "f" * 64,
    ):
        assert said in page, said
    assert re.search(r"Of 100 patients flagged, \d+ have the outcome", page)
    assert re.search(r"Of 100 patients with the outcome, \d+ are flagged", page)


def test_nothing_comes_from_outside_and_no_script_runs(made):
    page = render(made)
    read = Reader(page)
    assert "://" not in page and "url(" not in page and "@import" not in page
    assert "script" not in read.tags and "default-src 'none'" in page
    assert all(link.startswith(("#", "data:,")) for link in read.links)


def test_hostile_words_are_escaped(made):
    bad = "<script>alert(1)</script>\"'><img src=x onerror=y>"
    record = copy.deepcopy(made)
    record["study"].update(title=bad, description=bad, name=bad)
    record["warnings"] = [bad]
    record["models"]["first"].update(title=bad, point={bad: bad})
    record["models"]["first"]["importance"] = [{"feature": bad, "value": 1.0}]
    record["sources"][0]["name"] = record["flow"][1]["name"] = bad
    record["ledger"][0].update(code=bad, rule=bad, action=bad)
    record["rejected"][0]["reason"] = record["table1"][1]["feature"] = bad
    record["stages"][0]["name"] = bad
    page = render(record)
    assert "<script" not in page and "<img" not in page
    assert not {"script", "img"} & Reader(page).tags


def test_what_is_not_known_is_left_out(made):
    record = copy.deepcopy(made)
    nothing = dict.fromkeys(("value", "low", "high"))
    record["models"]["first"].update(
        test=dict.fromkeys(METRICS, nothing),
        curves={},
        importance=[],
        threshold=None,
        fold_auroc=None,
        parity=None,
        point={},
    )
    record["models"]["second"]["test"]["auroc"] = {"value": 0.7, "low": None, "high": None}
    record.update(modalities={"both": {"auroc": nothing}}, ledger=[], rejected=[], table1=[])
    record.update(warnings=[], leakage=None, created=None)
    page = render(record)
    Reader(page)
    assert "None" not in page.replace("'none'", "") and "nan" not in page
    for said in ("Nothing needed to be changed.", "Nothing was refused.", "Not compared"):
        assert said in page


def test_an_empty_record_and_an_audit_that_failed():
    Reader(render({}))
    page = render({"leakage": {"rows_checked": 9, "rows_differing": 2}})
    assert "A feature knows the future" in page and "audit failed on 2 rows" in page
    assert "checked nothing" in render({"leakage": {"rows_checked": 0, "rows_differing": 0}})


def test_moments_are_told_apart_from_patients(made):
    record = copy.deepcopy(made)
    record["flow"][1]["rows"] = 1700
    record["split"]["train"]["rows"] = 1400
    page = render(record)
    assert "1,700 prediction moments" in page and "of 1,700 prediction moments" in page
    assert "Of 100 prediction moments flagged" in page


def rows_of(column, label) -> dict[str, str]:
    return table_one(["codes|ICD10CM//I10|present|all"], np.reshape(column, (-1, 1)), label)[1]


@pytest.mark.parametrize(
    ("without", "with_", "cells"),
    [
        (40, 30, ("70 (35.0%)", "40 (40.0%)", "30 (30.0%)")),
        (40, 4, ("hidden", "40 (40.0%)", "<5")),
        (0, 30, ("hidden", "<5", "30 (30.0%)")),
        (1, 2, ("<5", "<5", "<5")),
        (4, 4, ("hidden", "<5", "<5")),
        (97, 50, ("hidden", "all but <5", "50 (50.0%)")),
    ],
)
def test_rare_counts_cannot_be_had(without, with_, cells):
    label = np.repeat([False, True], 100)
    column = np.r_[np.arange(100) < without, np.arange(100) < with_].astype(float)
    row = rows_of(column, label)
    assert (row["overall"], row["without"], row["with"]) == cells


def test_medians_are_numpys():
    rng = np.random.default_rng(0)
    label = rng.random(501) < 0.4
    value = rng.lognormal(1, 0.4, 501)
    value[::7] = np.nan
    size, row = table_one(["measurements|LOINC//2524-7|last|24h"], value[:, None], label)
    assert size == {
        "name": "n",
        "overall": "501",
        "without": str((~label).sum()),
        "with": str(label.sum()),
        "missing": "",
        "known": "1",
    }
    for part, inside in (("overall", label | True), ("without", ~label), ("with", label)):
        low, median, high = np.nanpercentile(value[inside], (25, 50, 75))
        assert row[part] == f"{median:.2f} ({low:.2f}–{high:.2f})"
    assert row["missing"] == "14%"
    [named] = page._table1([size, row])["rows"]
    assert named == {**row, "name": "Lactate, last in 24 h"}


def test_the_fullest_rows_are_chosen_and_small_groups_hide():
    label = np.repeat([True, False], [3, 97])
    values = np.arange(300.0).reshape(100, 3)
    values[:50, 0] = np.nan
    values[:, 2] = np.nan
    size, row = table_one(["a|X//1|last|all", "a|X//2|last|all", "a|X//3|last|all"], values, label,
                          limit=1)  # fmt: skip
    assert (size["overall"], size["without"], size["with"]) == ("100", "hidden", "<5")
    assert page._table1([size, row])["rows"][0]["name"] == "X 2, last"
    assert row["feature"] == "a|X//2|last|all" and row["with"] == "<5 known"
    assert len(table_one(["a"], np.zeros((0, 1)), np.zeros(0, bool))) == 1


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.65, 0.95) == [0.7, 0.8, 0.9]
    assert ticks(-0.04, 0.21) == [0, 0.05, 0.1, 0.15, 0.2]
    assert ticks(0, 0.02) == [0, 0.005, 0.01, 0.015, 0.02]
    for low, high in np.random.default_rng(1).normal(0, 10, (200, 2)):
        low, high = min(low, high), max(low, high)
        found = ticks(low, high)
        assert 2 <= len(found) <= 7 and low - 1e-6 <= found[0] and found[-1] <= high + 1e-6


def test_a_line_is_cut_where_it_falls_below():
    assert above([(0, 1), (1, 0), (2, -1), (3, 5)], -0.5) == [(0, 1), (1, 0), (1.5, -0.5)]
    assert above([(0, -1)], 0) == []


def test_marks_stay_on_their_tracks():
    found = {"value": 0.5, "low": 0.0, "high": 1.0}
    chart = forest([("a", found, True), ("b", {}, False)], measure="AUROC")
    places = [float(p) for p in re.findall(r'(?:cx|x1|x2|x)="([\d.]+)%"', chart)]
    assert places and min(places) >= 0 and max(places) <= 100
    assert bars([]) and "100.00%" in bars([("a", 0.2), ("b", 0.1)])


def test_names():
    assert names.features(["measurements|LOINC//1|last|24h", FEATURES[0]])[1] == "Age, years"
    alike = [f"codes|ICD10CM//{code}|present|all" for code in ("N18.3", "N18.30")]
    assert len(set(names.features(alike))) == 2
    assert names.feature("measurements|PHYSIONET//HR|slope|2d") == "HR, trend per day in 2 days"
    assert names.feature("demographics|GENDER//female|present|all") == "Sex: female"
    assert names.feature("codes|ICD10CM//X1|present|30d") == "ICD10CM X1, in 30 days"
    assert names.feature("odd") == "odd"
    assert names.code("ENCOUNTER//IMP//START") == "Inpatient stay, begin"


def test_figures():
    assert figures.number(-0.0001, 2) == "0.00" and figures.number(-1.5, 1) == "−1.5"
    assert figures.percent(0.5185) == "51.9%" and figures.percent(None) == "–"
    assert figures.interval({"low": -0.2, "high": 0.1}, 1) == "−0.2 to 0.1"
    assert [figures.of_hundred(s) for s in (0, 0.001, 0.5, 0.999, 1)] == [0, 1, 50, 99, 100]
    assert figures.seconds(3725) == "1 h 2 min" and figures.moment("soon") == "soon"


@pytest.mark.parametrize("count", [1, 3, 17])
def test_table_one_is_the_same_of_parts_as_of_all_rows(count):
    rng = np.random.default_rng(4)
    values = np.stack(
        [rng.normal(50, 9, 600), rng.integers(0, 2, 600), rng.poisson(3, 600)], axis=1
    )
    values[rng.random((600, 3)) < 0.2] = np.nan
    values[3, 0] = np.inf  # not known either
    label, order = rng.random(600) < 0.3, np.arange(600)
    names = ["a|X//1|last|all", "a|X//2|last|all", "a|X//3|last|all"]
    cuts = np.array_split(rng.permutation(600), count)
    parts = [baseline.summary(values[cut], label[cut], order[cut]) for cut in cuts]
    halves = [baseline.merged(parts[::2]), *parts[1::2]]
    assert baseline.told(names, baseline.merged(halves)) == table_one(names, values, label)


def test_table_one_of_many_rows_keeps_its_counts_and_nearly_its_quartiles():
    rng = np.random.default_rng(5)
    values = np.stack([rng.normal(500, 90, 40_000), rng.random(40_000) < 0.003], axis=1)
    values[rng.random((40_000, 2)) < 0.2] = np.nan
    label = rng.random(40_000) < 0.1
    names = ["a|X//1|last|all", "a|X//2|last|all"]
    found = baseline.summary(values, label, np.arange(40_000))
    groups = [baseline.Group.merge(baseline._groups(found, one)) for one in (False, True)]
    rough = [
        dataclasses.replace(group, sketch=group.sketch.compressed()).table(one)
        for group, one in zip(groups, (False, True), strict=True)
    ]
    told = baseline.told(names, baseline.merged(rough))
    exact = table_one(names, values, label)
    assert told[0] == exact[0] and told[2] == exact[2]  # sizes and counts
    for part in ("overall", "without", "with"):
        near, true = ([float(n) for n in re.findall(r"\d+", row[1][part])] for row in (told, exact))
        assert near == pytest.approx(true, abs=1.5)


def test_the_flow_ends_with_who_had_what():
    steps = [
        {"step": 0, "name": "patients", "subjects": 900, "rows": 0},
        {"step": 1, "name": "with index event", "subjects": 800, "rows": 800},
        {"step": 2, "name": "competing event", "subjects": 50, "rows": 50},
        {"step": 3, "name": "outcome", "subjects": 200, "rows": 200},
    ]
    made = page._flow(steps)
    assert [step["count"] for step in made["steps"]] == ["900 patients", "800 patients"]
    counts = [(end["kind"], end["count"], end["share"]) for end in made["ends"]]
    assert counts == [
        ("with", "200 patients", "25.0%"),
        ("without", "50 patients", "6.3%"),
        ("without", "550 patients", "68.8%"),
    ]
    assert (
        len(page._flow([*steps[:2], {**steps[2], "subjects": 0, "rows": 0}, steps[3]])["ends"]) == 2
    )


def test_a_handful_of_test_patients_shows_no_result(made: dict):
    few = copy.deepcopy(made)
    few["split"]["test"] = {"rows": 12, "subjects": 12, "positive": 2}
    metrics = {"models": few["models"], "selected": "first"}
    few["warnings"] = warnings(metrics, few["split"]["test"])
    assert len(few["warnings"]) == 1 and "too few" in few["warnings"][0]
    shown = page.view(few)
    assert {tile["value"] for tile in shown["tiles"] if tile["label"] == "AUROC"} == {figures.NONE}
    assert not shown["pictures"] and shown["modalities"] is None
    assert not any(panel["charts"] for panel in shown["panels"])
    auroc = figures.number(made["models"]["first"]["test"]["auroc"]["value"])
    assert auroc in render(made) and auroc not in render(few)


@pytest.mark.parametrize(
    ("value", "low", "high", "said", "warned"),
    [
        (1.0, 0.8, 1.2, "spread about as they should be", False),
        (0.73, 0.3, 1.2, "look too extreme", True),
        (1.6, 0.9, 2.4, "look too timid", True),
        (0.5, 0.3, 0.8, "too extreme: high", True),
        (-2.81, -9.0, 3.0, "did not mean more outcomes", True),
    ],
)
def test_words_and_warnings_on_calibration_agree(made, value, low, high, said, warned):
    model = copy.deepcopy(made["models"]["first"])
    model["test"]["calibration_slope"] = {"value": value, "low": low, "high": high}
    (text,) = [t for t in summary.sentences(model, {"test": None, "unit": "patients"}) if said in t]
    assert ("(slope compatible with 1)" in text) == (not warned)
    told = warnings({"models": {"m": model}, "selected": "m"}, {"rows": 900, "positive": 300})
    assert any("calibration slope" in line for line in told) == warned


def test_table_one_says_how_much_of_it_is_shown(made: dict):
    assert page._table1(made["table1"])["left"] == ""
    values = np.random.default_rng(1).normal(size=(90, 40))
    many = table_one(
        [f"measurements|LAB//{n}|last|24h" for n in range(40)], values, values[:, 0] > 0
    )
    assert page._table1(many)["left"].startswith("25 of 40 characteristics")
    assert "25 of 40 characteristics" in render({**made, "table1": many})


def test_kinds_of_record_that_no_study_could_read_are_not_said_to_be_unused(made):
    told = {"code": "Location", "rule": "not_read", "action": "left_out", "count": 120}
    shown = render({**made, "ledger": [told]})
    assert "Kind of record that is not read" in shown and "Location 120" in shown
    assert "not used by the study" not in shown


def test_what_was_written_after_the_outcome_and_dated_before_is_no_proof_of_the_audit(made):
    """A discharge's code, written at death and dated at admission, passes: the verdict says so."""
    days = [dt.datetime(2024, 1, day, tzinfo=dt.UTC) for day in (1, 2, 9)]
    facts = [(days[0], "DISCHARGE//DIED"), (days[0], "ADT//IN"), (days[2], "MEDS_DEATH")]
    events = EVENTS.rows({"subject_id": 1, "time": time, "code": code} for time, code in facts)
    index = INDEX.rows([{"subject_id": 1, "prediction_time": days[1]}])
    listed = [Feature.named("codes|DISCHARGE//DIED|present|all", modality="records")]
    asked = events.select(["subject_id", "time", "code", "numeric_value"]), index, listed
    assert not differing(*asked, matrix(*asked), matrix)
    audited = {"rows_checked": 1, "rows_differing": 0}
    shown = " ".join(render({**made, "leakage": audited}).split())
    verdict = shown[shown.index("No feature looks past its prediction moment.") :]
    assert "It believes the times that the sources tell: a value that was written" in verdict
    assert "afterwards and dated before would not be seen." in verdict
    assert "no feature knows the future" not in shown.lower()
