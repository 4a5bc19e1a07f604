"""A YARN cluster with HDFS, by the spark-submit of the pyspark that is installed here.

In cluster mode the driver runs on the cluster, too: every place is an address that each node can
open, and this environment travels as archives. HADOOP_CONF_DIR names the cluster. Ctrl-C kills the
application through the ResourceManager, as ``yarn application -kill`` does.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from clinloom.errors import UsageError
from clinloom.files import Address
from clinloom.platforms import SUBMITTED, Check, Outcome, Task, _archive, _child, _hadoop
from clinloom.platforms._application import LINGER, LOG4J, Application
from clinloom.spark.session import THREADS
from clinloom.study import Model, StudyPath

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REQUIRES: str | None = "yarn"
Size = Annotated[str, Field(pattern=r"^\d+[kmgt]$", examples=["2g"])]
DRIVER_JAVA = "spark.driver.extraJavaOptions"
UNPACKED = "./environment/bin/python"
HADOOP_THERE = "./__spark_conf__/__hadoop_conf__"  # where Spark lays this client's configuration
FILES = "spark.yarn.dist.files"  # in the folder of each container, where its owner alone reads them
DRIVER = f"""import contextlib, io, json, sys, time
from clinloom.cli import main

with contextlib.redirect_stdout(io.StringIO()) as told:
    code = main()
print(json.dumps({{"exit": code, "result": told.getvalue()}}), file=sys.stderr, flush=True)
time.sleep({LINGER})
raise SystemExit(code)
"""  # on the cluster, where both streams end in one log


class Options(Model):
    """How an application on YARN is cut, and who it is."""

    mode: Literal["cluster", "client"] = Field(
        default="cluster", description="where the driver runs: on the cluster, or here"
    )
    queue: str | None = Field(default=None, description="YARN's queue; none: the cluster's default")
    executors: int = Field(default=2, ge=1, description="how many executors")
    cores: int = Field(default=2, ge=1, description="tasks at once of each executor")
    memory: Size = Field(default="4g", description="of each executor's JVM")
    overhead: Size = Field(
        default="2g", description="beside each executor's JVM: its Python workers'"
    )
    driver_memory: Size = Field(default="2g", description="of the driver's JVM")
    principal: str | None = Field(default=None, description="Kerberos: who it is, with `keytab`")
    keytab: StudyPath | None = Field(default=None, description="the file of the principal's keys")
    archive: StudyPath | None = Field(
        default=None,
        description="a packed environment with Clinloom, an address or a local file; none: this"
        " environment is packed and kept",
    )
    python: str | None = Field(
        default=None, description="the Python with Clinloom of every node, in place of an archive"
    )
    shared: tuple[str, ...] = Field(
        default=(), description="local folders that every node mounts at the same place"
    )
    conf: dict[str, str] = Field(default={}, description="more of Spark's settings, by name")

    @model_validator(mode="after")
    def _whole(self) -> Options:
        if (self.principal is None) != (self.keytab is None):
            raise ValueError("`principal` and `keytab` go together")
        if self.archive and self.python:
            raise ValueError("`archive` or `python`, not both")
        return self


def session(options: Options) -> SparkSession:
    """A session whose driver is this process and whose executors are YARN's."""
    from clinloom.spark import session as spark

    hadoop = _hadoop.here()
    folder = Path(tempfile.mkdtemp(prefix="clinloom-"))  # what it holds travels with the session
    settings, python = _settings(options, folder, lambda text: None)
    os.environ.update({**_hadoop.environment(hadoop.folder), "PYSPARK_PYTHON": python})
    return spark.session(master="yarn", remote="", settings=settings)


def submit(task: Task, options: Options, *, note: Callable[[str], None]) -> Outcome:
    """Bring the command to the cluster and follow it: states, progress, exit code, result."""
    hadoop = _hadoop.here()
    if options.mode == "cluster":
        _refuse_local(task, options)
    _refuse_nobody(hadoop, options)
    with tempfile.TemporaryDirectory(prefix="clinloom-") as name:
        folder = Path(name)
        settings, python = _settings(options, folder, note)
        words = ["--master", "yarn", "--name", f"clinloom {task.command[0]}"]
        words += [w for key, value in settings.items() for w in ("--conf", f"{key}={value}")]
        hadoops = _hadoop.environment(hadoop.folder)
        if options.mode == "client":
            own = options.conf.get(DRIVER_JAVA, "")
            return _child.clinloom(task, {**hadoops, **_client(words, python, own)})
        _child.laid(task, folder)
        (folder / "driver.py").write_text(DRIVER)
        if task.files:
            words += ["--files", ",".join(str(folder / name) for name in task.files)]
        env = _child.environment(hadoops)
        own = env.get("SPARK_SUBMIT_OPTS", "")  # a krb5.conf of its own, perhaps
        env["SPARK_SUBMIT_OPTS"] = f"{own} -Dlog4j2.configurationFile={LOG4J.as_uri()}".strip()
        command = [str(_hadoop.home() / "bin" / "spark-submit"), *words, "driver.py", *task.command]
        command += () if "--json" in task.command else ("--json",)
        application = Application(hadoop, note=note)
        code = application.follow(command, env=env, cwd=name)
    report = task.report if code == 0 else None
    return Outcome(code, report, False, result=application.result, fault=application.fault)


