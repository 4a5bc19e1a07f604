"""What every cluster tells a Spark client: an environment and a file of Spark's settings."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyspark
from tests import classes
from tests.clusters.daemons import ROOT, own_environment

HOME = Path(pyspark.__file__).parent
SCALA = next(HOME.glob("jars/spark-core_*.jar")).name.split("_")[1].split("-")[0]
SUBMIT = HOME / "bin" / "spark-submit"
TREE = f"{ROOT / 'src'}:{ROOT}"  # what a Python worker must import: the tree under test
QUICK = f"-XX:+UseSerialGC {classes.QUICK}"  # a benchmark gives others
QUIET = {
    "spark.driver.extraJavaOptions": QUICK,
    "spark.yarn.am.extraJavaOptions": QUICK,
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "4",
    "spark.driver.memory": "1g",
}
PROBE = Path(__file__).with_name("probe.py")
_number = itertools.count()


def client(
    folder: Path, conf: Mapping[str, str], *, env: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment in which any Spark program is a client with these settings.

    ``conf`` goes to a ``spark-defaults.conf`` in a new folder below ``folder``, which ``python
    program.py`` and the command line take by themselves and ``spark-submit`` by SPARK_SETTINGS,
    as ``--properties-file`` or its folder as SPARK_CONF_DIR. (That heads the class path, so Java's
    archive (``classes``) does not fit.) What a program sets in its own session comes before it.
    """
    file = folder / f"spark-conf-{next(_number)}" / "spark-defaults.conf"
    file.parent.mkdir(parents=True)
    executors = {"spark.executor.extraJavaOptions": f"-XX:+UseSerialGC {classes.options()}"}
    lines = (f"{key} {value}\n" for key, value in {**QUIET, **executors, **conf}.items())
    file.write_text("".join(lines))
    here = {
        "PYTHONPATH": TREE,
        "SPARK_HOME": str(HOME),
        "SPARK_SETTINGS": str(file),
        "PYSPARK_SUBMIT_ARGS": f"--properties-file {file} pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_HOSTNAME": "localhost",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
    }
    return own_environment(**{**here, **(env or {})})


def hadoop_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Hadoop's own settings as Spark takes them."""
    return {f"spark.hadoop.{key}": value for key, value in settings.items()}


def probe(env: Mapping[str, str], folder: Path, **options: Any) -> str:
    """Run ``probe.py`` in a process of its own.

    Answers with what it printed. Raises AssertionError with the end of its complaint.
    """
    done = probing(env, folder, **options)
    printed, complaint = done.communicate(timeout=240)
    assert done.returncode == 0, complaint[-3000:]
    return printed


def probing(env: Mapping[str, str], folder: Path, **options: Any) -> subprocess.Popen[str]:
    """``probe.py`` as it runs in ``folder``."""
    return subprocess.Popen(
        [sys.executable, str(PROBE), json.dumps(options)],
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rows(printed: str) -> list[dict[str, Any]]:
    """The rows that ``probe.py`` printed, among whatever else was."""
    (line,) = [line for line in printed.splitlines() if line.startswith("PROBE ")]
    found: list[dict[str, Any]] = json.loads(line.removeprefix("PROBE "))["rows"]
    return sorted(found, key=lambda row: row["part"])
