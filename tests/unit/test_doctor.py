"""The doctor tells what is missing, and starts nothing that it need not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError

from clinloom import cli, doctor

ROOT = Path(__file__).parents[2]


def finding(name: str, **options) -> doctor.Check:
    return next(check for check in doctor.checks(**options) if check.name == name)


def java(folder: Path, *, says: str, vector: bool = True) -> Path:
    """A stand-in for Java that names its version and has the vector module, or has not."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    refuse = "" if vector else 'case "$*" in *add-modules*) exit 1;; esac\n'
    program.write_text(f"#!/bin/sh\n{refuse}echo 'openjdk version \"{says}\" 2025' >&2\n")
    program.chmod(0o755)
    return folder


def test_every_check_says_what_was_found_and_what_mends_it():
    found = doctor.checks()
    assert all(check.name and check.detail for check in found)
    assert all(check.mend for check in found if not check.ok)
    assert len({check.name for check in found}) == len(found)


@pytest.mark.core
def test_this_machine_is_healthy():
    failed = [check for check in doctor.checks() if check.required and not check.ok]
    assert not failed
    assert doctor.healthy(doctor.checks())


def test_without_spark_no_session_and_no_import_of_pyspark():
    code = "import sys, clinloom.doctor as d; d.checks(); sys.exit('pyspark' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


@pytest.mark.core
def test_the_session_check_leaves_a_running_session_alone(spark):
    assert finding("Spark session", spark=True).ok
    assert spark.range(3).count() == 3


@pytest.mark.parametrize(
    ("output", "release"),
    [
        ('java version "1.8.0_392"', 8),
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('Picked up JAVA_TOOL_OPTIONS\nopenjdk version "21" 2023-09-19', 21),
        ("not java", None),
    ],
)
def test_java_release(output: str, release: int | None):
    assert doctor.java_release(output) == release


@pytest.mark.parametrize(
    ("spark", "says", "vector", "ok"),
    [
        ("4.2.1", "17.0.15", True, True),
        ("4.2.1", "17.0.15", False, False),
        ("4.2.1", "11.0.2", True, False),
        ("3.5.9", "11.0.2", False, True),
        ("3.5.9", "1.8.0_392", False, True),
        ("3.5.9", "1.7.0", False, False),
    ],
)
def test_java_for_each_spark(tmp_path, monkeypatch, spark, says, vector, ok):
    monkeypatch.setenv("JAVA_HOME", str(java(tmp_path / "jdk", says=says, vector=vector)))
    monkeypatch.setattr(doctor, "_version", lambda name: spark)
    assert finding("Java").ok is ok


def test_no_java(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = finding("Java")
    assert not check.ok and check.required and "openjdk-17-jre-headless" in check.mend


def test_an_empty_java_home_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "JAVA_HOME" in finding("Java").detail


@pytest.mark.parametrize(
    ("version", "ok"), [("3.4.4", False), ("3.5.9", True), ("4.3.0", True), ("4.4.0", False)]
)
def test_supported_pyspark(monkeypatch, version: str, ok: bool):
    monkeypatch.setattr(doctor, "_version", lambda name: version)
    assert finding("PySpark").ok is ok


def test_pandas_3_is_refused(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "3.0.1")
    assert not finding("pandas").ok
    assert finding("pyarrow").ok


def test_a_missing_extra_names_its_libraries_and_is_not_required(monkeypatch):
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "pyjpegls" else known(n))
    check = finding("extra dicom")
    assert not check.ok and not check.required
    assert "pyjpegls" in check.detail and "clinloom[dicom]" in check.mend


def test_a_folder_that_is_not_there_yet_is_measured_where_it_would_be(tmp_path):
    assert finding("free disk", folder=tmp_path / "not" / "yet").detail.endswith("GB")


def test_an_unwritable_place_for_temporary_files(monkeypatch):
    def refuse(**_):
        raise PermissionError

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    check = finding("temporary files")
    assert not check.ok and "TMPDIR" in check.mend


def command_after(loss: str, *, cwd: Path) -> dict[str, dict]:
    """What ``clinloom doctor`` finds in a process of its own that runs ``loss`` first."""
    code = f"import sys, resource, os; {loss}; from clinloom.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "doctor", "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {check["name"]: check for check in json.loads(done.stdout)}
    assert list(found) == [check.name for check in doctor.checks()]
    return found


def test_the_command_answers_where_no_file_can_be_written(tmp_path):
    # No file may hold a byte, root's neither: a full disk and a read-only folder end like this.
    found = command_after("resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))", cwd=tmp_path)
    assert not found["temporary files"]["ok"] and "TMPDIR" in found["temporary files"]["mend"]


def test_the_command_answers_in_a_folder_that_is_gone(tmp_path):
    found = command_after("os.rmdir(os.getcwd())", cwd=tmp_path)
    assert not found["free disk"]["ok"] and "FileNotFoundError" in found["free disk"]["detail"]


def test_an_unforeseen_error_is_told_where_its_trace_cannot_be_kept(monkeypatch):
    def refuse(*_, **__):
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    told = cli._unexpected(RuntimeError("somebody's name"))
    assert "RuntimeError" in told and "no trace" in told and "somebody" not in told


@pytest.mark.parametrize(
    ("check", "name", "required"),
    [
        ("_python", "Python", True),
        ("_pyspark", "PySpark", True),
        ("_java", "Java", True),
        ("_libraries", "libraries", True),
        ("_extras", "extras", False),
        ("_disk", "free disk", True),
        ("_memory", "memory", False),
        ("_temporary", "temporary files", True),
        ("_blas", "BLAS", False),
        ("_session", "Spark session", True),
    ],
)
def test_a_check_that_breaks_is_a_finding(monkeypatch, check: str, name: str, required: bool):
    def breaks(*_):
        raise RuntimeError("/home/of/somebody")

    for other in ("_session", check):  # no test needs a session here
        monkeypatch.setattr(doctor, other, breaks)
    broken = finding(name, spark=True)
    assert not broken.ok and broken.mend and broken.required is required
    assert "RuntimeError" in broken.detail and "somebody" not in broken.detail + broken.mend


def test_blas_is_told_without_a_program_or_a_file(monkeypatch):
    """A compiler is nobody's business here, and asking one would take a temporary file."""

    def refuse(*_, **__):
        raise AssertionError("a program was started or a file was made")

    monkeypatch.setattr(doctor.subprocess, "Popen", refuse)
    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    assert doctor._blas().name == "BLAS"


@pytest.mark.core
def test_blas_is_the_one_that_spark_finds(spark):
    native = spark._jvm.dev.ludovic.netlib.blas.NativeBLAS
    try:
        native.getInstance()
        opened = True
    except Py4JJavaError:
        opened = False
    assert finding("BLAS").ok is opened


def test_the_extras_are_those_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {
        extra: {re.split(r"[<>=\[]", line)[0] for line in lines}
        for extra, lines in project["optional-dependencies"].items()
        if extra in doctor.EXTRAS
    }
    assert declared == {extra: set(names) for extra, names in doctor.EXTRAS.items()}
