"""What this machine has and lacks for Clinloom: each finding with what mends it."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from clinloom.checks import Check
from clinloom.errors import ClinloomError

if TYPE_CHECKING:
    from clinloom.platforms import Site

__all__ = ["Check", "asked", "checks", "healthy", "storage_checks"]

PYTHON = (3, 11)
SPARK = ((3, 5), (4, 4))  # from, and the first that is not supported
DISK_GB, MEMORY_GB = 5, 4
BLAS = "libblas.so.3"  # what pyspark.ml opens (dev.ludovic.netlib) unless told otherwise

# The libraries of each extra, by distribution; a test holds this against pyproject.toml.
EXTRAS = {
    "images": ("pillow",),
    "dicom": (
        "imagecodecs",
        "pydicom",
        "pyjpegls",
        "pylibjpeg",
        "pylibjpeg-openjpeg",
        "pylibjpeg-rle",
        "python-gdcm",
    ),
    "connect": ("googleapis-common-protos", "grpcio", "grpcio-status", "zstandard"),
    "s3": ("s3fs",),
    "azure": ("adlfs",),
    "gcs": ("gcsfs",),
    "hdfs": ("hdfs-native",),
    "yarn": ("venv-pack",),
    "xgboost": ("xgboost-cpu",),
}


def checks(
    *, spark: bool = False, folder: Path | None = None, site: Site | None = None
) -> list[Check]:
    """Every check of :func:`asked`, when the last has answered."""
    return list(asked(spark=spark, folder=folder, site=site))


def asked(
    *, spark: bool = False, folder: Path | None = None, site: Site | None = None
) -> Iterator[Check]:
    """Every check in reading order, each when it has answered.

    ``folder`` is where results will be written (default: here).
    ``spark`` also starts a local session on the loopback address and counts ten rows with it, which
    takes some seconds; without it, nothing starts but ``java -version``. With ``site`` the platform
    is asked instead, and ``spark`` starts a session of it.
    """
    if site is not None:
        yield from _site(site, spark=spark)
        return
    wanted: list[tuple[str, Callable[[], Iterable[Check] | Check], bool]] = [
        ("Python", _python, True),
        ("PySpark", _pyspark, True),
        ("Java", _java, True),
        ("libraries", _libraries, True),
        ("extras", _extras, False),
        ("free disk", lambda: _disk(folder), True),
        ("memory", _memory, False),
        ("temporary files", _temporary, True),
        ("BLAS", _blas, False),
    ]
    if spark:
        wanted.append(("Spark session", _session, True))
    for name, ask, required in wanted:
        yield from _told(name, ask, required)


def _site(site: Site, *, spark: bool) -> Iterator[Check]:
    """What a platform lacks, and with ``spark`` what a session of it finds in its workers."""
    try:
        platform = site.platform
    except ClinloomError as error:
        yield Check(site.name, False, error.message, error.mend or "")
        return
    sound = True
    for check in _told(site.name, lambda: platform.checks(site.options), True):
        sound = sound and (check.ok or not check.required)
        yield check
    if not (spark and sound):
        return
    try:
        made = platform.session(site.options)
    except Exception as error:  # whatever Spark, py4j or the system raises is the finding
        yield _refused(error, "see Spark's own messages above")
        return
    try:
        from clinloom.platforms import worker_checks

        yield Check("Spark session", True, f"Spark {made.version}")
        yield from _told("Python workers", lambda: worker_checks(made), True)
    finally:
        made.stop()


def storage_checks(address: str) -> Iterator[Check]:
    """What a storage lets this process do: a probe is written, swapped, listed and removed.

    Raises UsageError where the address is none.
    """
    from clinloom.files.probe import checks as tried

    yield from tried(address)


def _told(name: str, ask: Callable[[], Iterable[Check] | Check], required: bool) -> Iterator[Check]:
    """What a check finds; one that breaks is a finding itself, and the others are still asked."""
    try:
        found = ask()
        yield from (found,) if isinstance(found, Check) else found
    except Exception as error:  # a broken machine is what this is for
        mend = "mend what else is wrong, or ask again in another folder"
        yield Check(name, False, f"cannot be told: {type(error).__name__}", mend, required)


def healthy(found: Iterable[Check]) -> bool:
    """Whether every required check passed."""
    return all(check.ok or not check.required for check in found)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, int]:
    """``'4.2.1'`` as (4, 2)."""
    major, minor, *_ = [*re.findall(r"\d+", version), "0", "0"]
    return int(major), int(minor)


def _python() -> Check:
    detail = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", sys.version_info[:2] >= PYTHON, detail, "install Python 3.11 or newer")


def _pyspark() -> Check:
    version = _version("pyspark")
    ok = version is not None and SPARK[0] <= _numbers(version) < SPARK[1]
    return Check("PySpark", ok, version or "not installed", 'pip install "pyspark>=3.5,<4.4"')


def java_program() -> str | None:
    """The Java that Spark will start: JAVA_HOME's where that is set, else the one on the path."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")


