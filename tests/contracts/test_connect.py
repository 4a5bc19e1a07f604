"""The core over Spark Connect: the same study gives the same numbers as in a classic session."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pyspark
import pytest
from tests.hospital import STUDY, clinloom, sets, small

pytestmark = [
    pytest.mark.connect,
    pytest.mark.slow,
    pytest.mark.skipif(pyspark.__version__ < "4", reason="pyspark.ml over Connect came with 4.0"),
    pytest.mark.skipif(find_spec("grpc") is None, reason="the extra `connect` is not installed"),
]


def test_a_run_over_connect_is_the_classic_run(tmp_path):
    connect, classic = {"CLINLOOM_SPARK_REMOTE": "local[2]"}, {"CLINLOOM_SPARK_MASTER": "local[2]"}
    clinloom("synth", tmp_path / "h", "--patients", 300, "--seed", 5, "--images", 20, **connect)
    changes = sets(small(tmp_path / "h"))
    found = {}
    for name, environment in (("connect", connect), ("classic", classic)):
        out = tmp_path / name
        clinloom("run", STUDY, "--out", out, *changes, **environment)
        found[name] = json.loads((out / "metrics.json").read_text())
    assert found["connect"]["selected"] == found["classic"]["selected"]
    for name, model in found["classic"]["models"].items():
        for metric, numbers in model["test"].items():
            assert found["connect"]["models"][name]["test"][metric] == pytest.approx(
                numbers, abs=1e-6
            ), (name, metric)
