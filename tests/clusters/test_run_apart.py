"""A whole run where driver and workers share nothing but an object store, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.clusters import sparks, typed
from tests.clusters.buckets import S3
from tests.clusters.standalone import Standalone
from tests.hospital import STUDY, clinloom, sets, small

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
TABLES = ("events", "index", "dataset")
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "100ms",
    "spark.speculation.quantile": "0.5",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.minTaskRuntime": "100ms",
}


@dataclass(frozen=True)
class Bucket:
    """The hospital's data in a bucket, and a cluster that reaches nothing else."""

    server: S3
    name: str
    cluster: Standalone

    def address(self, path: str, *, scheme: str = "s3") -> str:
        """An address in the bucket."""
        return f"{scheme}://{self.name}/{path}"

    def keys(self, prefix: str) -> list[str]:
        """The objects below it, without the prefix."""
        pages = self.server.client.get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.name, Prefix=prefix)
        listed = (each["Key"] for page in found for each in page.get("Contents", ()))
        return [key.removeprefix(prefix) for key in listed]

    def read(self, key: str) -> bytes:
        """An object."""
        found: bytes = self.server.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return found

    def run(self, out: str, conf: Mapping[str, str] | None = None) -> Running:
        """The study's run on the cluster, from the bucket to this address."""
        env = self.cluster.client({**self.server.settings, **(conf or {})})
        overrides = sets(small(self.address("data")))
        return Running(["run", str(STUDY), "--out", out, *overrides], env | self.server.env)


class Running:
    """The command line at work in a process of its own: its stages as they end."""

    def __init__(self, arguments: list[str], env: Mapping[str, str]) -> None:
        self.stages: list[dict[str, Any]] = []
        self.said = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clinloom", *arguments, "--json"],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failed: object) -> None:
        if self._process.poll() is None:
            self.kill()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said += line
            if line.startswith('{"stage"'):
                self.stages.append(json.loads(line))

    def ended(self) -> list[str]:
        """The stages that ended so far."""
        return [stage["stage"] for stage in self.stages]

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Until it is so; the run must still be at work then."""
        while not true():
            assert self._process.poll() is None, self.said[-3000:]
            time.sleep(0.05)  # each look asks the server, which shares this machine

    def kill(self) -> None:
        """End it as a power cut would: the driver and its JVM."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()

    def finish(self) -> list[dict[str, Any]]:
        """Its stages, when it ended well."""
        status = self._process.wait(300)
        self._reader.join()
        assert status == 0 and "Traceback" not in self.said, self.said[-3000:]
        return self.stages


@pytest.fixture(scope="module")
def bucket(hospital: Path, s3_server: S3, standalone: Standalone) -> Bucket:
    """The same hospital in a bucket."""
    made = Bucket(s3_server, s3_server.bucket("hospital"), standalone)
    client = s3_server.client
    for file in hospital.rglob("*"):
        if file.is_file():
            client.upload_file(str(file), made.name, f"data/{file.relative_to(hospital)}")
    return made


def rows_of(manifest: Mapping[str, Any], table: str, read: Callable[[str], Any]) -> pa.Table:
    """A committed table, bucket after bucket."""
    (parts,) = [
        stage["tables"][table]["parts"]
        for stage in manifest["stages"].values()
        if table in stage["tables"]
    ]
    found = [pq.read_table(read(f"tables/{table}/{part[0]}")) for part in parts]
    plain = pa.schema(
        [
            f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f
            for f in found[0].schema
        ]
    )
    return pa.concat_tables([part.cast(plain) for part in found])


def same(one: pa.Table, other: pa.Table) -> bool:
    """Whether all rows are alike in the same order; a missing number equals a missing number."""
    if one.schema != other.schema or one.num_rows != other.num_rows:
        return False
    for left, right in zip(one.columns, other.columns, strict=True):
        if pa.types.is_list(left.type):
            if pc.list_value_length(left) != pc.list_value_length(right):
                return False
            left, right = pc.list_flatten(left), pc.list_flatten(right)
        if left != right and not (
            pa.types.is_floating(left.type)
            and left.is_null() == right.is_null()
            and np.array_equal(left.to_numpy(), right.to_numpy(), equal_nan=True)
        ):
            return False
    return True


