"""What all tests share: one Spark session, one hospital, one run on it, and the public data."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests import classes
from tests.hospital import STUDY, clinloom, places, sets, small

ROOT = Path(__file__).parent.parent
os.environ.setdefault("CLINLOOM_DATA", str(ROOT.parent / "shared" / "data"))
os.environ.setdefault("SPARK_SUBMIT_OPTS", classes.options())
# A run starts hundreds of Python processes; where nothing may be kept, each compiles Clinloom anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# How long an example takes to draw and to run is the machine's, not ours.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of the tests of one marker (``-m NAME``), only the files that name it are imported."""
    marker = config.option.markexpr
    if not marker.isidentifier() or not collection_path.name.startswith("test_"):
        return None
    return f"mark.{marker}" not in collection_path.read_text() or None


@pytest.fixture(scope="session")
def spark():
    """The session that every test shares: two cores, loopback, few partitions."""
    from clinloom.spark.session import session

    made = session(master="local[2]", settings={"spark.sql.shuffle.partitions": "2"})
    made.conf.set("spark.sql.shuffle.partitions", "2")
    return made


def shared(name: str, make: Callable[[Path], None], temporary: pytest.TempPathFactory) -> Path:
    """A folder that ``make`` fills, once a test run: its lanes, processes of their own, share
    what is in CLINLOOM_TEST_SHARED."""
    place = os.environ.get("CLINLOOM_TEST_SHARED")
    folder = Path(place) / name if place else temporary.mktemp("shared") / name
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the file is closed
        if not Path(f"{folder}.made").exists():
            make(folder)
            Path(f"{folder}.made").touch()
    return folder


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic hospital on this machine's disk; nobody writes to it."""

    def make(folder: Path) -> None:
        clinloom("synth", folder, "--patients", 400, "--seed", 3, "--images", 60)

    return shared("hospital", make, tmp_path_factory)


@pytest.fixture(scope="session")
def finished(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a finished run on it, on this machine, by the command line.

    The JVM of the first one in an environment leaves its classes to all that start after it.
    """

    def make(out: Path) -> None:
        with classes.kept() as options:
            run = ["run", STUDY, "--out", out, *sets(small(hospital))]
            clinloom(*run, CLINLOOM_SPARK_MEMORY="1g", SPARK_SUBMIT_OPTS=options)

    made = shared("finished", make, tmp_path_factory)
    os.environ["SPARK_SUBMIT_OPTS"] = classes.options()
    return made


@pytest.fixture(scope="session")
def scored(hospital: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The risks of its patients by that run's bundle, and beside them what the model saw."""

    def make(folder: Path) -> None:
        folder.mkdir()
        out = ["--out", folder / "risk.parquet", "--features"]
        clinloom("score", finished / "bundle", *out, *sets(places(hospital)))

    return shared("scored", make, tmp_path_factory) / "risk.parquet"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data; tests that need it skip where it is absent."""
    folder = Path(os.environ["CLINLOOM_DATA"])
    if not folder.is_dir():
        pytest.skip("the public data are not here; set CLINLOOM_DATA to their folder")
    return folder
