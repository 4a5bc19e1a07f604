"""HDFS and YARN: four real daemons on the loopback address, and what a client needs of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import yaml
from tests.clusters import parts, sparks
from tests.clusters.apart import apart
from tests.clusters.daemons import (
    JAVA_OPTIONS,
    ROOT,
    Daemons,
    answer,
    free_ports,
    started,
)

NAME_NODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
DATA_NODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
RESOURCE_MANAGER = "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager"
NODE_MANAGER = "org.apache.hadoop.yarn.server.nodemanager.NodeManager"
NODE_MEMORY = 6144  # MB: one application master and two executors of a Python worker each
DATA_NODES = 2
PORTS = 8
USER = "clinloom"
HERE = {"python": sys.executable}  # in place of an archive


@dataclass
class Hadoop:
    """A running HDFS, and YARN on it."""

    daemons: Daemons
    address: str  # hdfs://127.0.0.1:PORT
    manager: str  # http://127.0.0.1:PORT of the ResourceManager
    conf_dir: Path

    def put(self, local: Path, path: str) -> str:
        """Copy a file or folder to the path in HDFS; answers with its address."""
        if (parent := os.path.dirname(path)) != "/":
            self.shell("-mkdir", "-p", parent)
        self.shell("-put", "-f", str(local), path)
        return self.address + path

    def get(self, path: str, local: Path) -> Path:
        """Copy a file or folder of HDFS to a local place that is not there yet."""
        self.shell("-get", path, str(local))
        return local

    def shell(self, *args: str) -> str:
        """What ``hdfs dfs ARGS`` answers. Raises CalledProcessError with its complaint."""
        main = [*java(self.daemons.folder), "org.apache.hadoop.fs.FsShell", *args]
        run = subprocess.run(main, capture_output=True, text=True, env=_environment(), check=True)
        return run.stdout

    def applications(self) -> list[dict[str, str]]:
        """YARN's applications, the newest first, each with ``id``, ``finalStatus``, ``name``."""
        told = answer(f"{self.manager}/ws/v1/cluster/apps")["apps"] or {"app": []}
        return sorted(told["app"], key=lambda each: str(each["id"]), reverse=True)


def hadoop() -> AbstractContextManager[Hadoop]:
    """Start HDFS and YARN. Raises Missing, NotReady."""
    return started("hadoop", _start)


def _start(daemons: Daemons) -> Hadoop:
    conf_dir, ports = daemons.folder / "conf", free_ports(PORTS)
    write_configuration(daemons.folder, conf_dir, ports)
    name_http, manager_http = ports[1], ports[2]
    command = java(daemons.folder)
    start_hdfs(daemons, command)
    start_yarn(daemons, command)
    await_hdfs(daemons, name_http)
    manager = f"http://127.0.0.1:{manager_http}"
    await_yarn(daemons, manager)
    return Hadoop(daemons, f"hdfs://127.0.0.1:{ports[0]}", manager, conf_dir)


def start_hdfs(daemons: Daemons, command: list[str]) -> None:
    """Format and start a NameNode and two DataNodes."""
    formatting = [*command, NAME_NODE, "-format", "-nonInteractive", "-force"]
    done = subprocess.run(formatting, capture_output=True, text=True, env=_environment())
    if done.returncode:
        raise RuntimeError(f"the NameNode could not be formatted: {done.stderr[-2000:]}")
    daemons.start("namenode", [*command, NAME_NODE], env=_environment())
    for number in range(DATA_NODES):
        place = f"dfs.datanode.data.dir={(daemons.folder / f'data-{number}').as_uri()}"
        daemons.start(f"datanode-{number}", [*command, DATA_NODE, "-D", place], env=_environment())


def start_yarn(daemons: Daemons, command: list[str]) -> None:
    """Start a ResourceManager, and a NodeManager that sees none of the tests' files."""
    daemons.start("resourcemanager", [*command, RESOURCE_MANAGER])
    tmp = daemons.folder / "node"
    tmp.mkdir()
    prefix = apart(tmp, seen=[ROOT, parts.cache(), daemons.folder])
    daemons.start("nodemanager", [*prefix, *command, NODE_MANAGER])


def await_hdfs(daemons: Daemons, name_http: int) -> None:
    """Return when the DataNodes serve and the NameNode has left safe mode."""
    url = f"http://127.0.0.1:{name_http}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"

    def ready() -> bool:
        state = answer(url)["beans"][0]
        return state["NumLiveDataNodes"] >= DATA_NODES and state["FSState"] == "Operational"

    daemons.await_ready(ready, what="HDFS")


def await_yarn(daemons: Daemons, manager: str) -> None:
    """Return when the NodeManager has joined the ResourceManager at this web address."""
    url = f"{manager}/ws/v1/cluster/metrics"
    daemons.await_ready(lambda: answer(url)["clusterMetrics"]["activeNodes"] >= 1, what="YARN")


