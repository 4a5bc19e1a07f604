"""A bundle of MLflow's registry, without a server."""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

from clinloom.deploy import registry


def test_a_version_of_another_server_is_another_model(monkeypatch, tmp_path):
    server = ["one"]

    def fetched(uri, *, dst_path):
        return f"{dst_path}/{server[0]}"

    artifacts = SimpleNamespace(download_artifacts=fetched)
    mlflow = SimpleNamespace(get_registry_uri=lambda: server[0], artifacts=artifacts)
    monkeypatch.setattr(registry, "_mlflow", lambda: mlflow)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = registry.local("models:/risk/1")
    assert registry.local("models:/risk/1") == first  # fetched once
    server[0] = "two"
    assert registry.local("models:/risk/1").parent.parent.name == "two"
