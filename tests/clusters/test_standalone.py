"""The standalone cluster shares object stores alone and runs a second attempt.

That it loses executors, and no row with them, a whole run tells (``test_run_apart``).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.clusters import sparks
from tests.clusters.buckets import S3, Azure
from tests.clusters.daemons import ROOT
from tests.clusters.parts import ABFS, S3A
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


def test_two_hosts_share_the_object_stores_alone(
    fresh: Standalone, s3_server: S3, azure_server: Azure, tmp_path: Path
):
    """What they write to S3 they read and write to Azure, and read again."""
    (tmp_path / "mine").touch()
    bucket = s3_server.bucket()
    settings = {**s3_server.settings, **azure_server.settings}
    jars = {Path(jar).name: jar for jar in f"{S3A.listed()},{ABFS.listed()}".split(",")}
    settings["spark.jars"] = ",".join(jars.values())  # one of both: a name is taken once
    addresses = [f"s3a://{bucket}/probe", f"{azure_server.container()}/probe"]
    printed = sparks.probe(
        fresh.client(settings),
        tmp_path,
        addresses=addresses,
        path=str(tmp_path / "mine"),
        sleep=1,
    )
    rows = sparks.rows(printed)
    assert [row["part"] for row in rows] == [0, 1, 2, 3]
    assert {row["address"] for row in rows} == set(HOSTS)
    assert {row["home"] for row in rows} == {str(ROOT / "src" / "clinloom" / "__init__.py")}
    assert {row["sees"] for row in rows} == {not fresh.apart}
    kept = s3_server.client.list_objects_v2(Bucket=bucket)["Contents"]
    assert any(each["Key"].endswith(".parquet") for each in kept)


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