def write_configuration(
    folder: Path, conf_dir: Path, ports: list[int], *, more: Mapping[str, str] | None = None
) -> None:
    """The cluster's files of settings; ``more`` are other values of them."""
    name, name_http, manager_http, *managers = ports
    for page in ("hdfs", "datanode", "static"):  # the jar lacks the web pages it looks for
        (conf_dir / "webapps" / page).mkdir(parents=True)
    core = {
        "fs.defaultFS": f"hdfs://127.0.0.1:{name}",
        "hadoop.tmp.dir": str(folder / "tmp"),
        "hadoop.service.shutdown.timeout": "5s",
    }
    hdfs = {
        # Two copies: then a file may be closed before its DataNodes have reported. Else a client
        # asks a moment too early and again half a second later, for each small file of a run. Who
        # reads such a file at once may find its last block missing, and must look again.
        "dfs.replication": "2",
        "dfs.namenode.file.close.num-committed-allowed": "1",
        "dfs.permissions.superusergroup": "supergroup",
        "dfs.permissions.enabled": "false",
        "dfs.namenode.http-address": f"127.0.0.1:{name_http}",
        "dfs.namenode.safemode.extension": "0",
        "dfs.datanode.address": "127.0.0.1:0",
        "dfs.datanode.http.address": "127.0.0.1:0",
        "dfs.datanode.ipc.address": "127.0.0.1:0",
        "dfs.datanode.hostname": "localhost",
    }
    yarn = {
        "yarn.resourcemanager.hostname": "127.0.0.1",
        "yarn.resourcemanager.webapp.address": f"127.0.0.1:{manager_http}",
        "yarn.nodemanager.hostname": "localhost",
        "yarn.nodemanager.address": "127.0.0.1:0",
        "yarn.nodemanager.localizer.address": "127.0.0.1:0",
        "yarn.nodemanager.webapp.address": "127.0.0.1:0",
        "yarn.nodemanager.local-dirs": str(folder / "yarn-local"),
        "yarn.nodemanager.log-dirs": str(folder / "yarn-logs"),
        "yarn.nodemanager.resource.memory-mb": str(NODE_MEMORY),
        "yarn.nodemanager.resource.cpu-vcores": "4",
        "yarn.scheduler.minimum-allocation-mb": "256",
        "yarn.nodemanager.pmem-check-enabled": "false",
        "yarn.nodemanager.vmem-check-enabled": "false",
        "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "99.5",
        "yarn.resourcemanager.am.max-attempts": "1",
        "yarn.nodemanager.process-kill-wait.ms": "500",
        "yarn.nodemanager.sleep-delay-before-sigkill.ms": "200",
        # The default is one folder for every cluster of this machine.
        "yarn.node-attribute.fs-store.root-dir": (folder / "attributes").as_uri(),
    }
    addresses = ("address", "scheduler.address", "resource-tracker.address", "admin.address")
    for name_of, port in zip(addresses, managers, strict=False):
        yarn[f"yarn.resourcemanager.{name_of}"] = f"127.0.0.1:{port}"
    queue = "yarn.scheduler.capacity"
    capacity = {
        f"{queue}.root.queues": "default",
        f"{queue}.root.default.capacity": "100",
        f"{queue}.maximum-am-resource-percent": "0.9",
    }
    write_settings(conf_dir / "core-site.xml", {**core, **(more or {})})
    write_settings(conf_dir / "hdfs-site.xml", {**hdfs, **(more or {})})
    write_settings(conf_dir / "yarn-site.xml", {**yarn, **(more or {})})
    write_settings(conf_dir / "capacity-scheduler.xml", capacity)


def write_settings(file: Path, settings: Mapping[str, str]) -> None:
    """A file of Hadoop's settings."""
    lines: Iterable[str] = (
        f"<property><name>{key}</name><value>{escape(value)}</value></property>\n"
        for key, value in settings.items()
    )
    file.write_text(f"<configuration>\n{''.join(lines)}</configuration>\n")


def java(folder: Path, *options: str, memory: str = "256m") -> list[str]:
    """A JVM on the cluster's configuration and jars."""
    (folder / "tmp").mkdir(exist_ok=True)
    return [
        parts.java(),
        f"-Xmx{memory}",
        *JAVA_OPTIONS,
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Dhadoop.log.dir={folder / 'logs'}",
        *options,
        "-cp",
        f"{folder / 'conf'}:{parts.DAEMONS.class_path()}",
    ]


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HADOOP_")}
    return {**kept, "HADOOP_USER_NAME": USER}


def options(
    folder: Path, mode: str, *, java_options: str = "", env: Mapping[str, str] = {}, **more: object
) -> Path:
    """A file of the platform's options: the cores that the local run has, in containers, each with
    more of an environment."""
    node = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "localhost", **env}
    if "python" in more:  # the nodes' own, which finds the tree under test
        node["PYTHONPATH"] = sparks.TREE
    conf = {"spark.yarn.jars": f"local:{sparks.HOME}/jars/*"}  # else each job uploads all of them
    for jvm in ("driver", "executor", "yarn.am"):
        conf[f"spark.{jvm}.extraJavaOptions"] = f"{sparks.QUICK} {java_options}"
    for kind in ("spark.yarn.appMasterEnv", "spark.executorEnv"):
        conf |= {f"{kind}.{name}": value for name, value in node.items()}
    yarn = {"mode": mode, "executors": 1, "cores": 2, "memory": "700m", "overhead": "400m"}
    yarn |= {"driver_memory": "600m", "conf": conf, **more}
    file = folder / f"{mode}.yaml"
    file.write_text(yaml.safe_dump({"platform": {"yarn": yarn}}))
    return file
