"""A look at the heads of sources: codes, and where the study and the data do not fit."""

from __future__ import annotations

import json

import pytest

from clinloom import cli
from clinloom.errors import SourceError
from clinloom.run import api
from clinloom.run import look as looking

STUDY = """
name: looked
sources:
  labs:
    type: table
    path: labs
    patient: mrn
    time: {column: at}
    code: {column: test, prefix: LAB//}
    value: result
    unit: unit
cohort:
  index: {at: LAB//in}
  outcome: {codes: LAB//out, within: 30d}
  eligibility: {exclude: [{name: had, any_of: [{codes: LAB//crea}, {codes: "GONE//*"}]}]}
  observed: {starts: LAB//in, ends: LAB//end}
features: {measurements: {codes: "LAB//*"}}
models: [logistic_regression]
"""
ROWS = """mrn,at,test,result,unit
4711,2024-01-01,in,,
4711,2024-01-02,crea,1.5,mg/dL
4711,2024-01-03,crea,130,umol/L
4711,2024-01-04,crea,low,
4712,2024-01-05,,7,
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "labs").mkdir()
    for n in range(30):
        (tmp_path / "labs" / f"part-{n:02}.csv").write_text(ROWS)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path / "study.yaml"


def test_codes_are_counted_with_their_numbers_and_units(study):
    seen = api.look(api.read_study(study))["labs"]
    assert (seen.read, seen.whole, seen.events) == (looking.EACH, False, 80)
    assert seen.table() == [
        {"code": "LAB//crea", "events": 60, "numbers": 40, "units": ["mg/dL", "umol/L"]},
        {"code": "LAB//in", "events": 20, "numbers": 0, "units": []},
    ]
    assert seen.refused == {("no_code", "test"): 20}


def test_every_kind_of_file_is_looked_at(study):
    (study.parent / "labs" / "z-other.csv").write_text(ROWS.replace("crea", "rare"))
    seen = api.look(api.read_study(study))["labs"]
    assert "LAB//rare" in seen.codes and seen.read == looking.EACH + 1


def test_patterns_that_fit_nothing_are_told_with_the_nearest(study):
    made = api.read_study(study)
    told = looking.unmatched(made, api.look(made))
    assert [line.split(":")[0] for line in told] == [
        "cohort.eligibility.exclude.0.any_of.1.codes",
        "cohort.outcome.codes",
        "cohort.observed.ends",
    ]
    assert "did you mean 'LAB//in'?" in told[2]


def test_a_missing_column_is_told_at_once_and_no_value_is(study, capsys):
    changed = ["--set", "sources.labs.value=resul"]
    assert cli.main(["validate", str(study), *changed]) == 0
    assert cli.main(["validate", str(study), "--data", *changed]) == 1
    said = capsys.readouterr().err
    assert "no column 'resul'" in said and "did you mean 'result'?" in said and "4711" not in said
    with pytest.raises(SourceError):
        api.look(api.read_study(study, overrides=["sources.labs.value=resul"]))


def test_a_source_that_is_mostly_refused_is_told(study, capsys):
    assert cli.main(["validate", str(study), "--data", "--json", "--set",
                     "sources.labs.time={column: test}"]) == 0  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert told["valid"] and any("were refused, mostly as" in n or "no event" in n
                                 for n in told["notes"])  # fmt: skip


def test_the_command_lists_codes(study, capsys):
    assert cli.main(["codes", str(study)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sources.labs: 20 files of more, 20 records refused"
    assert lines[2].split() == ["60", "40", "mg/dL,", "umol/L", "LAB//crea"]
    assert cli.main(["codes", str(study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labs"][1]["code"] == "LAB//in"
