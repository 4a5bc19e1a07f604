"""A model that was fetched from a registry lies on this machine no longer than it is used."""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from clinloom.deploy import registry
from clinloom.errors import StoreError


class Refused(Exception):
    """What a registry raises."""

    error_code = "RESOURCE_DOES_NOT_EXIST"


@pytest.fixture
def left(tmp_path, monkeypatch):
    """Where models are fetched to, and what is called when the process ends."""
    ends: list[tuple] = []

    def download(_, dst_path):
        if dst_path.endswith("refused"):
            raise Refused
        place = Path(dst_path) / "data" / "bundle"
        place.mkdir(parents=True)
        return dst_path

    mlflow = SimpleNamespace(
        artifacts=SimpleNamespace(download_artifacts=download), MlflowException=Refused
    )
    monkeypatch.setattr(registry, "_mlflow", lambda: mlflow)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(atexit, "register", lambda *asked: ends.append(asked))
    yield tmp_path, ends
    registry._fetched.cache_clear()


def test_it_goes_when_the_process_ends_and_with_no_other(left, monkeypatch):
    place, ends = left
    at = registry._fetched("server", "risk", "1")
    assert at.path.is_dir() and registry._fetched("server", "risk", "1") == at
    [(end, *told)] = ends
    with monkeypatch.context() as other:
        other.setattr(os, "getpid", lambda: -1)  # a process that this one begot
        end(*told)
    assert at.path.is_dir()
    end(*told)
    assert not list(place.iterdir())


def test_what_cannot_be_fetched_leaves_nothing(left, monkeypatch):
    place, _ = left
    make = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **more: make(**more, suffix="refused"))
    with pytest.raises(StoreError, match="cannot be fetched"):
        registry._fetched("server", "risk", "2")
    assert not list(place.iterdir())