def _run(*command: str) -> tuple[int, str]:
    """Exit status and the output of a program that should answer at once."""
    try:
        done = subprocess.run(  # noqa: S603 - the program is java, found as Spark finds it
            command, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, type(error).__name__
    return done.returncode, done.stdout + done.stderr


def java_release(output: str) -> int | None:
    """The release that ``java -version`` names: 8 for "1.8.0_392", 17 for "17.0.15"."""
    found = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(found[1]) if found else None


def _java() -> Check:
    mend = "install Java 17 (Debian: apt-get install openjdk-17-jre-headless)"
    program = java_program()
    if program is None:
        home = os.environ.get("JAVA_HOME")
        detail = "JAVA_HOME holds no bin/java" if home else "not on the path"
        return Check("Java", False, detail, f"{mend}, or set JAVA_HOME" if not home else mend)
    release = java_release(_run(program, "-version")[1])
    if release is None:
        return Check("Java", False, "does not tell its version", mend)
    if _numbers(_version("pyspark") or "4.0") < (4, 0):
        return Check("Java", release >= 8, f"release {release}", mend)
    if release < 17:
        return Check("Java", False, f"release {release}; Spark 4 needs 17", mend)
    status, _ = _run(program, "--add-modules", "jdk.incubator.vector", "-version")
    detail = f"release {release}" + (", without the module jdk.incubator.vector" if status else "")
    return Check("Java", status == 0, detail, f"{mend}: this one was cut down")


def _libraries() -> Iterator[Check]:
    for name in ("pyarrow", "numpy", "pandas", "pydantic"):
        version = _version(name)
        ok, mend = version is not None, f"pip install {name}"
        if name == "pandas" and version and _numbers(version) >= (3, 0):
            ok, mend = False, 'pip install "pandas<3": PySpark does not read pandas 3 yet'
        yield Check(name, ok, version or "not installed", mend)


def _extras() -> Iterator[Check]:
    for extra, libraries in EXTRAS.items():
        lacking = [name for name in libraries if _version(name) is None]
        detail = f"without {', '.join(lacking)}" if lacking else "complete"
        mend = f'pip install "clinloom[{extra}]"'
        yield Check(f"extra {extra}", not lacking, detail, mend, required=False)


def _disk(folder: Path | None) -> Check:
    folder = (folder or Path.cwd()).absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free / 1e9
    return Check("free disk", free >= DISK_GB, f"{free:.0f} GB", f"free {DISK_GB} GB or more")


def _memory() -> Check:
    total = _memory_bytes() / 1e9
    if total == 0:
        return Check("memory", True, "unknown on this system", required=False)
    mend = f"Spark wants {MEMORY_GB} GB; set CLINLOOM_SPARK_MEMORY to less than this machine has"
    return Check("memory", total >= MEMORY_GB, f"{total:.0f} GB", mend, required=False)


def _memory_bytes() -> int:
    """The machine's memory, or the container's limit where that is less; 0 where unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _temporary() -> Check:
    mend = "set TMPDIR to a folder that you may write (Spark's own work: SPARK_LOCAL_DIRS)"
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"clinloom")
            file.flush()
    except OSError as error:
        return Check("temporary files", False, type(error).__name__, mend)
    return Check("temporary files", True, tempfile.gettempdir())


def _blas() -> Check:
    """The library that Spark's own learning opens, by the name it opens it by.

    ``ctypes.util.find_library`` would start a compiler, which wants a place for temporary files.
    """
    mend = "models learn faster with one (Debian: apt-get install libopenblas0)"
    try:
        found = ctypes.CDLL(BLAS)
    except OSError:
        return Check("BLAS", False, "none", mend, required=False)
    kind = "OpenBLAS" if hasattr(found, "openblas_get_config") else "not OpenBLAS"
    return Check("BLAS", True, f"{BLAS}, {kind}", mend, required=False)


def _refused(error: Exception, mend: str) -> Check:
    """What keeps a session from starting."""
    if isinstance(error, ClinloomError):
        return Check("Spark session", False, error.message, error.mend or mend)
    return Check("Spark session", False, type(error).__name__, mend)


def _session() -> Check:
    """A session that starts, hands a batch to a Python worker and, if it is ours, stops again."""
    mend = "see Spark's own messages above; the usual causes are Java and a proxy on loopback"
    try:
        from pyspark.sql import SparkSession

        from clinloom.spark import faults, workers
        from clinloom.spark.session import session

        shared = SparkSession.getActiveSession() is not None
        started = session(master="local[1]")
        try:
            with faults.told():
                rows = workers.by_rows(started.range(10), lambda rows: rows, "id long").count()
        finally:
            if not shared:
                started.stop()
    except Exception as error:  # whatever Spark, py4j or the system raises is the finding
        return _refused(error, mend)
    return Check("Spark session", rows == 10, f"{rows} rows through a worker", mend)
