"""ruff, with the project's rules, finds nothing: tests, so that one command says everything."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


needed = pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")


def ruff(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", ROOT]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needed
def test_ruff_finds_nothing():
    done = ruff("check", "--output-format", "concise")
    assert done.returncode == 0, done.stdout + done.stderr


@needed
def test_ruff_would_write_it_so():
    done = ruff("format", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
