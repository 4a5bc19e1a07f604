"""A study over Spark Connect: a client without Java, a server apart, and S3 between them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.clusters.buckets import S3
from tests.clusters.connect import Connect
from tests.hospital import STUDY, clinloom, sets, small

from clinloom import files

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.connect]


def test_a_client_without_java_runs_the_study_that_a_local_run_is(
    connect: Connect, s3_server: S3, hospital: Path, local: Path, monkeypatch
):
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    bucket = files.address(f"s3://{s3_server.bucket('connect')}")
    for file in hospital.rglob("*"):
        if file.is_file():
            files.write(bucket / str(file.relative_to(hospital)), file.read_bytes())
    out = bucket / "out"
    env = {**connect.client(), **s3_server.env, "CLINLOOM_SPARK_MASTER": "", "JAVA_HOME": ""}
    command = ["run", STUDY, "--on", "connect", "--out", out, "--json", *sets(small(bucket))]
    done = clinloom(*command, **env)
    assert json.loads(done.stdout)["report"] == f"{out}/report.html"  # the result alone
    found = json.loads(files.read(out / "metrics.json"))
    assert found == json.loads((local / "metrics.json").read_bytes())
