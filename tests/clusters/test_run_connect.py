"""A study over Spark Connect: a client without Java, a server apart, and S3 between them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.clusters.buckets import S3
from tests.clusters.connect import Connect
from tests.hospital import MODELS, STUDY, clinloom, sets, small

from clinloom import files

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.connect]


def test_a_client_without_java_runs_the_study_that_a_local_run_is(
    connect: Connect, s3_server: S3, tmp_path: Path, monkeypatch
):
    clinloom("synth", tmp_path / "h", "--patients", 400, "--seed", 5, "--no-images")
    study = STUDY.with_name("synthetic_records.yaml")
    changes = [change for change in small(tmp_path / "h") if "cxr" not in change]
    clinloom("run", study, "--out", tmp_path / "local", *sets(changes))
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    bucket = files.address(f"s3://{s3_server.bucket('connect')}")
    for entry in files.listed(tmp_path / "h" / "fhir"):
        files.write(bucket / "fhir" / entry.address.name, files.read(entry.address))
    out = bucket / "out"
    changes = [f"sources.ehr.path={bucket}/fhir", MODELS, "split.folds=2", "evaluate.bootstrap=50"]
    env = {**connect.client(), **s3_server.env, "CLINLOOM_SPARK_MASTER": "", "JAVA_HOME": ""}
    done = clinloom("run", study, "--on", "connect", "--out", out, *sets(changes), **env)
    assert str(out) in done.stdout
    found = json.loads(files.read(out / "metrics.json"))
    assert found == json.loads((tmp_path / "local" / "metrics.json").read_text())
