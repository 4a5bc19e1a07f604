"""Windows and durations are called as the study calls them, in features, in the report, stored."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from clinloom import study
from clinloom.features import codes, imaging, measurements
from clinloom.report import names


@pytest.mark.parametrize("family", [codes, imaging, measurements])
@pytest.mark.parametrize("said", ["1y", "2y", "365d", "30d", "2w", "24h", "1d", "90m", "1.5y"])
def test_a_feature_names_its_window_as_the_study_does(family, said):
    chosen = family.Options(windows=[said, "all"])
    name = family.names(chosen, ["LOINC//1"])[0]
    assert name.endswith(f"|{said}")
    assert chosen.model_dump(mode="json")["windows"] == [said, "all"]


def test_a_window_that_is_said_twice_is_one_under_its_first_name():
    chosen = measurements.Options(windows=["2 d", "48h", None, "all"], statistics=["last"])
    assert measurements.names(chosen, ["A"]) == [
        "measurements|A|last|2d",
        "measurements|A|last|all",
    ]
    assert measurements.untimed(chosen, ["A"]) == ["measurements|A|last|all"]
    widest = measurements.Options(windows=["1y", "300d", "8000h"], statistics=["last"])
    assert measurements.untimed(widest, ["A"]) == ["measurements|A|last|1y"]


@pytest.mark.parametrize("wrong", ["0d", "1", "soon", 5])
def test_what_is_no_window_is_refused(wrong):
    with pytest.raises(ValidationError):
        measurements.Options(windows=[wrong])


def test_a_duration_of_years_is_stored_in_years():
    assert study.written(study.duration("1y")) == "1y"
    assert study.written(study.duration("365d")) == "365d"


@pytest.mark.parametrize(
    ("window", "told"),
    [("1y", "1 year"), ("2y", "2 years"), ("1d", "1 day"), ("30d", "30 days"), ("1w", "1 week")]
    + [("24h", "24 h"), ("90m", "90 min"), ("1s", "1 s"), ("5us", "5 µs")],
)
def test_the_report_says_windows_in_words(window, told):
    assert (
        names.feature(f"measurements|LOINC//2160-0|last|{window}") == f"Creatinine, last in {told}"
    )