def _client(words: list[str], python: str, own: str) -> dict[str, str]:
    """The variables by which a driver on this machine starts its JVM, with its ``own`` options.

    ``spark-submit`` itself would hand on one stream of both, its driver's results and progress.
    """
    java = f"{own} -Dlog4j2.configurationFile={_quiet()}".strip()
    words = [*words, "--driver-java-options", java]
    submitted = shlex.join([*words, "pyspark-shell"])
    pythons = {"PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": sys.executable}
    return {**pythons, "PYSPARK_SUBMIT_ARGS": submitted}


def checks(options: Options) -> Iterator[Check]:
    """Configuration, ResourceManager, queue, NameNode, staging folder, archive and ticket."""
    from clinloom.platforms import _yarn_checks

    yield from _yarn_checks.checks(options)


def _refuse_local(task: Task, options: Options) -> None:
    """Raise UsageError with every place that a node would look for on a disk of its own."""
    shared = tuple(folder.rstrip("/") + "/" for folder in options.shared)
    local = {key: place for key, place in task.places.items() if place.local}
    wrong = [f"{k}: {p}" for k, p in local.items() if not f"{p}/".startswith(shared or ("\0",))]
    if wrong:
        raise UsageError(
            "on YARN the driver and the workers do not see this machine's disk:\n  "
            + "\n  ".join(wrong),
            mend="give addresses (hdfs:, s3:, …), or name the folders that every node mounts at"
            " the same place in platform.yarn.shared",
        )


def _refuse_nobody(hadoop: _hadoop.Hadoop, options: Options) -> None:
    """Raise UsageError without a ticket, for which a client asks again for a quarter of an hour."""
    from clinloom.platforms import _yarn_checks

    if "HADOOP_TOKEN_FILE_LOCATION" in os.environ:
        return
    for check in _yarn_checks.ticket(hadoop, options):
        if check.required and not check.ok:
            raise UsageError(f"the cluster asks for Kerberos: {check.detail}", mend=check.mend)


def _settings(
    options: Options, folder: Path, note: Callable[[str], None]
) -> tuple[dict[str, str], str]:
    """Spark's settings of the application, and the Python of its workers."""
    made = {
        "spark.submit.deployMode": options.mode,
        "spark.executor.instances": str(options.executors),
        "spark.executor.cores": str(options.cores),
        "spark.executor.memory": options.memory,
        "spark.executor.memoryOverhead": options.overhead,
        "spark.driver.memory": options.driver_memory,
        "spark.yarn.maxAppAttempts": "1",  # a run goes on by itself when it is started again
        "spark.ui.showConsoleProgress": "false",
    }
    if options.queue:
        made["spark.yarn.queue"] = options.queue
    if options.principal:
        made |= {
            "spark.kerberos.principal": options.principal,
            "spark.kerberos.keytab": str(options.keytab),
        }
    there = {SUBMITTED: "1", "HADOOP_CONF_DIR": HADOOP_THERE, **THREADS}
    conf = options.conf
    if options.keytab and _hadoop.here().encrypts:
        # Its clients of HDFS show the server of keys a ticket alone. Spark brings the keytab to the
        # driver, and takes no name twice. A link, so that no copy of it is left here.
        keytab = Path(options.keytab).resolve()
        own = folder / f"own-{keytab.name}"
        own.symlink_to(keytab)
        conf = {**conf, FILES: ",".join(filter(None, [own.as_uri(), conf.get(FILES)]))}
        there |= {"KRB5_CLIENT_KTNAME": own.name, "KRB5CCNAME": "FILE:tickets"}
    if options.python:
        python = options.python
    else:
        python = UNPACKED
        archives, path = _archives(options, folder, note)
        made["spark.yarn.dist.archives"] = archives
        there["PYTHONPATH"] = path
    there["PYSPARK_PYTHON"] = python
    for kind in ("spark.yarn.appMasterEnv", "spark.executorEnv"):
        made |= {f"{kind}.{name}": value for name, value in there.items()}
    made["spark.yarn.appMasterEnv.PYSPARK_DRIVER_PYTHON"] = python
    made["spark.pyspark.python"] = python
    made["spark.pyspark.driver.python"] = python if options.mode == "cluster" else sys.executable
    return {**made, **conf}, python


def _archives(options: Options, folder: Path, note: Callable[[str], None]) -> tuple[str, str]:
    """The archives that executors unpack, and the path of Clinloom in them."""
    if options.archive:
        return f"{Address(options.archive).uri}#environment", "."
    packed = _archive.environment(note)
    source = _archive.source(folder)
    return f"{packed.as_uri()}#environment,{source.as_uri()}#source", "./source"


def _quiet() -> str:
    from clinloom.spark.session import QUIET_URI

    return QUIET_URI
