"""mypy, strict and with nothing left out, finds nothing: a test, so that one command says all."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests.clusters.parts import cache

from clinloom import plugins

ROOT = Path(__file__).parents[2]
needed = pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")


SEAMS = {  # what a room's files owe, and where it is written
    "clean": ("clinloom.clean", "Rule"),
    "features": ("clinloom.features", "Family"),
    "models": ("clinloom.learn.algorithm", "Algorithm"),
    "outputs": ("clinloom.outputs", "Output"),
    "platforms": ("clinloom.platforms", "Platform"),
    "sources": ("clinloom.sources", "Source"),
}
WRONG = "def f(n: int) -> str:\n    return n\n\n\ndef g(n):\n    return n\n"
BROKEN = "import clinloom.clean.units\nfrom clinloom.sources import Source\n\n"
BROKEN += "broken: Source = clinloom.clean.units\n"


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What one run finds, by file: in the package, in every plug-in as its room's protocol, and in
    two files that are wrong. What it knows of what has not changed stays in the tests' cache."""
    folder = tmp_path_factory.mktemp("mypy")
    seams = []
    for room, (module, protocol) in SEAMS.items():
        seams.append(f"from {module} import {protocol}")
        for name in plugins.choices(room):
            seams += [f"import clinloom.{room}.{name}"]
            seams += [f"{room}_{name}: {protocol} = clinloom.{room}.{name}"]
    texts = {"seams": "\n".join([*seams, ""]), "wrong": WRONG, "broken": BROKEN}
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", cache() / "mypy"]
    given = [*checked(), *sorted(folder.iterdir())]
    done = subprocess.run([*command, *given], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stderr, done.stdout + done.stderr
    found: dict[str, list[str]] = {name: [] for name in ("clinloom", *texts)}
    for line in done.stdout.splitlines():
        file = Path(line.split(":")[0])  # of what has not changed, where it lay when it was read
        found[file.stem if "mypy" in file.parent.name else "clinloom"].append(line)
    return found


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]


def checked() -> list[str]:
    """What mypy checks of itself."""
    return settings()["files"]


@needed
def test_mypy_finds_nothing(faults):
    assert faults["clinloom"] == []


@needed
def test_mypy_finds_what_is_wrong(faults):
    told = "\n".join(faults["wrong"])
    assert "[return-value]" in told and "[no-untyped-def]" in told


@needed
def test_every_plug_in_keeps_its_rooms_protocol(faults):
    assert set(SEAMS) == set(plugins.ROOMS)
    assert faults["seams"] == []
    [fault] = [line for line in faults["broken"] if "error:" in line]
    assert 'variable has type "Source"' in fault


def test_no_room_is_eased_or_left_out():
    asked = settings()
    assert asked.pop("strict") is True
    assert asked.pop("files") == ["src/clinloom"]
    for override in asked.pop("overrides"):
        assert not [m for m in override.pop("module") if m.startswith("clinloom")]
        assert override == {"ignore_missing_imports": True}
    assert asked == {"python_version": "3.11"}
