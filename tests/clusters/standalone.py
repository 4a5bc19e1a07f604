"""A Spark standalone master and two workers that share nothing: other hosts, folders and /tmp."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests import classes
from tests.clusters import parts, sparks
from tests.clusters.apart import TMP, apart
from tests.clusters.daemons import (
    JAVA_OPTIONS,
    ROOT,
    Daemons,
    answer,
    free_ports,
    own_environment,
    started,
)

MASTER = "org.apache.spark.deploy.master.Master"
WORKER = "org.apache.spark.deploy.worker.Worker"
EXECUTOR = "CoarseGrainedExecutorBackend"
# Two hosts: Spark never runs a second attempt of a task on the host of the first.
HOSTS = ("127.0.0.1", "127.0.0.2")
MEMORY = "1300m"


@dataclass(frozen=True)
class Standalone:
    """A running master with its workers, one a host, one core each."""

    daemons: Daemons
    address: str  # spark://127.0.0.1:PORT
    page: str  # http://127.0.0.1:PORT of the master
    apart: bool  # whether workers see a /tmp of their own and no file of the tests

    def client(self, conf: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a client of this cluster (``sparks.client``)."""
        settings = {
            "spark.master": self.address,
            "spark.executor.memory": "900m",
            "spark.executor.cores": "1",
            "spark.executorEnv.PYTHONPATH": sparks.TREE,
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
        }
        env = {"CLINLOOM_SPARK_MASTER": self.address}
        return sparks.client(self.daemons.folder, {**settings, **(conf or {})}, env=env)

    def folder(self, host: str) -> Path:
        """What the worker on ``host`` has as its /tmp, as the tests see it."""
        return self.daemons.folder / host

    def executors(self, host: str | None = None) -> list[int]:
        """The process ids of the executors' JVMs, to be killed; of all hosts or of one."""
        hosts = HOSTS if host is None else (host,)
        below = [pid for each in hosts for pid in self.daemons.below(f"worker-{each}")]
        return [pid for pid in below if _runs(pid, EXECUTOR)]

    def restart(self, host: str) -> None:
        """End the worker on ``host`` with its executors and start it anew, its folder emptied."""
        self.daemons.stop(f"worker-{host}")
        shutil.rmtree(self.folder(host))
        _start_worker(self.daemons, host, self.address)
        _await_workers(self.daemons, self.page)


def standalone() -> AbstractContextManager[Standalone]:
    """Start a master and two workers. Raises Missing, NotReady."""
    return started("standalone", _start)


def _start(daemons: Daemons) -> Standalone:
    port, page_port = free_ports(2)
    address, page = f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{page_port}"
    where = ["--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page_port)]
    daemons.start("master", [*_java(), MASTER, *where], env=_environment("127.0.0.1"))
    for host in HOSTS:
        _start_worker(daemons, host, address)
    _await_workers(daemons, page)
    return Standalone(daemons, address, page, bool(apart(daemons.folder)))


def _start_worker(daemons: Daemons, host: str, address: str) -> None:
    own = daemons.folder / host
    own.mkdir(exist_ok=True)
    prefix = apart(own, seen=[ROOT, parts.cache()])
    tmp = TMP if prefix else own
    env = _environment(host, SPARK_LOCAL_DIRS=str(tmp / "local"), TMPDIR=str(tmp))
    where = ["--host", host, "--webui-port", "0", "--work-dir", str(tmp / "work")]
    size = ["--cores", "1", "--memory", MEMORY]
    options = [f"-Djava.io.tmpdir={tmp}", "-Dspark.worker.cleanup.enabled=false"]
    command = [*prefix, *_java(*options), WORKER, *where, *size, address]
    daemons.start(f"worker-{host}", command, env=env)


def _await_workers(daemons: Daemons, page: str) -> None:
    def ready() -> bool:
        alive = [each for each in answer(f"{page}/json/")["workers"] if each["state"] == "ALIVE"]
        return len(alive) == len(HOSTS)

    daemons.await_ready(ready, what="the standalone master")


def _java(*options: str) -> list[str]:
    quick = [*JAVA_OPTIONS, *classes.options().split(), "--add-modules=jdk.incubator.vector"]
    return [parts.java(), "-Xmx256m", *quick, *options, "-cp", classes.PATH]


def _environment(host: str, **more: str) -> dict[str, str]:
    return own_environment(
        SPARK_HOME=str(sparks.HOME),
        SPARK_SCALA_VERSION=sparks.SCALA,  # else a worker looks for a build of Spark's source
        SPARK_LOCAL_IP=host,
        SPARK_LOCAL_HOSTNAME=host,
        PYSPARK_PYTHON=sys.executable,
        PYTHONPATH=sparks.TREE,
        **more,
    )


def _runs(pid: int, main: str) -> bool:
    """Whether a process is a JVM with this main class."""
    try:
        told = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.path.basename(told[0]) == b"java" and any(main.encode() in part for part in told)
