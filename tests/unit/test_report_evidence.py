"""The report's evidence: subgroups, explanation, checklists, definitions, and its other forms."""

from __future__ import annotations

import copy
import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from tests.unit.test_report import FEATURES, Reader

from clinloom.evaluate import METRICS, Judged, paired, replicated, summed_up
from clinloom.evaluate.points import Asked
from clinloom.evaluate.subgroups import FAIRNESS, NUMBERS
from clinloom.learn.risks import Risks
from clinloom.report import card, checklists, markdown, render, view
from clinloom.report.baseline import table_one
from clinloom.report.checklists import HTI1, PERSON
from clinloom.report.definitions import DEFINITIONS
from clinloom.report.disclosure import HIDDEN
from clinloom.report.words import METRICS as WORDS
from clinloom.run import subgroups

NOTHING = dict.fromkeys(("value", "low", "high"))


def number(value: float, spread: float = 0.04) -> dict:
    return {"value": value, "low": value - spread, "high": value + spread}


def group(kind: str, name: str, auroc: float, *, shown: bool = True) -> dict:
    if not shown:
        hidden = {"rows": None, "positive": None, "metrics": {}, "difference": {}, "fairness": {}}
        return {"kind": kind, "name": name, "shown": False, **hidden}
    return {
        "kind": kind,
        "name": name,
        "shown": True,
        "rows": 143,
        "positive": 31,
        "metrics": {n: number(auroc) for n in NUMBERS},
        "difference": {n: number(0.02) for n in NUMBERS},
        "fairness": {n: number(0.9) for n in FAIRNESS},
    }


def model(seed: int, title: str) -> dict:
    rng = np.random.default_rng(seed)
    risk = np.round(rng.beta(1, 4, 300), 3)
    label = rng.random(300) < risk
    asked = Asked(thresholds=(0.1, 0.3), alert_rates=(0.1,), sensitivities=(0.8,))
    judged = Judged.of(Risks.of(label, risk), 0.25, asked)
    rows = [(np.arange(300), label, risk[:, None])]
    drawn = replicated(rows, [judged], range(31), seed=1)[0]
    found = summed_up(drawn, judged, confidence=0.95)
    importance = [{"feature": f, "value": 0.4 / (n + 1)} for n, f in enumerate(FEATURES)]
    plain = {"title": title, "threshold": 0.25, "fold_auroc": 0.7, "point": {}, "parity": 0.0}
    return {**plain, **found, "importance": importance, "drawn": drawn}


@pytest.fixture(scope="module")
def record() -> dict:
    models = {"first": model(1, "First"), "second": model(2, "Second")}
    apart = paired(models["first"].pop("drawn"), models["second"].pop("drawn"), confidence=0.95)
    rng = np.random.default_rng(3)
    values = np.column_stack([rng.normal(60, 9, 400), rng.random(400) < 0.3]).astype(float)
    entries = [{"name": f, **number(0.1 / (n + 1))} for n, f in enumerate(FEATURES)]
    return {
        "study": {
            "name": "made",
            "title": "Made <up>",
            "description": "Who? | *all*",
            "hash": "f0",
        },
        "created": "2026-03-01T09:05:00+00:00",
        "models": models,
        "selected": "first",
        "paired": {"second": apart},
        "split": {
            "train": {"rows": 700, "subjects": 700, "positive": 140},
            "test": {"rows": 300, "subjects": 300, "positive": 60},
        },
        "flow": [{"step": 0, "name": "patients", "subjects": 1000, "rows": 1000}],
        "sources": [{"name": "ehr", "type": "fhir", "events": 12345, "images": 0}],
        "subgroups": [
            group("sex", "sex F", 0.74),
            group("sex", "sex M", 0.7),
            group("age", "age 18 to 44", 0.77),
            group("age", "age 80 on", 0.5, shown=False),
            group("code", "code ICD10CM//I50.9", 0.66),
        ],
        "months": [group("month", "2025-01", 0.7), group("month", "2025-02", 0.72)],
        "explanation": {
            "rows": 300,
            "permutation": {"feature": entries, "family": [{"name": "codes", **number(0.1)}]},
            "contributions": {"scale": "log-odds", "rows": 200, "features": entries},
        },
        "unfound": ["X//nothing"],
        "table1": table_one([FEATURES[0], FEATURES[2]], values, rng.random(400) < 0.5),
        "leakage": {"rows_checked": 1000, "rows_differing": 0},
    }


