"""The driver stays small: it may hold 512 MB, its data are twenty times that."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

LIMIT = 512 << 20  # bytes of the driver: its JVM's heap, and the anonymous memory of its Python
PATIENTS, EVENTS = 60_000, 100
NOTES, TEXT = 25, 7140  # a patient's notes, of so many bytes each: 11 GB in memory
STUDY = """
name: large
sources:
  vitals:
    type: table
    path: {folder}
    include: "vitals-*.parquet"
    patient: patient
    identifiers: person
    time: {{column: time}}
    events: [{{code: "V//{{code}}", value: value}}]
  notes:
    type: table
    path: {folder}
    include: "notes-*.parquet"
    patient: patient
    identifiers: person
    time: {{column: time}}
    events: [{{code: NOTE, text: note}}]
  stays:
    type: table
    path: {folder}
    include: "stays.parquet"
    patient: patient
    identifiers: person
    time: {{column: out}}
    events: [{{code: "OUTCOME//{{died}}"}}, {{code: ADMIT, time: {{column: start}}}}]
cohort:
  index: {{at: ADMIT, plus: 24h}}
  outcome: {{codes: OUTCOME//1, within: 30d}}
features: {{measurements: {{codes: "V//*", windows: [24h], statistics: [last, mean]}}}}
models: {{logistic_regression: {{penalty: [0.1], elastic_net: [0.0], iterations: 5}}}}
split: {{folds: 2}}
evaluate: {{bootstrap: 20, modalities: false}}
audit:
  allow:
    - {{check: strong_feature, of: "V//*", because: "The vitals are made from the outcome."}}
"""


HOUR, DAY = 3_600_000_000, 86_400_000_000


def moments(random: np.random.Generator, ids: np.ndarray) -> pa.Array:
    """A time within each patient's first day."""
    return pa.array(random.integers(0, 23 * HOUR, len(ids)) + ids * HOUR, pa.timestamp("us", "UTC"))


def large(folder: Path) -> int:
    """Write the hospital; the bytes of its rows in memory, twenty times what a driver may hold."""
    random = np.random.default_rng(4)
    said = [bytes(random.integers(97, 123, 70, np.uint8)).decode() for _ in range(400)]
    notes = pa.array([one * (TEXT // 70) for one in said])  # a disk holds them easily
    size = 0
    for part in range(12):
        patients = np.arange(part, PATIENTS, 12)
        ids = np.repeat(patients, EVENTS)
        vitals = {
            "patient": pa.array(ids).cast(pa.string()).dictionary_encode(),
            "time": moments(random, ids),
            "code": pa.array(random.integers(0, 20, len(ids))).cast(pa.string()),
            "value": random.normal(size=len(ids)) + (ids % 7 == 0),
        }
        ids = np.repeat(patients, NOTES)
        written = {
            "patient": pa.array(ids).cast(pa.string()).dictionary_encode(),
            "time": moments(random, ids),
            "note": pa.DictionaryArray.from_arrays(random.integers(0, 400, len(ids)), notes),
        }
        size += len(ids) * TEXT
        for name, rows in (("vitals", pa.table(vitals)), ("notes", pa.table(written))):
            size += rows.nbytes
            pq.write_table(rows, folder / f"{name}-{part}.parquet", row_group_size=1 << 16)
    ids = np.arange(PATIENTS)
    stays = {
        "patient": pa.array(ids).cast(pa.string()),
        "start": pa.array(ids * HOUR, pa.timestamp("us", "UTC")),
        "out": pa.array(ids * HOUR + 5 * DAY, pa.timestamp("us", "UTC")),
        "died": pa.array((ids % 7 == 0).astype(int)).cast(pa.string()),
    }
    pq.write_table(pa.table(stays), folder / "stays.parquet")
    return size


def test_a_driver_of_512_mb_runs_a_study_of_twenty_times_that(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    assert large(folder) > 20 * LIMIT
    (tmp_path / "study.yaml").write_text(STUDY.format(folder=folder))
    command = [sys.executable, "-m", "clinloom", "run", str(tmp_path / "study.yaml")]
    env = {
        **os.environ,
        "CLINLOOM_SPARK_MASTER": "local-cluster[2,1,1024]",
        "CLINLOOM_SPARK_MEMORY": f"{LIMIT >> 20}m",
    }
    peak = 0
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out"), "--json"],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as run:
        while run.poll() is None:
            peak = max(peak, held(run.pid))
            time.sleep(0.2)
        told = run.stderr.read() if run.stderr else ""
    assert run.returncode == 0, told[-2000:]
    assert peak < LIMIT
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["models"]["logistic_regression"]["test"]["auroc"]["value"] > 0.9


def held(process: int) -> int:
    """A process's anonymous memory, in bytes."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+)", status)
    return int(found[1]) * 1024 if found else 0
