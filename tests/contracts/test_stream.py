"""A stream that is killed at the worst moments loses nothing and repeats nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest
from tests.service import made

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door
from clinloom.errors import ClinloomError
from clinloom.run import api

# Ends itself, by a signal that nobody can catch, in a step's commit: before the manifest is
# replaced, when the step's file is written already, or after it, when Spark does not know yet.
KILLED = """
import os, signal, sys
from clinloom.run import api
from clinloom.store import Store
bundle, incoming, out, step, moment = sys.argv[1:]
commit = Store._commit
def killed(store, stage, key, *rest):
    if moment == "after":
        commit(store, stage, key, *rest)
    if key == f"version {step}":
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "before":
        commit(store, stage, key, *rest)
Store._commit = killed
api.stream(bundle, out=out, told=[incoming], once=True, most=1)
"""
PATIENTS = 12


@pytest.fixture(scope="module")
def laid(tmp_path_factory) -> tuple[Path, Path, list[dict]]:
    """A bundle, and a folder in which records of some patients lie in four files.

    Patient 1 has a second record of the same number, which the last file tells.
    """
    root = tmp_path_factory.mktemp("stream")
    resources = [e["resource"] for n in range(PATIENTS) for e in made.patient(n)["entry"]]
    twice = [resource for resource in resources if resource["id"].startswith("p1-o3")]
    twice = [r | {"id": f"x{r['id']}", "subject": {"reference": "Patient/a1"}} for r in twice]
    person = next(r for r in resources if r["id"] == "p1") | {"id": "a1"}
    lines = [json.dumps(resource) for resource in (*resources, *twice, *resources[::7])]
    Random(4).shuffle(lines)
    parts = [lines[number::4] for number in range(4)]
    parts[1].append("{broken")
    parts[3].append(json.dumps(person))
    (root / "in").mkdir()
    for number, part in enumerate(parts):
        file = root / "in" / f"{number}.ndjson"
        file.write_text("\n".join(part))
        os.utime(file, (1_700_000_000 + 60 * number,) * 2)  # Spark takes the oldest first
    return made.publish(root / "bundle"), root / "in", [*resources, *twice, person]


def told(out: Path) -> list[dict]:
    return [row for file in sorted(out.iterdir()) for row in pq.read_table(file).to_pylist()]


def counted(rows: list[dict]) -> list[tuple]:
    last = {(row["subject_id"], row["prediction_time"]): row for row in rows}
    kept = (row for row in last.values() if not row["withdrawn"])
    names = ("subject_id", "prediction_time", "predicted_boolean_probability")
    return sorted(tuple(row[name] for name in names) for row in kept)


def test_killed_in_two_commits_it_tells_what_a_batch_tells_and_each_thing_once(
    laid, tmp_path, spark
):
    bundle, incoming, resources = laid
    out = tmp_path / "out"
    for step, moment in ((2, "before"), (3, "after")):
        asked = [str(part) for part in (bundle, incoming, out, step, moment)]
        env = {**os.environ, "CLINLOOM_SPARK_MASTER": "local[2]"}
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *asked], env=env, capture_output=True, text=True
        )
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
        if moment == "before":
            unnamed = out / "predictions" / f"{step:012}.parquet"
            assert unnamed.exists()
            unnamed.write_bytes(b"what a killed step left is replaced")
    found = api.stream(bundle, out=out, told=[str(incoming)], once=True, most=1, spark=spark)
    assert found["steps"] == 1  # the fourth: what was committed is passed over
    rows = told(out / "predictions")
    loaded = Bundle.load(bundle)
    facts = Door(loaded).fhir([r for r in resources], several=True)
    clean = loaded.clean(facts.events, facts.refused)["events"]
    expected = loaded.risks(clean, loaded.moments(clean)["index"]).to_pylist()
    assert counted(rows) == counted([{**row, "withdrawn": False} for row in expected])
    assert len(expected) > PATIENTS / 2
    assert [row["version"] for row in rows] == sorted(row["version"] for row in rows)
    before: dict[tuple, tuple] = {}
    for row in rows:  # nothing is told twice
        key = row["subject_id"], row["prediction_time"]
        now = row["predicted_boolean_probability"], row["withdrawn"]
        assert before.get(key) != now
        before[key] = now
    refused = told(out / "rejected")
    assert [row["reason"] for row in refused].count("malformed_json") == 1
    again = api.stream(bundle, out=out, told=[str(incoming)], once=True, spark=spark)
    assert (again["steps"], again["rows"]) == (0, 0)
    (out / "checkpoint" / "spark" / "commits").rename(out / "commits")
    with pytest.raises(ClinloomError, match="not of one stream"):
        api.stream(bundle, out=out, told=[str(incoming)], once=True, spark=spark)
