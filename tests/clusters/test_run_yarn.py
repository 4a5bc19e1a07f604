"""A study on YARN and HDFS: submitted, followed, brought back, with the numbers of a local run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests import classes
from tests.clusters import typed
from tests.clusters.hadoop import HERE, USER, Hadoop, options
from tests.hospital import STUDY, clinloom, killed, progress, sets, small

from clinloom import files

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


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


def test_the_doctor_finds_nothing_missing(hadoop: Hadoop, tmp_path: Path):
    site = ["--platform", str(options(tmp_path, "cluster"))]
    quick = {"JDK_JAVA_OPTIONS": classes.options()}  # five small programs of Hadoop's, a JVM each
    env = {**os.environ, **environment(hadoop), **quick}
    asked = typed.typed(typed.shown("YARN", "clinloom doctor"), {}, site, env)
    assert asked.returncode == 0, asked.stdout


def test_a_study_on_yarn_that_was_killed_goes_on_to_be_the_local_one(
    hadoop: Hadoop, there: str, local: Path, tmp_path: Path, monkeypatch
):
    """In client mode, two containers with the environment as an archive; in cluster mode:
    ``test_kerberos``."""
    out = "hdfs:///studies/client"
    site = ["--platform", str(options(tmp_path, "client", executors=2, cores=1))]
    more = [*site, *sets(small(there))]
    killed("run", STUDY, "--out", out, *more, after="clean", **environment(hadoop))
    env = {**os.environ, **environment(hadoop)}
    named = {"study.yaml": str(STUDY), "hdfs:///studies/readmission": out}
    run = typed.shown("YARN", "clinloom run")
    done = typed.typed(run, named, [*more, "--json"], env)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-3000:]
    assert json.loads(done.stdout)["report"] == f"{out}/report.html"  # the result and no more
    stages = progress(done.stderr)
    assert [line["stage"] for line in stages if line["reused"]] == ["acquire", "clean"]
    assert stages[-1]["stage"] == "report"
    for name, value in environment(hadoop).items():
        monkeypatch.setenv(name, value)
    found = json.loads(files.read(f"{out}/metrics.json"))
    assert found == json.loads((local / "metrics.json").read_bytes())
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
    changes = sets([*small(there), f"sources.ehr.path={there}/nowhere"])
    command = ["run", STUDY, "--out", f"{hadoop.address}/out-wrong", *changes]
    command += ["--platform", options(tmp_path, "cluster", **HERE)]
    done = clinloom(*command, check=False, **environment(hadoop))
    assert done.returncode == 1
    assert "does not exist" in done.stderr


def test_ctrl_c_kills_the_application(hadoop: Hadoop, there: str, tmp_path: Path):
    command = [sys.executable, "-m", "clinloom", "run", str(STUDY), *sets(small(there))]
    command += ["--out", f"{hadoop.address}/out-stopped"]
    command += ["--platform", str(options(tmp_path, "cluster", **HERE))]
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
