"""The site tells everything that a study may say, and builds without a warning or a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from clinloom import cli, plugins, tables
from clinloom.study import schema

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The site's pages, before Sphinx."""
    folder = tmp_path_factory.mktemp("docs") / "source"
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def names(node: Any) -> Iterator[str]:
    """Every key that a JSON Schema lets a person write, wherever it stands."""
    if isinstance(node, Mapping):
        yield from node.get("properties", {})
        for part in node.values():
            yield from names(part)
    elif isinstance(node, list):
        for part in node:
            yield from names(part)


def untold(page: str, whole: Mapping[str, Any]) -> set[str]:
    """The keys of a schema that no row of a page's tables begins with, whatever stands before."""
    told = {path.split(".")[-1] for path in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)}
    return set(names(whole)) - told


def test_every_key_of_a_study_is_told(source: Path):
    page = (source / "reference" / "study.md").read_text()
    whole = schema(plugins)
    rooms = {choice for room in plugins.ROOMS for choice in plugins.choices(room)}
    parts = {name for name in whole["properties"] if f"\n## {name}\n" in page}
    assert untold(page, whole) <= rooms | parts
    assert parts >= {"sources", "cohort", "features", "models", "evaluate"}
    more = {"properties": {**whole["properties"], "forgotten": {"type": "string"}}}
    assert "forgotten" in untold(page, more)


def test_every_key_has_a_meaning(source: Path):
    page = (source / "reference" / "study.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|.*\| ([^|]*) \|$", page, re.MULTILINE)
    assert len(rows) > 100
    assert [key for key, meaning in rows if not meaning.strip()] == []


@pytest.mark.parametrize(
    ("room", "name"), [(room, name) for room in plugins.ROOMS for name in plugins.choices(room)]
)
def test_every_plug_in_has_its_section_and_options(source: Path, room: str, name: str):
    page = (source / "reference" / f"{room}.md").read_text()
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    module = plugins.load(room, name)
    assert module.__doc__.splitlines()[0] in section
    assert not untold(section, plugins.options(room, name).model_json_schema())
    assert (module.REQUIRES is None) == ("pip install" not in section)


def test_a_key_inside_a_part_of_a_list_is_told_with_its_way(source: Path):
    page = (source / "reference" / "study.md").read_text()
    assert "| `cohort.eligibility.require[].within` | duration or none | none |" in page
    assert "| `late_after` | duration | `1d` |" in page
    assert "| `events[].when.equals` |" in page


def test_every_table_and_column_is_told(source: Path):
    page = (source / "reference" / "tables.md").read_text()
    for name, table in vars(tables).items():
        if isinstance(table, tables.Table):
            section = page.split(f"\n## {name.lower().replace('_', ' ')}\n")[1].split("\n## ")[0]
            assert all(f"| `{column.name}` |" in section for column in table.columns)


def test_every_command_is_told(source: Path):
    page = (source / "reference" / "commands.md").read_text()
    assert all(f"## clinloom {name}\n" in page for name in cli.COMMANDS)


def test_every_decision_and_guide_is_laid_beside(source: Path):
    written = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "decisions").glob("*.md")]
    assert all((source / path.relative_to(ROOT)).is_file() for path in written)


@pytest.mark.skipif(find_spec("furo") is None, reason="the extra docs is not installed")
def test_the_site_builds_without_a_warning_and_asks_nothing_of_a_network(source: Path, tmp_path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(ROOT / "docs")]
    command += ["-d", str(tmp_path / "doctrees"), str(source), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [*site.rglob("*.html")]
    assert len(pages) > len(plugins.ROOMS) + len([*(ROOT / "docs" / "decisions").glob("*.md")])
    for page in pages:
        fetched = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', page.read_text())
        assert not [address for address in fetched if "//" in address], page.name
