"""A text that is to have a form: its fault tells the form in words with an example, no pattern."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import Field

from clinloom import plugins, study
from clinloom.errors import StudyError

STUDY = {
    "name": "tiny",
    "sources": {"ehr": {"type": "fhir", "path": "fhir"}},
    "cohort": {"index": {"at": "IN"}, "outcome": {"codes": "OUT", "within": "30d"}},
    "features": {"demographics": {}},
    "models": ["logistic_regression"],
}


def fault(rooms=plugins, **changes):
    with pytest.raises(StudyError) as caught:
        study.parse({**STUDY, **changes}, rooms=rooms)
    [line] = caught.value.faults
    return line


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "my study"}, "name: is written like heart-uci: letters, digits,"),
        (
            {"sources": {"ehr": {"type": "fhir", "path": "x", "whole_at_most": "2 GB"}}},
            "sources.ehr.whole_at_most: is written like 512m: how much of a packed file",
        ),
        ({"platform": {"local": {"memory": "3GB"}}}, "platform.local.memory: is written like 3g: "),
        ({"platform": {"yarn": {"overhead": "2"}}}, "platform.yarn.overhead: is written like 2g: "),
        (
            {"platform": {"connect": {"token": "canary"}}},
            "platform.connect.token: is written like env:NAME: the bearer token",
        ),
        ({"cohort": {**STUDY["cohort"], "washout": "soon"}}, "cohort.washout: `ever`, `none` or"),
    ],
)
def test_a_form_is_told_in_words_with_an_example(changes, told):
    line = fault(**changes)
    assert line.startswith(told)
    assert "pattern" not in line and "^" not in line and "canary" not in line


class Codes(study.Model):
    """A family of another package."""

    inner: tuple[Annotated[str, Field(pattern="^[a-z]+$")], ...] = Field(
        default=(), description="small letters"
    )
    plain: str = Field(default="a", pattern="^[a-z]+$")


class Rooms:
    choices = staticmethod(plugins.choices)

    @staticmethod
    def options(room, name):
        return Codes if room == "features" else plugins.options(room, name)


@pytest.mark.parametrize(
    ("given", "told"),
    [({"inner": ["a", "B"]}, "is written otherwise: small letters"), ({"plain": "B"}, "otherwise")],
)
def test_a_plug_in_that_tells_no_example_is_said_in_its_words(given, told):
    line = fault(Rooms, features={"demographics": given})
    assert told in line and "[a-z]" not in line
