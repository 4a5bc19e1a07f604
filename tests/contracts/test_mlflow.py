"""MLflow, a real server: a run is tracked once, its bundle registered, and served by name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import clinloom
from clinloom.deploy import registry
from clinloom.deploy.bundle import published
from clinloom.errors import StoreError, UsageError

mlflow = pytest.importorskip("mlflow", reason="without the extra 'bench'")
PATIENCE = 600  # seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = ["--backend-store-uri", f"sqlite:///{folder}/runs.sqlite", "--workers", "1"]
    told += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port)]
    command = [sys.executable, "-m", "mlflow", "server", *told]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # else four more of it
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=env)
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    while not _answers(f"{url}/health"):
        assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.3)
    yield url
    process.terminate()
    process.wait(PATIENCE)


def _answers(url):
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def tracked(server, finished):
    return registry.track(finished, uri=server, register="failure", alias="champion")


def test_a_run_is_tracked_once_with_what_it_found(server, finished, tracked):
    run = mlflow.MlflowClient(server).get_run(tracked["run"])
    metrics = json.loads((finished / "metrics.json").read_text())
    auroc = metrics["models"][metrics["selected"]]["test"]["auroc"]
    assert run.data.metrics["auroc"] == auroc["value"]
    assert run.data.metrics["auroc.low"] == auroc["low"]
    assert run.data.params["selected"] == metrics["selected"]
    kept = mlflow.MlflowClient(server).list_artifacts(run.info.run_id)
    assert {"report.html", "metrics.json"} <= {artifact.path for artifact in kept}
    again = registry.track(finished, uri=server, register="failure", alias="champion")
    assert again == tracked  # no second run, no second version


def test_its_bundle_scores_by_name_as_from_its_folder(finished, tracked):
    known = pq.read_table(finished / "tables" / "predictions").slice(0, 5)
    table = pq.read_table(finished / "tables" / "events")
    events = table.filter(pc.is_in(table.column("subject_id"), known.column("subject_id")))
    mine = clinloom.load_bundle(finished / "bundle").predict(events)
    assert tracked["model"] == "models:/failure@champion"
    assert clinloom.load_bundle(tracked["model"]).predict(events).equals(mine)
    assert published(tracked["model"]) == "1"
    columns = ["subject_id", "time", "code", "numeric_value", "text_value", "unit"]
    frame = events.select(columns).to_pandas()
    found = mlflow.pyfunc.load_model(tracked["model"]).predict(frame)
    wanted = mine.to_pandas()["predicted_boolean_probability"]
    assert np.array_equal(found["predicted_boolean_probability"], wanted)


def test_what_is_not_there_is_told_with_a_mend(server, finished, tracked, tmp_path):
    with pytest.raises(StoreError, match="no such model") as told:
        clinloom.load_bundle("models:/failure@nobody")
    assert "clinloom track" in told.value.mend
    with pytest.raises(UsageError, match="no finished run"):
        registry.track(tmp_path, uri=server)
    with pytest.raises(UsageError, match="an alias belongs"):
        registry.track(finished, uri=server, alias="champion")
