"""A study on YARN and HDFS: submitted, followed, brought back, with the numbers of a local run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.clusters import sparks
from tests.clusters.hadoop import USER, Hadoop
from tests.hospital import MODELS, clinloom, sets, small
from tests.hospital import STUDY as BOTH

from clinloom import files

STUDY = BOTH.with_name("synthetic_records.yaml")
pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A small synthetic hospital."""
    folder = tmp_path_factory.mktemp("hospital")
    clinloom("synth", folder, "--patients", 400, "--seed", 5, "--no-images")
    return folder


@pytest.fixture(scope="module")
def local(hospital, tmp_path_factory):
    """The metrics of a run on this machine, with as many cores."""
    out = tmp_path_factory.mktemp("local") / "out"
    changes = [change for change in small(hospital) if "cxr" not in change]
    clinloom("run", STUDY, "--out", out, *sets(changes))
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def there(hadoop: Hadoop, hospital: Path) -> str:
    """The hospital in HDFS."""
    return hadoop.put(hospital, "/hospital")


def environment(hadoop: Hadoop) -> dict[str, str]:
    return {
        "HADOOP_CONF_DIR": str(hadoop.conf_dir),
        "HADOOP_USER_NAME": USER,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_HOSTNAME": "localhost",
        "CLINLOOM_SPARK_MASTER": "",
    }


def options(folder: Path, mode: str, **more: str) -> Path:
    """A file of the platform's options: one executor of two cores, as the local run has."""
    address = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "localhost"}
    conf = {"spark.yarn.jars": f"local:{sparks.HOME}/jars/*"}  # else each job uploads all of them
    for kind in ("spark.yarn.appMasterEnv", "spark.executorEnv"):
        conf |= {f"{kind}.{name}": value for name, value in address.items()}
    yarn = {"mode": mode, "executors": 1, "cores": 2, "memory": "700m", "overhead": "400m"}
    yarn |= {"driver_memory": "600m", "conf": conf, **more}
    file = folder / f"{mode}.yaml"
    file.write_text(yaml.safe_dump({"platform": {"yarn": yarn}}))
    return file


@pytest.mark.parametrize("mode", ["cluster", "client"])
def test_a_study_on_yarn_is_the_local_one(
    hadoop: Hadoop, there: str, local, tmp_path: Path, monkeypatch, mode: str
):
    out = f"{hadoop.address}/out-{mode}"
    changes = [f"sources.ehr.path={there}/fhir", MODELS, "split.folds=2", "evaluate.bootstrap=50"]
    changes = sets(changes)
    command = ["run", STUDY, "--out", out, "--on", "yarn", *changes]
    command += ["--platform", options(tmp_path, mode)]
    done = clinloom(*command, **environment(hadoop))
    assert out in done.stdout  # where the report lies
    for name, value in environment(hadoop).items():
        monkeypatch.setenv(name, value)
    found = json.loads(files.read(f"{out}/metrics.json"))
    assert found == local
    assert "AUROC" in files.read(f"{out}/report.html").decode()
    manifest = json.loads(files.read(f"{out}/manifest.json"))
    named = {
        part[0]
        for stage in manifest["stages"].values()
        for table in stage["tables"].values()
        for part in table["parts"]
    }
    lying = [entry.address.name for entry in files.listed(f"{out}/tables")]
    assert lying and set(lying) <= named


def test_what_fails_there_is_told_here_with_its_exit_code(
    hadoop: Hadoop, there: str, tmp_path: Path
):
    changes = [f"sources.ehr.path={there}/nowhere", MODELS]
    command = ["run", STUDY, "--out", f"{hadoop.address}/out-wrong", *sets(changes)]
    command += ["--platform", options(tmp_path, "cluster")]
    done = clinloom(*command, check=False, **environment(hadoop))
    assert done.returncode == 1
    assert "does not exist" in done.stderr


def test_ctrl_c_kills_the_application(hadoop: Hadoop, there: str, tmp_path: Path):
    changes = [f"sources.ehr.path={there}/fhir", MODELS]
    command = [sys.executable, "-m", "clinloom", "run", str(STUDY), *sets(changes)]
    command += ["--out", f"{hadoop.address}/out-stopped"]
    command += ["--platform", str(options(tmp_path, "cluster"))]
    env = {**os.environ, **environment(hadoop)}
    run = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    told = []
    for line in run.stderr or ():
        told.append(line)
        if line.rstrip().endswith(" running"):
            run.send_signal(signal.SIGINT)
    assert run.wait() == 1 and "stopped" in told[-1], told
    last = hadoop.applications()[0]
    assert last["finalStatus"] == "KILLED" and any(last["id"] in line for line in told)


def test_a_local_place_is_refused_before_anything_is_submitted(hadoop: Hadoop, tmp_path: Path):
    command = ["run", STUDY, "--out", tmp_path / "out"]
    command += ["--platform", options(tmp_path, "cluster")]
    done = clinloom(*command, check=False, **environment(hadoop))
    assert done.returncode == 2 and "do not see this machine's disk" in done.stderr
    assert not (tmp_path / "out").exists()
