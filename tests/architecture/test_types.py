"""mypy, strict and with nothing left out, finds nothing: a test, so that one command says all."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from clinloom import plugins

ROOT = Path(__file__).parents[2]
needed = pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the tests of this file: the libraries are read once."""
    return tmp_path_factory.mktemp("mypy")


def checked(*more: str | Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", cache]
    return subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, check=False)


@needed
def test_mypy_finds_nothing(cache: Path):
    done = checked(cache=cache)
    assert done.returncode == 0, done.stdout + done.stderr


@needed
def test_mypy_finds_what_is_wrong(tmp_path: Path, cache: Path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f(n: int) -> str:\n    return n\n\n\ndef g(n):\n    return n\n")
    done = checked(wrong, cache=cache)
    assert done.returncode == 1
    assert "[return-value]" in done.stdout and "[no-untyped-def]" in done.stdout


SEAMS = {  # what a room's files owe, and where it is written
    "clean": ("clinloom.clean", "Rule"),
    "features": ("clinloom.features", "Family"),
    "models": ("clinloom.learn.algorithm", "Algorithm"),
    "outputs": ("clinloom.outputs", "Output"),
    "platforms": ("clinloom.platforms", "Platform"),
    "sources": ("clinloom.sources", "Source"),
}


@needed
def test_every_plug_in_keeps_its_rooms_protocol(tmp_path: Path, cache: Path):
    assert set(SEAMS) == set(plugins.ROOMS)
    lines = []
    for room, (module, protocol) in SEAMS.items():
        lines.append(f"from {module} import {protocol}")
        for name in plugins.choices(room):
            lines += [f"import clinloom.{room}.{name}"]
            lines += [f"{room}_{name}: {protocol} = clinloom.{room}.{name}"]
    written = tmp_path / "seams.py"
    written.write_text("\n".join([*lines, ""]))
    done = checked(written, cache=cache)
    assert done.returncode == 0, done.stdout

    written.write_text("\n".join([*lines, "broken: Source = clinloom.clean.units", ""]))
    done = checked(written, cache=cache)
    assert done.returncode == 1
    [fault] = [line for line in done.stdout.splitlines() if "error:" in line]
    assert 'variable has type "Source"' in fault


def test_no_room_is_eased_or_left_out():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings.pop("strict") is True
    assert settings.pop("files") == ["src/clinloom"]
    for override in settings.pop("overrides"):
        assert not [m for m in override.pop("module") if m.startswith("clinloom")]
        assert override == {"ignore_missing_imports": True}
    assert settings == {"python_version": "3.11"}