@pytest.fixture(scope="module")
def page(record) -> str:
    return render(record)


def test_every_metric_leads_to_its_definition_with_formula_and_source(page):
    ids = Reader(page).ids
    links = set(re.findall(r'href="#def-([^"]+)"', page))
    assert links <= set(DEFINITIONS) and {f"def-{key}" for key in DEFINITIONS} <= set(ids)
    named = {key for metrics in WORDS.values() for key in metrics}
    assert named == set(METRICS) and named <= links
    assert links >= {*FAIRNESS, "smd", "permutation", "contribution", "difference", "net_benefit"}
    assert all(one.formula and one.source for one in DEFINITIONS.values())


def test_subgroups_are_drawn_with_all_and_small_ones_hidden(page, record):
    found = view(record)["subgroups"]
    assert [row["name"] for row in found["rows"]][:4] == [
        "Sex: F",
        "Sex: M",
        "Age 18–44",
        "Age 80 and over",
    ]
    assert found["rows"][4]["name"] == "Heart failure" or "I50.9" in found["rows"][4]["name"]
    hidden = found["rows"][3]
    assert hidden["rows"] == hidden["positive"] == HIDDEN
    assert {cell["value"] for cell in (*hidden["metrics"], *hidden["fairness"])} == {"–"}
    assert "Age 80 and over: AUROC" not in page and "Sex: F: AUROC" in page
    assert "All test rows" in page and "X//nothing" in page


def test_small_groups_and_rests_are_taken_away_before_anything_is_written():
    everyone = 100, 30, 0.3  # rows, those with the outcome, and the part that is flagged

    def row(name, rows, positive, patients):
        told = group("sex", name, 0.7)
        return told | {"rows": rows, "positive": positive, "patients": patients}

    rows = [row("a", 50, 18, [18, 32]), row("b", 42, 9, [9, 33]), row("c", 8, 3, [3, 5])]
    subgroups._hide(rows, *everyone)
    assert [one["shown"] for one in rows] == [True, False, False]  # c could be had from a and b
    assert "18" not in json.dumps(rows[1:]) and rows[1]["metrics"] == {}
    most = [row("d", 97, 28, [28, 69])]
    subgroups._hide(most, *everyone)  # of the rest two have the outcome
    assert most[0]["metrics"] and not most[0]["difference"] and not most[0]["fairness"]
    flagged = row("e", 50, 18, [18, 32])
    flagged["metrics"]["alert_rate"] = number(0.06)
    subgroups._hide([flagged], *everyone)  # three are flagged
    assert "precision" not in flagged["metrics"] and flagged["metrics"]["auroc"]


