"""The standalone cluster shares nothing, loses an executor and runs a second attempt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.clusters import sparks
from tests.clusters.buckets import S3, Azure
from tests.clusters.daemons import ROOT
from tests.clusters.standalone import HOSTS, Standalone

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def attempts(cluster: Standalone) -> list[tuple[str, str]]:
    """The tasks that began, each as host and ``PART-ATTEMPT``."""
    return sorted(
        (host, file.name.removeprefix("seen-"))
        for host in HOSTS
        for file in cluster.folder(host).glob("work/*/*/seen-*")
    )


@pytest.fixture
def fresh(standalone: Standalone) -> Standalone:
    """The cluster without a trace of earlier jobs."""
    for host in HOSTS:
        for file in standalone.folder(host).glob("work/*/*/seen-*"):
            file.unlink()
    return standalone


def test_two_hosts_share_the_object_store_alone(fresh: Standalone, s3_server: S3, tmp_path: Path):
    (tmp_path / "mine").touch()
    bucket = s3_server.bucket()
    env = fresh.client(s3_server.settings)
    printed = sparks.probe(
        env, tmp_path, address=f"s3a://{bucket}/probe", path=str(tmp_path / "mine"), sleep=1
    )
    rows = sparks.rows(printed)
    assert [row["part"] for row in rows] == [0, 1, 2, 3]
    assert {row["address"] for row in rows} == set(HOSTS)
    assert {row["home"] for row in rows} == {str(ROOT / "src" / "clinloom" / "__init__.py")}
    assert {row["sees"] for row in rows} == {not fresh.apart}
    kept = s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]
    assert any(each["Key"].endswith(".parquet") for each in kept)


def test_azure_keeps_what_two_hosts_write(fresh: Standalone, azure_server: Azure, tmp_path: Path):
    address = f"{azure_server.container()}/probe"
    printed = sparks.probe(fresh.client(azure_server.settings), tmp_path, address=address)
    assert [row["part"] for row in sparks.rows(printed)] == [0, 1, 2, 3]


def test_a_killed_executor_costs_no_row(fresh: Standalone, tmp_path: Path):
    job = sparks.probing(fresh.client(), tmp_path, tasks=40, sleep=0.2)
    while len(attempts(fresh)) < 8 and job.poll() is None:
        time.sleep(0.05)
    killed = fresh.executors(HOSTS[1])
    assert len(killed) == 1
    os.kill(killed[0], signal.SIGKILL)
    printed, complaint = job.communicate(timeout=120)
    assert job.returncode == 0, complaint[-3000:]
    assert [row["part"] for row in sparks.rows(printed)] == list(range(40))
    assert "exited with code 137" in complaint
    assert any(name.endswith("-1") for _, name in attempts(fresh))


def test_a_slow_task_is_run_again_on_the_other_host(fresh: Standalone, tmp_path: Path):
    speculation = {
        "spark.speculation": "true",
        "spark.speculation.interval": "100ms",
        "spark.speculation.quantile": "0.5",
    }
    printed = sparks.probe(
        fresh.client(speculation), tmp_path, tasks=8, sleep=0.1, slow=5, slow_sleep=120
    )
    fifth = [(host, name) for host, name in attempts(fresh) if name.startswith("5-")]
    assert sorted(name for _, name in fifth) == ["5-0", "5-1"]
    assert {host for host, _ in fifth} == set(HOSTS)
    assert sparks.rows(printed)[5]["attempt"] == 1


def test_a_worker_that_returns_has_an_empty_disk(fresh: Standalone):
    kept = fresh.folder(HOSTS[1]) / "left"
    kept.touch()
    fresh.restart(HOSTS[1])
    assert not kept.exists()


WAITING = """import os
from clinloom.spark import waiting
from clinloom.spark.session import session

def tell(text):
    print(text, flush=True)
    os._exit(0)

waiting.PATIENCE, waiting.EVERY = 1.0, 0.2
spark = session()
with waiting.watched(spark, note=tell):
    spark.range(10).count()
"""


def test_a_run_that_no_executor_takes_says_so(standalone: Standalone):
    env = standalone.client({"spark.executor.memory": "4g"})  # more than a worker has
    command = [sys.executable, "-c", WAITING]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    assert "waits for executors" in line and "one of 4g, 1 cores" in line
