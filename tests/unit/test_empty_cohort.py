"""A cohort that holds nobody, or nobody with the outcome: the codes that were asked for, and those
that there are."""

from __future__ import annotations

import shutil

import pytest
import yaml

from clinloom import plugins
from clinloom import study as studies
from clinloom.cohort import asked
from clinloom.errors import DataError
from clinloom.run import sides
from clinloom.tables import COUNTS, FLOW

RULE = """
- name: ill
  any_of: [{codes: ICD//I50}, {all_of: [{codes: LAB//bnp, value_above: 400}, {codes: X}]}]
"""


@pytest.fixture
def labs(tmp_path):
    counts = {"LAB//crea": 40, "ADT//inn": 20, "ADT//ward": 30, "ADT//of one": 4}
    rows = [f"{n},{code}\n" for code, many in counts.items() for n in range(many)]
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs" / "a.csv").write_text("pid,what\n" + "".join(rows))
    return tmp_path


def study(at, **cohort):
    source = {"type": "table", "path": "labs", "patient": "pid", "time": {"static": True}}
    told = {"index": {"at": "ADT//in"}, "outcome": {"codes": "ICD//I21", "within": "30d"}, **cohort}
    document = {
        "name": "empty",
        "sources": {"labs": {**source, "code": {"column": "what"}}},
        "cohort": told,
        "features": {"measurements": {"codes": "*"}},
        "models": ["logistic_regression"],
    }
    return studies.parse(document, rooms=plugins, base=str(at))


def flow(*names):
    return FLOW.rows(
        {"step": at, "name": name, "subjects": 0 if at else 9, "rows": 0}
        for at, name in enumerate(("patients", *names))
    )


def fault(given, steps, classes=COUNTS.empty):
    with pytest.raises(DataError) as caught:
        sides.answerable(classes, steps, given)
    return str(caught.value)


def test_an_index_code_that_nobody_has_is_told_with_the_nearest(labs):
    said = fault(study(labs), flow("with index event"))
    assert "cohort.index.at" in said and "asked for: ADT//in;" in said
    assert "no event of those looked at is 'ADT//in', but ADT//inn with 20 events" in said
    far = study(labs, index={"at": ["ADT//discharged", "ADT//*"]})
    said = fault(far, flow("with index event"))
    assert "asked for: ADT//discharged, ADT//*;" in said and "is 'ADT//*'" not in said
    assert "but ADT//ward with 30 events, ADT//inn with 20 events, LAB//crea with 40 events" in said
    assert "of one" not in said  # its few events could point at a patient


def test_an_outcome_code_that_nobody_has_is_told_with_what_there_is(labs):
    row = {"table": "index", "stage": "train", "reason": "False", "rows": 9}
    said = fault(study(labs), FLOW.empty, COUNTS.rows([row]))
    assert "nobody of 9 prediction moments has the outcome" in said
    assert "asked for: ICD//I21; no event of those looked at is 'ICD//I21', but LAB//crea" in said


def test_of_each_step_its_own_codes_are_told(labs):
    rules = {"require": yaml.safe_load(RULE)}
    given = study(labs, eligibility=rules, observed={"starts": "ADT//a", "ends": "ADT//b"}).cohort
    assert asked(flow("with index event"), given) == ("ADT//in",)
    stays = FLOW.rows(
        {"step": n, "name": name, "subjects": 9, "rows": rows}
        for n, (name, rows) in enumerate([("with index event", 9), ("ill", 0), ("outcome", 0)])
    )
    assert asked(stays, given) == ("ICD//I50", "LAB//bnp", "X")
    assert {"ICD//I50", "LAB//bnp", "X", "ADT//a", "ICD//I21"} <= set(given.codes)
    seen = flow("observed at the index time")
    assert asked(seen, given) == ("ADT//a", "ADT//b")
    assert asked(flow("alive at the index time"), given) == ()


def test_data_that_are_gone_hide_no_fault(labs):
    given = study(labs)
    shutil.rmtree(labs / "labs")
    said = fault(given, flow("with index event"))
    assert "nobody is in the cohort" in said and said.endswith("(asked for: ADT//in)")