def test_flags_that_the_other_rows_give_away_are_told_of_none():
    def row(name, rows, rate):
        told = group("sex", name, 0.7) | {"rows": rows, "positive": rows // 3}
        told["metrics"]["alert_rate"] = number(rate)
        return told | {"patients": [rows // 3, rows - rows // 3]}

    for rows in ([row("f", 300, 0.01), row("m", 700, 40 / 700)], [row("m", 700, 40 / 700)]):
        subgroups._hide(rows, 1000, 333, 0.043)  # three of the 300 are flagged
        for one in rows:
            assert one["shown"] and "auroc" in one["metrics"]
            assert not {"alert_rate", "precision"} & {*one["metrics"], *one["difference"]}
            assert one["fairness"] == {}


def test_checklists_are_filled_in_as_far_as_software_knows(record):
    found = view(record)
    assert len(HTI1) == 31 and len({item.number for item in HTI1}) == 31
    for one in found["checklists"]:
        answers = [row["known"] for row in one["rows"]]
        assert PERSON in answers and one["known"] >= 9
    known = checklists.facts(found)
    used = {item.known for items, _ in checklists.LISTS.values() for item in items} - {""}
    assert used >= set(known) - {"demographics"}
    assert "60 with the outcome" in known["size"] and "sex" in known["demographics"]


def test_markdown_and_json_tell_what_the_page_tells(record, page):
    seen = view(record)
    text, told = markdown.markdown(seen), json.loads(json.dumps(markdown.plain(seen)))
    assert "<svg" not in text and "<svg" not in json.dumps(told)
    assert "Made \\<up\\>" in text and "Who? \\| \\*all\\*" in text
    auroc = record["models"]["first"]["test"]["auroc"]["value"]
    assert f"{auroc:.3f}" in text and f"{auroc:.3f}" in json.dumps(told) and f"{auroc:.3f}" in page
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| Sex")}
    assert widths == {8}
    assert told["subgroups"]["rows"][3]["rows"] == HIDDEN
    for title in ("Subgroups", "Over time", "Paired comparison", "Definitions", "Limits"):
        assert f"## {title}" in text


def test_the_card_is_the_coalitions_in_its_order(record):
    seen = view(record)
    metrics = {**record["models"]["first"]["test"], "fairness": {"Sex: F": number(0.1)}}
    text = card.card(seen, checklists.facts(seen), metrics, "1.0")
    root = Xml.fromstring(text)  # noqa: S314 - of our own making
    space = f"{{{card.SPACE}}}"
    assert root.tag == f"{space}AppliedModelCard"
    assert [child.tag.removeprefix(space) for child in root] == [
        "BasicInfo",
        "ReleaseInfo",
        "ModelSummary",
        "UsesAndDirections",
        "Warnings",
        "TrustIngredients",
        "KeyMetrics",
        "Resources",
        "Bibliography",
    ]
    values = [json.loads(one.text) for one in root.iter(f"{space}ValueJson")]
    assert metrics["auroc"] in values and number(0.1) in values
    assert text.count(PERSON) > 8


@pytest.mark.skipif("CHAI_SCHEMA" not in os.environ, reason="CHAI_SCHEMA names no schema")
def test_the_card_is_valid_against_the_published_schema(record):
    xmlschema = pytest.importorskip("xmlschema")
    seen = view(record)
    known = checklists.facts(seen)
    text = Path(os.environ["CHAI_SCHEMA"]).read_text()
    text = re.sub(r"<xs:import[^>]*/>|<xs:element ref=\"ds:Signature\"[^>]*/>", "", text)
    schema = xmlschema.XMLSchema(text)
    for metrics in (record["models"]["first"]["test"], dict.fromkeys(METRICS, NOTHING)):
        schema.validate(card.card(seen, known, metrics, "1.0"))


def test_what_is_not_known_is_left_out_of_every_form(record):
    bare = copy.deepcopy(record)
    for name in ("subgroups", "months", "explanation", "paired", "unfound", "leakage"):
        bare.pop(name)
    for row in bare["table1"]:
        row.pop("difference", None)  # as a run of an older version has it
    bare["models"]["first"] |= {"test": {}, "curves": {}}
    bare["models"]["first"].pop("points")
    seen = view(bare)
    Reader(render(bare))
    assert "None" not in render(bare) and "None" not in markdown.markdown(seen)
    Xml.fromstring(card.card(seen, checklists.facts(seen), {}, "1.0"))  # noqa: S314 - our own


def test_standardised_differences_are_those_of_their_formula():
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(1e6, 3, 500), rng.random(500) < 0.4]).astype(float)
    values[rng.random((500, 2)) < 0.2] = np.nan
    label = rng.random(500) < 0.4
    values[label, 0] += 1
    told = table_one(FEATURES[:2], values, label)[1:]
    for at, row in enumerate(told):
        one, other = values[label, at], values[~label, at]
        wide = np.sqrt((np.nanvar(one) + np.nanvar(other)) / 2)
        expected = (np.nanmean(one) - np.nanmean(other)) / wide
        assert row["difference"].replace("−", "-") == f"{expected:.2f}"
    few = table_one(FEATURES[:2], values, np.arange(500) < 3)[1:]
    assert {row["difference"] for row in few} == {HIDDEN}
