"""The same study on this machine alone and on YARN with HDFS, on as many cores: the ratio.

    python bench/yarn.py --patients 20000 --turns 2

The cluster is the tests' own (``tests/clusters``): real daemons on the loopback address. Set-up is
told apart: what a run takes beyond its stages, such as asking YARN for containers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.clusters import hadoop, sparks  # noqa: E402

from clinloom import files  # noqa: E402

STUDY = ROOT / "examples" / "synthetic_records.yaml"
HERE = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_HOSTNAME": "localhost"}


def platform(folder: Path) -> Path:
    """A file of YARN's options: two cores in one container, with this machine's Python."""
    node = {**HERE, "PYTHONPATH": sparks.TREE}
    conf = {"spark.yarn.jars": f"local:{sparks.HOME}/jars/*"}
    for kind in ("spark.yarn.appMasterEnv", "spark.executorEnv"):
        conf |= {f"{kind}.{name}": value for name, value in node.items()}
    yarn = {"mode": "client", "executors": 1, "cores": 2, "memory": "2g", "overhead": "2g"}
    yarn |= {"driver_memory": "1g", "python": sys.executable, "conf": conf}
    file = folder / "yarn.yaml"
    file.write_text(yaml.safe_dump({"platform": {"yarn": yarn}}))
    return file


def run(data: str, out: str, models: str, env: dict[str, str], *more: str) -> dict[str, float]:
    """Run the study; the seconds of each stage, and ``set-up``: the rest."""
    changes = ["--set", f"sources.ehr.path={data}/fhir", "--set", f"models={models}"]
    command = [sys.executable, "-m", "clinloom", "run", str(STUDY), "--out", out, *changes, *more]
    start = time.monotonic()
    done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took = time.monotonic() - start
    if done.returncode:
        raise SystemExit(done.stderr.decode()[-3000:])
    stages = json.loads(files.read(f"{out}/manifest.json"))["stages"]
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    return {**seconds, "set-up": took - sum(seconds.values())}


def main() -> None:
    """Make the hospital, run both in turns, print the seconds of each and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--models", default="{logistic_regression: {}}")
    args = parser.parse_args()
    totals: dict[str, list[float]] = {"local": [], "yarn": []}
    with tempfile.TemporaryDirectory() as made, hadoop.hadoop() as cluster:
        folder = Path(made)
        size = ["--patients", str(args.patients), "--no-images"]
        synth = [sys.executable, "-m", "clinloom", "synth", str(folder / "data"), *size]
        subprocess.run(synth, check=True, stdout=subprocess.DEVNULL)
        there = cluster.put(folder / "data", "/data")
        asked = {"HADOOP_CONF_DIR": str(cluster.conf_dir), "HADOOP_USER_NAME": hadoop.USER}
        os.environ.update(asked)
        on_yarn = {**os.environ, **HERE, "CLINLOOM_SPARK_MASTER": ""}
        on_two = {**os.environ, "CLINLOOM_SPARK_MASTER": "local[2]"}
        more = ["--on", "yarn", "--platform", str(platform(folder))]
        for turn in range(args.turns):
            found = {
                "local": run(f"{folder}/data", f"{folder}/out-{turn}", args.models, on_two),
                "yarn": run(there, f"{cluster.address}/out-{turn}", args.models, on_yarn, *more),
            }
            for name, seconds in found.items():
                totals[name].append(sum(seconds.values()) - seconds["set-up"])
                told = ", ".join(f"{stage} {took:.1f}" for stage, took in seconds.items())
                print(f"{name:<6} {totals[name][-1]:7.1f} s ({told})", flush=True)
    ratio = sum(totals["yarn"]) / sum(totals["local"])
    print(f"{args.patients:,} patients: YARN with HDFS takes {ratio:.2f} x local")


if __name__ == "__main__":
    main()
