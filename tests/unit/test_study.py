"""The study file: durations, places, overrides, and faults told all at once."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinloom import plugins, study
from clinloom.errors import StudyError, UsageError

STUDY = """
name: tiny
sources:
  ehr: {type: fhir, path: "${TINY_DATA:-here}/fhir"}
cohort:
  index: {at: ENCOUNTER//IMP//START, plus: 24h}
  outcome: {codes: ICD10CM//J96.01, within: 30d}
features:
  demographics:
  measurements: {codes: "LOINC//*", windows: [24h]}
models: [logistic_regression]
"""


def read(tmp_path, text=STUDY, *overrides):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return study.read(file, rooms=plugins, overrides=overrides)


@given(st.integers(min_value=0, max_value=10**18))
def test_a_duration_is_read_as_it_was_written(microseconds):
    assert study.duration(study.written(microseconds)) == microseconds


@pytest.mark.parametrize("text", ["30", "d", "30 fortnights", "-1d", 30, True])
def test_a_duration_needs_a_unit(text):
    with pytest.raises(ValueError):
        study.duration(text)


def test_paths_are_relative_to_the_study_and_read_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TINY_DATA", raising=False)
    assert read(tmp_path).sources["ehr"].path == str(tmp_path / "here" / "fhir")
    monkeypatch.setenv("TINY_DATA", "/elsewhere")
    assert read(tmp_path).sources["ehr"].path == "/elsewhere/fhir"
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("TINY_DATA", "mine")
    assert read(tmp_path).sources["ehr"].path == str(tmp_path.parent / "mine" / "fhir")


def test_the_hash_ignores_where_files_lie_and_nothing_else(tmp_path, monkeypatch):
    first = read(tmp_path)
    monkeypatch.setenv("TINY_DATA", "/elsewhere")
    assert read(tmp_path).hash == first.hash
    assert read(tmp_path, STUDY, "cohort.outcome.within=60d").hash != first.hash


def test_an_override_sets_a_key_and_its_path_is_the_callers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    made = read(tmp_path, STUDY, "cohort.outcome.within=60d", "sources.ehr.path=new")
    assert made.cohort.outcome.within == 60 * study.MICROSECONDS["d"]
    assert made.sources["ehr"].path == str(tmp_path.parent / "new")


def test_what_resolved_reads_again_as_the_same_study(tmp_path):
    made = read(tmp_path)
    assert study.parse(made.resolved(), rooms=plugins) == made


def test_all_faults_are_told_at_once_with_line_and_nearest_key(tmp_path):
    text = STUDY.replace("within: 30d", "withn: 30d").replace("plus: 24h", "plus: 24")
    text = text.replace("demographics:", "demografics:").replace("seed", "sed")
    with pytest.raises(StudyError) as caught:
        read(tmp_path, text)
    told = str(caught.value)
    assert "line 7, cohort.outcome.withn: unknown key; did you mean 'within'?" in told
    assert "cohort.outcome.within: is required" in told
    assert "line 6, cohort.index.plus: a duration needs a unit" in told
    assert "did you mean 'demographics'?" in told
    assert caught.value.exit_code == 2


def test_a_study_that_is_not_yaml_or_not_there(tmp_path):
    with pytest.raises(StudyError, match="line 2"):
        read(tmp_path, "name: x\n  bad: [")
    with pytest.raises(UsageError):
        study.read(tmp_path / "absent.yaml", rooms=plugins)
    with pytest.raises(UsageError):
        read(tmp_path, STUDY, "nonsense")


def test_the_schema_knows_every_plug_in_and_its_references_resolve():
    made = study.schema(plugins)
    text = json.dumps(made)
    for reference in re.findall(r'"#/\$defs/([^"]+)"', text):
        assert reference in made["$defs"], reference
    for room in ("clean", "features", "models"):
        named, listed = made["properties"][room]["anyOf"]
        assert (
            set(named["properties"]) == set(plugins.choices(room)) == set(listed["items"]["enum"])
        )
