"""Workers that lack something: the run ends with what, where and how to mend it, in a line."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from clinloom import files
from clinloom.errors import ClinloomError, MissingDependency, UsageError
from clinloom.spark import faults, session, workers

LACKING = """import sys

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Lacking())
"""


@pytest.fixture
def python(spark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Gives the session's workers another Python: none, or one without some modules."""

    def given(*names: str) -> Path:
        program = tmp_path / "python"
        if names:
            (tmp_path / "sitecustomize.py").write_text(LACKING.format(names=names))
            own = f'export PYTHONPATH="{tmp_path}:$PYTHONPATH"'
            program.write_text(f'#!/bin/sh\n{own}\nexec {sys.executable} "$@"\n')
            program.chmod(0o755)
        monkeypatch.setattr(spark.sparkContext, "pythonExec", str(program))
        return program

    return given


def read(rows: pa.Table, place: str) -> pa.Table:
    files.read(place)
    return rows


def fault(spark, place: str = __file__) -> ClinloomError:
    kernel = partial(read, place=place)
    with pytest.raises(ClinloomError) as caught, faults.told():
        workers.by_rows(spark.range(2), kernel, "id long").count()
    assert "\tat " not in str(caught.value) and str(caught.value).startswith("Spark's workers: ")
    assert caught.value.mend and len(str(caught.value).splitlines()) == 2
    return caught.value


def test_no_python(spark, python):
    program = python()
    found = fault(spark)
    assert isinstance(found, MissingDependency) and str(program) in found.message


def test_no_clinloom(spark, python):
    python("clinloom")
    assert "their Python lacks Clinloom" in str(fault(spark))


def test_no_pyspark(spark, python):
    python("pyspark")
    assert "their Python lacks the library pyspark" in str(fault(spark))


def test_no_library_of_a_storage(spark, python):
    python("s3fs")
    found = fault(spark, "s3://bucket/x")
    assert isinstance(found, MissingDependency) and "needs s3fs" in found.message
    assert "pip install 'clinloom[s3]', in the Python that they run" in (found.mend or "")


def test_no_credentials(spark, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HERE_ALONE", "canary")  # after the workers' JVM was started
    files.use({"s3": {"key": "env:HERE_ALONE", "secret": "env:HERE_ALONE"}})
    try:
        found = fault(spark, "s3://bucket/x")
    finally:
        files.use({})
    assert isinstance(found, UsageError) and "HERE_ALONE is not set" in found.message
    assert found.mend == "set it for them, too: spark.executorEnv.HERE_ALONE"


@pytest.mark.parametrize(
    "error",
    [
        MissingDependency("this storage needs s3fs", mend="pip install 'clinloom[s3]'"),
        UsageError("the environment variable KEY is not set", where="storage.s3.key"),
    ],
)
def test_what_a_worker_reports_of_itself_says_that_it_is_the_worker(error: ClinloomError):
    told = str(faults.raised(faults.lasting(error) or ""))
    assert told.startswith("Spark's workers: ") and error.message in told and "→ " in told


def test_what_may_not_be_opened_there_says_that_credentials_travel_not():
    with pytest.raises(ClinloomError) as caught, faults.told():
        raise faults.passing(PermissionError(13, "Permission denied", "s3://bucket/x"))
    assert caught.value.where == "s3://bucket/x" and "executorEnv" in (caught.value.mend or "")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "[PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.10 than that in"
            " driver: 3.11, PySpark cannot run",
            "another version than this one (3.10)",
        ),
        (
            "Python in worker has different version (3, 10) than that in driver 3.11, PySpark",
            "another version than this one (3, 10)",
        ),
        (
            "java.lang.IllegalArgumentException: Required executor memory (4096 MB), offHeap memory"
            " (0) MB, overhead (409 MB), and PySpark memory (0 MB) is above the max threshold (2048"
            " MB) of this cluster!",
            "an executor is larger than the 2048 MB",
        ),
        ("/usr/bin/python3: No module named pyspark", "lacks the library pyspark"),
    ],
)
def test_what_spark_says_elsewhere(said: str, told: str):
    found = faults.known(said)
    assert isinstance(found, ClinloomError) and told in str(found) and found.mend


JVM = "An error occurred while calling None.org.apache.spark.api.java.JavaSparkContext.\n: "


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("[JAVA_GATEWAY_EXITED] Java gateway process exited before sending its port", "no Java"),
        (
            f"{JVM}java.lang.IllegalArgumentException: Required executor memory (7168 MB), overhead"
            " (2048 MB) is above the max threshold (6144 MB) of this cluster!\n\tat org.apache.x",
            "an executor is larger than the 6144 MB",
        ),
        (
            f"{JVM}org.apache.hadoop.yarn.exceptions.YarnException: Failed to submit"
            " application_1_0001 to YARN: unknown queue: x\n\tat org.apache.x",
            "Spark does not start: Failed to submit application_1_0001 to YARN: unknown queue: x",
        ),
    ],
)
def test_why_a_session_does_not_start(monkeypatch: pytest.MonkeyPatch, said: str, told: str):
    from pyspark.sql import SparkSession

    def started(*args: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    monkeypatch.setattr(session, "_started", started)
    with pytest.raises(ClinloomError) as caught:
        session.session(remote="")
    assert told in str(caught.value) and caught.value.mend and "\tat" not in str(caught.value)


@pytest.mark.parametrize("error", [ZeroDivisionError("canary"), ImportError("No module named 'x'")])
def test_what_is_no_fault_of_workers_stays_what_it_is(error: Exception):
    with pytest.raises(type(error)), faults.told():
        raise error
