"""A small synthetic hospital's study: what the tests of whole runs ask for, and how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

STUDY = Path(__file__).parents[1] / "examples" / "synthetic.yaml"
MODELS = (
    "models={logistic_regression: {penalty: [0.02], elastic_net: [0.0], iterations: 8}, "
    "decision_tree: {depth: [3]}}"
)


def places(folder: Path | str) -> list[str]:
    """The overrides that lead the study to the hospital in ``folder``, a path or an address."""
    return [f"sources.ehr.path={folder}/fhir", f"sources.cxr.path={folder}/dicom"]


def small(folder: Path | str) -> list[str]:
    """The overrides of a quick run on it: two models of a point each, few folds and replicates."""
    return [*places(folder), MODELS, "split.folds=2", "evaluate.bootstrap=50"]


def sets(overrides: list[str]) -> list[str]:
    """The overrides as arguments of the command line."""
    return [part for override in overrides for part in ("--set", override)]


def clinloom(*args, check=True, **environment) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own; a stack trace is a failure."""
    env = {**os.environ, "CLINLOOM_SPARK_MASTER": "local[2]", **environment}
    command = [sys.executable, "-m", "clinloom", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert not check or done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def killed(*args, after: str, **environment) -> None:
    """Begin a run in processes of its own, and end them all with -9 when a stage is done."""
    env = {**os.environ, "CLINLOOM_SPARK_MASTER": "local[2]", **environment}
    command = [sys.executable, "-m", "clinloom", *map(str, args), "--json"]
    none, pipe = subprocess.DEVNULL, subprocess.PIPE
    run = subprocess.Popen(command, env=env, stdout=none, stderr=pipe, start_new_session=True)
    told = []
    for line in run.stderr or ():
        told.append(line.decode())
        if f'"stage": "{after}"' in told[-1]:
            break
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "".join(told)


def progress(told: str) -> list[dict]:
    """The stages that a run with ``--json`` told of, in their order."""
    lines = (json.loads(line) for line in told.splitlines() if line[:1] == "{")
    return [line for line in lines if "stage" in line]
