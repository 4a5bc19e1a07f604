"""Events that Spark reads from a Delta table and from PostgreSQL are those of the same files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.clusters import parts, sparks
from tests.clusters.conftest import begun
from tests.clusters.postgresql import PASSWORD, USER, PostgreSQL, postgresql
from tests.contracts.test_spark_source import laid

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# In a process of its own: a JVM takes Delta and a database's driver along when it begins.
READ = """
import json, sys
from pathlib import Path
from tests.contracts.test_spark_source import acquired
from clinloom.spark.session import session

given = json.loads(sys.argv[1])
out, place, delta = Path("out"), given["files"], str(Path("delta").resolve())
spark = session(master="local[2]")
rows = spark.read.parquet(f"file://{place}")
rows.write.format("delta").save(delta)
spark.sql(f"create table lab using delta location '{delta}'")

def read(name, **options):
    return acquired(spark, out / name, **options)

found = {
    "files": read("files", type="table", path=place),
    "delta": read("delta", type="spark", format="delta", path=delta),
    "catalogue": read("catalogue", type="spark", table="lab"),
    "unchanged": read("catalogue", type="spark", table="lab"),
    "jdbc": read("jdbc", type="spark", format="jdbc", options=given["jdbc"], stamp="1"),
}
rows.limit(50).write.format("delta").mode("append").save(delta)
found["appended"] = read("catalogue", type="spark", table="lab")
print("FOUND " + json.dumps(found))
"""
DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.sql.shuffle.partitions": "2",
}
TABLE = (
    'create table lab (who bigint, "when" timestamptz, site text, value numeric(9, 2),'
    " note text, row int primary key)"
)


@pytest.fixture(scope="module")
def database(running) -> PostgreSQL:
    return begun(running, postgresql())


@pytest.fixture(scope="module")
def jars(running) -> str:
    @contextmanager
    def fetched() -> Iterator[str]:
        yield f"{parts.DELTA.class_path()}:{parts.POSTGRESQL.class_path()}"

    return begun(running, fetched())


def test_delta_and_a_database_give_the_events_of_the_files(
    database: PostgreSQL, jars: str, tmp_path: Path
):
    """A Delta table by its path and by its name, read anew when its version is another; a table
    of PostgreSQL, with decimals, by two connections at once and a password that stands nowhere."""
    (tmp_path / "tables").mkdir()
    folder = laid(tmp_path / "tables")
    rows = folder / "csv" / "rows.csv"
    database.sql(TABLE, f"\\copy lab from '{rows}' with (format csv, header)")
    jdbc = {"url": database.url, "dbtable": "lab", "user": USER, "password": "env:LAB_PASSWORD"}
    jdbc |= {"partitionColumn": "row", "lowerBound": "0", "upperBound": "600", "numPartitions": "2"}
    given = {"files": str(folder / "parquet"), "jdbc": jdbc}
    env = sparks.client(tmp_path, {**DELTA, "spark.driver.extraClassPath": jars})
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(given)],
        env={**env, "LAB_PASSWORD": PASSWORD},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    events, refused, _ = found["files"]
    assert len(events) > 700 and len(refused) == 16
    for way in ("delta", "catalogue", "unchanged", "jdbc"):
        assert found[way][0] == events, way
        assert [row[0] for row in found[way][1]] == [row[0] for row in refused], way
    assert found["unchanged"][2] and not found["appended"][2]
    assert len(found["appended"][0]) > len(events)
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert written and not [f for f in written if PASSWORD.encode() in f.read_bytes()]
