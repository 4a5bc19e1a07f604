"""What the README shows of studies is valid, and there is one of each kind of source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from clinloom import plugins, study

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SHOWN = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def whole(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a study with what it lacks."""
    cohort = {"index": {"at": "STAY"}, "outcome": {"codes": "OUTCOME//DEATH", "within": "30d"}}
    features, models = {"measurements": None}, ["logistic_regression"]
    return {"name": "shown", "cohort": cohort, "features": features, "models": models, **part}


@pytest.mark.parametrize("part", SHOWN, ids=lambda part: next(iter(part)))
def test_what_the_readme_shows_is_valid(part):
    study.parse(whole(part), rooms=plugins, where="README.md")


def test_the_readme_shows_each_kind_of_source():
    shown = [study.parse(whole(part), rooms=plugins, where="README.md") for part in SHOWN]
    sources = [options for one in shown for options in one.sources.values()]
    assert {options.type for options in sources} == set(plugins.choices("sources"))
    tables = [options for options in sources if options.type == "table"]
    assert any(options.code for options in tables) and any(options.columns for options in tables)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid_and_told(path):
    study.read(path, rooms=plugins)
    assert f"`{path.name}`" in README


def test_every_example_that_the_readme_names_is_there():
    named = set(re.findall(r"examples/(\w+\.yaml)", README))
    named |= set(re.findall(r"^\| `(\w+\.yaml)`", README, re.MULTILINE))
    assert named <= {path.name for path in EXAMPLES}
