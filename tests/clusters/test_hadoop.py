"""HDFS and YARN take a real job in client and in cluster mode."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.clusters import sparks
from tests.clusters.daemons import ROOT
from tests.clusters.hadoop import Hadoop

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_hdfs_keeps_what_is_put_there(hadoop: Hadoop, tmp_path: Path):
    written = tmp_path / "written"
    written.write_bytes(bytes(range(256)))
    at = hadoop.put(written, "/kept/file")
    assert at == f"{hadoop.address}/kept/file"
    assert hadoop.get("/kept/file", tmp_path / "read").read_bytes() == written.read_bytes()


def test_client_mode_runs_in_two_containers(hadoop: Hadoop, tmp_path: Path):
    (tmp_path / "mine").touch()
    printed = sparks.probe(
        hadoop.client(), tmp_path, address=f"{hadoop.address}/probe", path=str(tmp_path / "mine")
    )
    rows = sparks.rows(printed)
    assert [row["part"] for row in rows] == [0, 1, 2, 3]
    assert len({row["folder"] for row in rows}) == 2
    assert {row["home"] for row in rows} == {str(ROOT / "src" / "clinloom" / "__init__.py")}
    assert {row["sees"] for row in rows} == {not hadoop.apart}


def test_cluster_mode_brings_its_environment(hadoop: Hadoop, tmp_path: Path):
    printed = sparks.probe(
        hadoop.client(packed=True), tmp_path, submit=("--deploy-mode", "cluster")
    )
    assert "PROBE" not in printed
    newest = hadoop.applications()[0]
    assert newest["finalStatus"] == "SUCCEEDED"
    for row in sparks.rows(hadoop.output(newest["id"])):
        assert row["home"] == f"{row['folder']}/source/clinloom/__init__.py"
