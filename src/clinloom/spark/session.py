"""The Spark session and its settings: the only place that makes one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from clinloom.errors import ClinloomError, MissingDependency

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.shuffle.partitions": "8",
}
LANES = 8  # tasks of the driver side by side, at most
Answer = TypeVar("Answer")
QUIET = Path(__file__).parent / "log4j2.properties"
LOCAL = {
    "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={QUIET.as_uri()}",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.codegen.cache.maxEntries": "1000",
    "spark.sql.autoBroadcastJoinThreshold": "64m",
}


def session(*, master: str | None = None, settings: dict[str, str] | None = None) -> SparkSession:
    """The active session with Clinloom's settings, else a new local one on the loopback address.

    On a platform the session is there already. ``CLINLOOM_SPARK_MASTER`` or ``master`` names
    another; ``CLINLOOM_SPARK_REMOTE`` a Spark Connect server. Raises MissingDependency without
    Java.
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    remote = os.environ.get("CLINLOOM_SPARK_REMOTE")
    active = SparkSession.getActiveSession()
    try:
        if active is not None:
            made = active
        elif remote:
            made = SparkSession.builder.remote(remote).getOrCreate()
        else:
            made = _local(master or os.environ.get("CLINLOOM_SPARK_MASTER"), settings or {})
    except Exception as error:
        if "JAVA" in str(error).upper():
            raise MissingDependency(
                "Spark found no Java", mend="install Java 17, then ask `clinloom doctor`"
            ) from None
        raise
    for key, value in SETTINGS.items():
        try:
            made.conf.set(key, value)
        except Exception as error:  # a platform may forbid a setting
            raise ClinloomError(f"Spark refuses the setting {key}", mend=str(error)[:200]) from None
    return made


def _local(master: str | None, settings: dict[str, str]) -> SparkSession:
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder: Any = SparkSession.builder.appName("clinloom").master(master or "local[*]")
    memory = os.environ.get("CLINLOOM_SPARK_MEMORY", "3g")
    for key, value in {**LOCAL, **SETTINGS, "spark.driver.memory": memory, **settings}.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    return made


def cores(spark: SparkSession) -> int:
    """How many tasks run at once, as far as the session tells (Spark Connect: this machine's)."""
    context = getattr(spark, "_sc", None)
    return context.defaultParallelism if context is not None else os.cpu_count() or 2


def at_once(spark: SparkSession, tasks: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Run small tasks side by side, each in a thread of its own; their answers in order.

    A fit on few rows keeps one core busy and often waits for the driver.
    """
    from pyspark import __version__, inheritable_thread_target

    old = __version__.startswith("3.")  # Spark 4 asks for the session, to hand its tags on
    todo = list(map(inheritable_thread_target if old else inheritable_thread_target(spark), tasks))
    with ThreadPoolExecutor(min(len(todo), cores(spark), LANES)) as pool:
        return list(pool.map(lambda task: task(), todo))


def to_arrow(frame: DataFrame) -> Any:
    """A small, bounded frame as an Arrow table, on Spark 3.5 as on 4.x."""
    import pyarrow as pa

    if hasattr(frame, "toArrow"):
        return frame.toArrow()
    batches = frame._collect_as_arrow() if hasattr(frame, "_collect_as_arrow") else []
    if batches:
        return pa.Table.from_batches(batches)
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(frame.schema).empty_table()
