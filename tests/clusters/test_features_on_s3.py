"""What the workers of the features stage fetch from an object store: what they need, no more."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.clusters.stores import Server, moto, s3

from clinloom import files
from clinloom.features import Feature
from clinloom.run import dataset
from clinloom.spark import workers
from clinloom.store import Part, Pending, Store, Stored, TableWriter
from clinloom.tables import DATASET, EVENTS, INDEX

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
__all__ = ["moto", "s3"]

BUCKETS, PATIENTS, EACH = 3, 2000, 120  # 720,000 events
DAY = 86_400_000_000


def committed(server: Server) -> dict[str, Stored]:
    """Events and index as a run's earlier stages commit them."""
    random = np.random.default_rng(11)
    store = Store(server.root / "out")
    with store.writing("clean", "key") as pending:
        for bucket in range(BUCKETS):
            subject = np.arange(PATIENTS) * BUCKETS + bucket
            size = PATIENTS * EACH
            time = np.sort(random.integers(0, 300 * DAY, (PATIENTS, EACH)), axis=1).ravel()
            events = {
                "subject_id": pa.array(np.repeat(subject, EACH)),
                "time": pa.array(time).cast(pa.timestamp("us", "UTC")),
                "code": pa.array(random.choice(["LOINC//8867-4", "LOINC//2160-0"], size)),
                "numeric_value": pa.array(random.normal(70, 9, size)),
                "source": pa.repeat(pa.scalar("ehr"), size),
                "record_id": pa.array(random.integers(0, 1 << 60, size).astype(str)),
            }
            moments = pa.array(np.full(PATIENTS, 290 * DAY)).cast(pa.timestamp("us", "UTC"))
            index = {"subject_id": pa.array(subject), "prediction_time": moments}
            for table, rows in ((EVENTS, events), (INDEX, index)):
                place = pending.place(table.name) / f"part-{bucket}.parquet"
                with TableWriter(place, table) as writer:
                    writer.write(pa.table(rows))
                pending.took(table.name, [Part(place.name, bucket, writer.rows, writer.bytes)])
    found = {name: store.stored("clean", name) for name in ("events", "index")}
    store.close()
    return found


def needed(stored: Stored, columns: list[str]) -> int:
    """The bytes of these columns' chunks and of the footers."""
    total = 0
    for file in stored.files():
        data = files.read(file)
        meta = pq.read_metadata(io.BytesIO(data))
        total += int.from_bytes(data[-8:-4], "little") + 8
        for group in range(meta.num_row_groups):
            chunks = map(meta.row_group(group).column, range(meta.num_columns))
            total += sum(c.total_compressed_size for c in chunks if c.path_in_schema in columns)
    return total


def test_features_fetch_the_columns_that_they_need(spark, s3: Server, tmp_path: Path):
    (tmp_path / "key").write_text("AKIATESTTESTTESTTEST")
    (tmp_path / "secret").write_text("canary-secret")
    # By files: workers of a session that runs already do not see this test's environment.
    keys = {name: f"file:{tmp_path / name}" for name in ("key", "secret")}
    files.use({"s3": {**s3.options["s3"], **keys}})
    tables = committed(s3)
    least = needed(tables["events"], dataset.NEEDED) + needed(tables["index"], INDEX.arrow.names)
    whole = sum(part.bytes for part in tables["events"].parts)
    names = ("measurements|LOINC//8867-4|mean|30d", "measurements|LOINC//2160-0|last|all")
    listed = [Feature.named(name, modality="records") for name in names]
    out = Pending(s3.root / "made")
    s3.wire.reset()
    workers.by_patient(
        spark,
        {"events": (tables["events"], EVENTS), "index": (tables["index"], INDEX)},
        partial(dataset.integrate, listed=listed),
        out=out,
        tables={"dataset": DATASET},
        columns={"events": dataset.NEEDED},
    )
    assert sum(part.rows for part in out.parts["dataset"]) == BUCKETS * PATIENTS
    fetched = s3.wire.answered
    assert least <= fetched <= 1.1 * least
    assert fetched < 0.7 * whole
