"""A Spark Connect server in a process of its own, and a client's environment without Java."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.clusters import parts, sparks
from tests.clusters.apart import apart
from tests.clusters.daemons import ROOT, Daemons, free_ports, listens, own_environment, started

SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"
JAVA_PROGRAMS = ("java", "javac", "jar", "jshell", "keytool")


@dataclass(frozen=True)
class Connect:
    """A running server, whose Python workers import the tree under test."""

    daemons: Daemons
    address: str  # sc://127.0.0.1:PORT
    apart: bool  # whether the server sees a /tmp of its own and no file of the tests

    def client(self) -> dict[str, str]:
        """The environment of a client: no Java on its path, no SPARK_HOME, the server's address."""
        env = own_environment(
            PATH=str(_programs_without_java(self.daemons.folder)),
            PYTHONPATH=sparks.TREE,
            SPARK_REMOTE=self.address,
            CLINLOOM_SPARK_REMOTE=self.address,
        )
        env.pop("JAVA_HOME", None)
        return env


def connect(
    conf: Callable[[], Mapping[str, str]] = dict, *, env: Mapping[str, str] | None = None
) -> AbstractContextManager[Connect]:
    """Start a server with ``local[2]`` and this ``conf`` and ``env``. Raises Missing, NotReady."""

    def start(daemons: Daemons) -> Connect:
        (port,) = free_ports(1)
        settings = {
            "spark.master": "local[2]",
            "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": str(port),
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
        }
        one = {"OPENBLAS_NUM_THREADS": "1"}  # as in every JVM that Clinloom starts itself
        own = sparks.client(daemons.folder, {**settings, **conf()}, env={**one, **(env or {})})
        tmp = daemons.folder / "server"
        tmp.mkdir()
        prefix = apart(tmp, seen=[ROOT, parts.cache(), daemons.folder])
        submit = [sparks.SUBMIT, "--properties-file", own["SPARK_SETTINGS"]]
        command = [*prefix, *submit, "--class", SERVER, "spark-internal"]
        daemons.start("connect", command, env=own)
        daemons.await_ready(lambda: listens(port), what="the Spark Connect server")
        return Connect(daemons, f"sc://127.0.0.1:{port}", bool(prefix))

    return started("connect", start)


def _programs_without_java(folder: Path) -> Path:
    """A folder with this machine's programs but Java's."""
    made = folder / "bin"
    if not made.is_dir():
        made.mkdir()
        for each in os.environ["PATH"].split(os.pathsep):
            for program in Path(each).glob("*") if each else ():
                if program.name not in JAVA_PROGRAMS and not (made / program.name).exists():
                    (made / program.name).symlink_to(program)
        assert shutil.which("java", path=str(made)) is None
    return made
