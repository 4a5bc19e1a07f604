"""The Spark session and its settings: the only place that makes one."""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clinloom import files
from clinloom.errors import ClinloomError, MissingDependency
from clinloom.spark import faults

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.shuffle.partitions": "8",
    # What a run joins grows with its patients; a broadcast table would lie whole in the driver.
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.sql.adaptive.autoBroadcastJoinThreshold": "-1",
    "spark.sql.inMemoryColumnarStorage.compressed": "false",  # blocks are compressed already
}
LANES = 8  # tasks of the driver side by side, at most
Answer = TypeVar("Answer")
QUIET_URI = (Path(__file__).parent / "log4j2.properties").as_uri()
# Tasks keep the cores busy already; a BLAS with threads of its own in each only gets in their way,
# and sums up in an order that the number of cores decides, so that a model's last digits would be
# a machine's own.
THREADS = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
STARTED = {  # for a session that is started here
    **{f"spark.executorEnv.{name}": count for name, count in THREADS.items()},
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.codegen.cache.maxEntries": "1000",
}
ALONE = {  # and on this machine alone
    "spark.shuffle.compress": "false",  # slices are packed already, and no network is spared
    "spark.python.daemon.module": "clinloom.spark.daemon",  # found: workers here have this Python
    "spark.driver.extraJavaOptions": f"-XX:+UseParallelGC -Dlog4j2.configurationFile={QUIET_URI}",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
}


