"""What comes by a Kafka topic and by a Delta table is scored as what comes by files."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.clusters import kafka, parts, sparks
from tests.clusters.conftest import begun
from tests.clusters.parts import Missing
from tests.service import made

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.door import Door

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
PATIENTS = 6
# Both in one session: messages, of which one is none, then rows, each in two turns.
PROGRAM = """
import json, sys
from clinloom.run import api
from clinloom.spark.session import session
bundle, records, broker, out = sys.argv[1:]
lines = [[line] for line in open(records).read().split("\\n")]
spark = session()
feeds = {"kafka": f"kafka://{broker}/records", "delta": f"delta:{out}/lake"}
for turn in range(2):
    frame = spark.createDataFrame(lines[turn::2], "value string")
    writer = frame.write.format("kafka").option("kafka.bootstrap.servers", broker)
    writer.option("topic", "records").save()
    frame.write.format("delta").mode("append").save(f"{out}/lake")
    for name, place in feeds.items():
        told = {"told": [place], "once": True, "spark": spark}
        print(api.stream(bundle, out=f"{out}/{name}", **told))
"""


def test_a_topic_and_a_table_give_what_files_give(running: ExitStack, tmp_path: Path):
    broker = begun(running, kafka.kafka())
    try:
        jars = f"{parts.FROM_KAFKA.class_path()}:{parts.DELTA.class_path()}"
    except Missing as missing:
        pytest.skip(str(missing))
    bundle = made.publish(tmp_path / "bundle")
    resources = [e["resource"] for n in range(PATIENTS) for e in made.patient(n)["entry"]]
    lines = [*map(json.dumps, resources), *map(json.dumps, resources[::5]), "{broken"]
    (tmp_path / "records").write_text("\n".join(lines))
    delta = "org.apache.spark.sql.delta"
    env = sparks.client(
        tmp_path,
        {
            "spark.driver.extraClassPath": jars,
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": f"{delta}.catalog.DeltaCatalog",
            "spark.databricks.delta.snapshotPartitions": "1",
        },
        env={"CLINLOOM_SPARK_MASTER": "local[2]"},
    )
    asked = [str(part) for part in (bundle, tmp_path / "records", broker.address, tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *asked], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = Bundle.load(bundle)
    facts = Door(loaded).fhir(resources, several=True)
    clean = loaded.clean(facts.events, facts.refused)["events"]
    expected = loaded.risks(clean, loaded.moments(clean)["index"]).to_pylist()
    for feed in ("kafka", "delta"):
        found: dict[tuple, dict] = {}
        for file in sorted((tmp_path / feed / "predictions").iterdir()):
            for row in pq.read_table(file).to_pylist():
                found[row["subject_id"], row["prediction_time"]] = row
        rows = [row for row in found.values() if not row["withdrawn"]]
        assert _risks(rows) == _risks(expected) != []
        refused = pq.read_table(tmp_path / feed / "rejected").to_pylist()
        [broken] = [row for row in refused if row["reason"] == "malformed_json"]
        assert broken["file"].startswith({"kafka": "records/", "delta": "lake"}[feed])


def _risks(rows):
    names = ("subject_id", "prediction_time", "predicted_boolean_probability")
    return sorted(tuple(row[name] for name in names) for row in rows)
