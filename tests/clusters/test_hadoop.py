"""HDFS keeps files; what YARN runs is told by the tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.clusters.hadoop import Hadoop

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_hdfs_keeps_what_is_put_there(hadoop: Hadoop, tmp_path: Path):
    written = tmp_path / "written"
    written.write_bytes(bytes(range(256)))
    at = hadoop.put(written, "/kept/file")
    assert at == f"{hadoop.address}/kept/file"
    assert hadoop.get("/kept/file", tmp_path / "read").read_bytes() == written.read_bytes()