def session(
    *,
    master: str | None = None,
    remote: str | None = None,
    token: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> SparkSession:
    """The active session, the one that ``spark-submit`` asks for, else a new local one.

    ``CLINLOOM_SPARK_MASTER`` or ``master`` names another master; ``CLINLOOM_SPARK_REMOTE`` or
    ``remote`` a Spark Connect server (an empty one: none), ``CLINLOOM_SPARK_TOKEN`` or ``token``
    refers (``env:``, ``file:``) to its bearer token. What the caller or the platform has set stays;
    :func:`settled` sets what a run needs while it runs. Raises MissingDependency without Java.
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if remote is None:
        remote = os.environ.get("CLINLOOM_SPARK_REMOTE")
    token = token or os.environ.get("CLINLOOM_SPARK_TOKEN")
    active = SparkSession.getActiveSession()
    try:
        if active is not None:
            return active
        if remote:
            if token:  # resolved here: no file, variable or log holds it
                remote = f"{remote.rstrip('/')}/;token={files.named(token, where='platform.token')}"
            return SparkSession.builder.remote(remote).getOrCreate()
        return _started(master or os.environ.get("CLINLOOM_SPARK_MASTER"), settings or {})
    except Exception as error:
        raise _refused(error) from None


def remote(spark: SparkSession | None = None) -> bool:
    """Whether the session that is given, else the one that would be made, is a client of Connect.

    An active session of this process is the one that would be made.
    """
    if spark is None and (pyspark := sys.modules.get("pyspark.sql")):
        spark = pyspark.SparkSession.getActiveSession()
    if spark is None:
        return bool(os.environ.get("CLINLOOM_SPARK_REMOTE"))
    return type(spark).__module__.startswith("pyspark.sql.connect")


def _refused(error: Exception) -> Exception:
    """What a person mends of a session that does not start; else the error itself."""
    ours = faults.known(str(error))
    if isinstance(ours, Exception):
        return ours
    if re.search("JAVA_(HOME|GATEWAY)", str(error)):
        mend = "install Java 17, then ask `clinloom doctor`"
        return MissingDependency("Spark found no Java", mend=mend)
    if said := re.search(r"^: ([\w.]+: )?(.+)", str(error), re.MULTILINE):  # the JVM's own words
        mend = "`clinloom doctor --on NAME` tells what is missing there"
        return ClinloomError(f"Spark does not start: {said[2][:300]}", mend=mend)
    return error


def _started(master: str | None, settings: Mapping[str, str]) -> SparkSession:
    from pyspark.sql import SparkSession

    wanted = {**STARTED, **settings}
    for name, count in THREADS.items():  # the driver's JVM takes part in a fit
        os.environ.setdefault(name, count)
    master = master or (None if _asked() else "local[*]")
    if master is not None and master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        memory = os.environ.get("CLINLOOM_SPARK_MEMORY", "3g")
        wanted = {**ALONE, "spark.driver.memory": memory, **wanted}
    builder: Any = SparkSession.builder.appName("clinloom")
    if master is not None:
        builder = builder.master(_patient(master))
    for key, value in wanted.items():
        builder = builder.config(key, value)
    made: SparkSession = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    return made


def _asked() -> bool:
    """Whether ``spark-submit``, its arguments or its defaults name a master already."""
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        return True
    words = os.environ.get("PYSPARK_SUBMIT_ARGS", "").replace("=", " ").split()
    if "--master" in words or "--remote" in words or "spark.master" in words:
        return True
    folders = [os.environ.get("SPARK_CONF_DIR"), os.environ.get("SPARK_HOME", "") + "/conf"]
    for folder in filter(None, folders):
        file = Path(folder) / "spark-defaults.conf"
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            return any(line.split()[:1] == ["spark.master"] for line in lines)
    return False


def _patient(master: str) -> str:
    """A local master whose tasks are tried again, as a cluster's are: ``local[*]`` tries once."""
    cores, closed, rest = master.removeprefix("local").partition("]")
    if master == "local":
        return "local[1,4]"
    return f"local{cores},4]" if closed and not rest and "," not in cores else master


def note_of(problem: Exception) -> str:
    """The first line of what Spark said."""
    return str(problem).strip().splitlines()[0][:160] if str(problem).strip() else "refused"


@contextmanager
def settled(
    spark: SparkSession,
    wanted: Mapping[str, str] = SETTINGS,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """The settings that a run needs, while it runs; afterwards the caller's are the caller's again.

    A setting that the platform refuses is passed over with a note.
    """
    before: dict[str, str | None] = {}
    for key, value in wanted.items():
        try:
            held = spark.conf.get(key, None)
            spark.conf.set(key, value)
        except Exception as error:  # a platform may forbid a setting
            note(f"Spark keeps its own {key}: {note_of(error)}")
            continue
        before[key] = held
    try:
        yield
    finally:
        for key, held in before.items():
            if held is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, held)


def setting(spark: SparkSession, key: str, value: str) -> Any:
    """One setting, while a query runs."""
    return settled(spark, {key: value})


_cores: dict[int, int] = {}


def cores(spark: SparkSession) -> int:
    """How many tasks the cluster runs at once, over Spark Connect too."""
    context = getattr(spark, "_sc", None)
    if context is not None:
        conf = context.getConf()
        asked = int(conf.get("spark.executor.instances", "0")) * int(
            conf.get("spark.executor.cores", "1")
        )
        return max(int(context.defaultParallelism), asked)
    if id(spark) not in _cores:  # a range lies in as many partitions as the cluster has cores
        from pyspark.sql import functions as F

        parts = spark.range(0, 1 << 20).select(F.spark_partition_id().alias("p"))
        _cores[id(spark)] = parts.distinct().count()
    return _cores[id(spark)]


def at_once(spark: SparkSession, tasks: Iterable[Callable[[], Answer]]) -> Iterator[Answer]:
    """Run small tasks side by side, each in a thread of its own; their answers in order.

    A fit on few rows keeps one core busy and often waits for the driver. So many tasks as run side
    by side are begun ahead of the answer that is asked for: no more answers wait.
    """
    from pyspark import __version__, inheritable_thread_target

    old = __version__.startswith("3.")  # Spark 4 asks for the session, to hand its tags on
    target = inheritable_thread_target if old else inheritable_thread_target(spark)
    lanes = min(cores(spark), LANES)
    with ThreadPoolExecutor(lanes) as pool:
        begun: deque[Future[Answer]] = deque()
        for task in tasks:
            begun.append(pool.submit(target(task)))
            if len(begun) > lanes:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