def assert_same(bucket: Bucket, out: str, local: Path) -> None:
    """The run in the bucket and the local one: the same tables, row for row, and metrics."""
    manifest = json.loads(bucket.read(f"{out}/manifest.json"))
    wanted = json.loads((local / "manifest.json").read_bytes())
    for table in TABLES:
        made = rows_of(manifest, table, lambda at: pa.BufferReader(bucket.read(f"{out}/{at}")))
        assert same(made, rows_of(wanted, table, lambda at: local / at)), table
    assert json.loads(bucket.read(f"{out}/metrics.json")) == json.loads(
        (local / "metrics.json").read_bytes()
    )


def orphans(bucket: Bucket, out: str) -> list[str]:
    """What lies in the tables and models of an output and no commit names."""
    manifest = json.loads(bucket.read(f"{out}/manifest.json"))
    named = {
        f"{name.replace('.', '/') if '.' in name else f'tables/{name}'}/{part[0]}"
        for stage in manifest["stages"].values()
        for name, table in stage["tables"].items()
        for part in table["parts"]
    }
    return [
        key
        for key in bucket.keys(f"{out}/")
        if key.startswith(("tables/", "models/", ".scratch/"))
        and not any(key == name or key.startswith(f"{name}/") for name in named)
    ]


def kill_executor(bucket: Bucket, running: Running, *, after: str | None, wrote: str) -> None:
    """End an executor's JVM when this stage has ended and the next has written something there."""
    running.wait_for(lambda: after is None or after in running.ended())
    running.wait_for(lambda: bool(bucket.keys(wrote)) and bool(bucket.cluster.executors()))
    os.kill(bucket.cluster.executors()[-1], signal.SIGKILL)


def test_whatever_dies_costs_no_row_and_no_whole_stage(bucket: Bucket, local: Path):
    """Executors in the middle of acquisition, features and training; after features the driver."""
    with bucket.run(bucket.address("killed"), SPECULATION) as running:
        for after, stage in ((None, "acquire"), ("cohort", "features")):
            table = {"acquire": "acquired", "features": "dataset"}[stage]
            kill_executor(bucket, running, after=after, wrote=f"killed/tables/{table}/")
            assert stage not in running.ended()
        running.wait_for(lambda: "features" in running.ended())
        running.kill()
        done = running.ended()
    assert "train/decision_tree" not in done
    with bucket.run(bucket.address("killed"), SPECULATION) as running:
        before = "killed/models/"  # a tree that is learned writes nothing until it stands
        kill_executor(bucket, running, after="train/logistic_regression", wrote=before)
        assert "train/decision_tree" not in running.ended()
        stages = running.finish()
    assert [stage["stage"] for stage in stages if stage["reused"]] == done
    assert_same(bucket, "killed", local)
    left = orphans(bucket, "killed")
    swept = clinloom("sweep", bucket.address("killed"), "--json", **bucket.server.env)
    assert json.loads(swept.stdout)["files"] == len(left)
    assert orphans(bucket, "killed") == []
    assert_same(bucket, "killed", local)
    again = submitted(bucket, bucket.address("killed", scheme="s3a"))  # the same place
    assert len(again) == len(stages) and all(stage["reused"] for stage in again)


def submitted(bucket: Bucket, out: str) -> list[dict[str, Any]]:
    """The stages of a run by spark-submit, as the page of clusters shows it."""
    settings = {**bucket.server.settings, "spark.cores.max": "1"}  # nothing is left to be done
    env = bucket.cluster.client(settings) | bucket.server.env
    del env["CLINLOOM_SPARK_MASTER"], env["PYSPARK_SUBMIT_ARGS"]
    env["SPARK_CONF_DIR"] = str(Path(env["SPARK_SETTINGS"]).parent)  # as a site has it
    named = {
        "spark://host:7077": bucket.cluster.address,
        "PYTHONPATH=…": f"PYTHONPATH={sparks.TREE}",
        "study.yaml": str(STUDY),
        "s3://bucket/out": out,
    }
    command = typed.shown("A standalone master", "spark-submit")
    more = ["--json", *sets(small(bucket.address("data")))]
    done = typed.typed(command, named, more, env)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f'"report": "{bucket.address("killed")}/report.html"' in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"stage"')]
    return [json.loads(line) for line in lines]
