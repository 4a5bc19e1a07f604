"""A client without Java works on a Spark Connect server of another process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.clusters import sparks
from tests.clusters.buckets import S3
from tests.clusters.connect import Connect
from tests.clusters.daemons import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.connect, pytest.mark.slow]


def test_a_client_without_java(connect: Connect, s3_server: S3, tmp_path: Path):
    (tmp_path / "mine").touch()
    env = connect.client()
    assert shutil.which("java", path=env["PATH"]) is None and "JAVA_HOME" not in env
    address = f"s3a://{s3_server.bucket()}/probe"
    printed = sparks.probe(env, tmp_path, addresses=[address], path=str(tmp_path / "mine"))
    rows = sparks.rows(printed)
    assert [row["part"] for row in rows] == [0, 1, 2, 3]
    assert {row["home"] for row in rows} == {str(ROOT / "src" / "clinloom" / "__init__.py")}
    assert {row["sees"] for row in rows} == {not connect.apart}
