"""One Spark session for the whole test run, and where the public data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
os.environ.setdefault("CLINLOOM_DATA", str(ROOT.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def spark():
    """The session that every test shares: two cores, loopback, few partitions."""
    from clinloom.spark.session import session

    made = session(master="local[2]", settings={"spark.sql.shuffle.partitions": "2"})
    made.conf.set("spark.sql.shuffle.partitions", "2")
    return made


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data; tests that need it skip where it is absent."""
    folder = Path(os.environ["CLINLOOM_DATA"])
    if not folder.is_dir():
        pytest.skip("the public data are not here; set CLINLOOM_DATA to their folder")
    return folder
