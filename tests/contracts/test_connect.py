"""The core over Spark Connect: the same study gives the same numbers as in a classic session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyspark
import pytest

pytestmark = [
    pytest.mark.connect,
    pytest.mark.slow,
    pytest.mark.skipif(pyspark.__version__ < "4", reason="pyspark.ml over Connect came with 4.0"),
    pytest.mark.skipif(find_spec("grpc") is None, reason="the extra `connect` is not installed"),
]
ROOT = Path(__file__).parents[2]


def clinloom(*args, **environment):
    command = [sys.executable, "-m", "clinloom", *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_run_over_connect_is_the_classic_run(tmp_path):
    connect, classic = {"CLINLOOM_SPARK_REMOTE": "local[2]"}, {"CLINLOOM_SPARK_MASTER": "local[2]"}
    clinloom("synth", tmp_path / "h", "--patients", 300, "--seed", 5, "--images", 20, **connect)
    changes = [
        f"sources.ehr.path={tmp_path / 'h' / 'fhir'}",
        f"sources.cxr.path={tmp_path / 'h' / 'dicom'}",
        "models={logistic_regression: {penalty: [0.1], elastic_net: [0.0], iterations: 9}, "
        "decision_tree: {depth: [3]}}",
        "split.folds=2",
        "evaluate.bootstrap=20",
    ]
    sets = [part for change in changes for part in ("--set", change)]
    found = {}
    for name, environment in (("connect", connect), ("classic", classic)):
        out = tmp_path / name
        clinloom("run", ROOT / "examples" / "synthetic.yaml", "--out", out, *sets, **environment)
        found[name] = json.loads((out / "metrics.json").read_text())
    assert found["connect"]["selected"] == found["classic"]["selected"]
    for name, model in found["classic"]["models"].items():
        for metric, numbers in model["test"].items():
            assert found["connect"]["models"][name]["test"][metric] == pytest.approx(
                numbers, abs=1e-6
            ), (name, metric)
