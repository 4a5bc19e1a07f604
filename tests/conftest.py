"""What all tests share: one Spark session, one hospital, one run on it, and the public data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.hospital import STUDY, clinloom, sets, small

ROOT = Path(__file__).parent.parent
os.environ.setdefault("CLINLOOM_DATA", str(ROOT.parent / "shared" / "data"))
# Every driver here is at work for seconds: it ends before Java's second compiler pays, which took
# a third of a small run's processor time.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1")
# How long an example takes to draw and to run is the machine's, not ours.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session")
def spark():
    """The session that every test shares: two cores, loopback, few partitions."""
    from clinloom.spark.session import session

    made = session(master="local[2]", settings={"spark.sql.shuffle.partitions": "2"})
    made.conf.set("spark.sql.shuffle.partitions", "2")
    return made


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic hospital on this machine's disk; nobody writes to it."""
    folder = tmp_path_factory.mktemp("hospital")
    clinloom("synth", folder, "--patients", 400, "--seed", 3, "--images", 60)
    return folder


@pytest.fixture(scope="session")
def finished(hospital: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a finished run on it, on this machine, by the command line."""
    out = tmp_path_factory.mktemp("finished") / "out"
    clinloom("run", STUDY, "--out", out, *sets(small(hospital)), CLINLOOM_SPARK_MEMORY="1g")
    return out


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data; tests that need it skip where it is absent."""
    folder = Path(os.environ["CLINLOOM_DATA"])
    if not folder.is_dir():
        pytest.skip("the public data are not here; set CLINLOOM_DATA to their folder")
    return folder
