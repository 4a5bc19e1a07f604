"""The engine: whole patients, however they are chunked; identities; faults of tasks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinloom import engine
from clinloom.errors import DataError
from clinloom.files import Piece, groups
from clinloom.store import Pending, Stored
from clinloom.tables import ACQUIRED, FLOW

pytestmark = pytest.mark.core


def events(subjects: int = 60, seed: int = 1) -> pa.Table:
    random = np.random.default_rng(seed)
    ids = np.repeat(np.arange(subjects), random.integers(1, 40, subjects))
    rows = [
        {"subject_id": int(s), "time": int(t), "code": f"C{t % 3}", "numeric_value": float(t)}
        for s, t in zip(ids, random.integers(0, 10**6, len(ids)), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=ACQUIRED.arrow)


def count(events: pa.Table) -> dict[str, pa.Table]:
    ids, sizes = np.unique(events.column("subject_id").to_numpy(), return_counts=True)
    rows = [
        {"step": 0, "name": str(i), "subjects": 1, "rows": int(n)}
        for i, n in zip(ids, sizes, strict=True)
    ]
    return {"flow": FLOW.rows(rows)}


def clustered(spark, tmp_path, buckets):
    place = tmp_path / f"acquired-{buckets}"
    place.mkdir()
    source = tmp_path / "raw"
    source.mkdir(exist_ok=True)
    pq.write_table(events(), source / "a.parquet")
    frame = spark.read.parquet(str(source))
    engine.cluster(spark, frame, table=ACQUIRED, buckets=buckets, place=place)
    return Stored("acquired", place, "k")


@pytest.mark.parametrize("buckets", [1, 7])
@pytest.mark.parametrize("chunk", [1, 13, 100_000])
def test_buckets_and_chunks_change_nothing(spark, tmp_path, buckets, chunk):
    stored = clustered(spark, tmp_path, buckets)
    place = tmp_path / f"flow-{chunk}"
    place.mkdir()
    engine.by_patient(
        spark,
        {"events": stored},
        count,
        places={"flow": place},
        tables={"flow": FLOW},
        chunk=chunk,
    )
    found = {r["name"]: r["rows"] for r in pq.read_table(place).to_pylist()}
    ids, sizes = np.unique(events().column("subject_id").to_numpy(), return_counts=True)
    assert found == {str(i): n for i, n in zip(ids, sizes, strict=True)}


def test_each_bucket_is_sorted_and_no_patient_is_in_two(spark, tmp_path):
    seen: set[int] = set()
    for file in clustered(spark, tmp_path, 5).files():
        table = pq.read_table(file)
        ids = table.column("subject_id").to_numpy()
        times = table.column("time").cast("int64").to_numpy()
        assert np.all(np.lexsort((times, ids)) == np.arange(len(ids)))
        assert not seen & set(ids.tolist())
        seen |= set(ids.tolist())


def refuse(pieces, message):
    raise DataError(message, where="a stage", mend="mend it")
    yield {}


def test_a_fault_in_a_worker_is_told_as_ours(spark, tmp_path):
    out = Pending(tmp_path)
    with pytest.raises(DataError, match="what happened") as caught:
        engine.by_file(
            spark,
            [[Piece("a", "a", 1)]],
            partial(refuse, message="what happened"),
            out=out,
            places={"flow": out.place("flow")},
            tables={"flow": FLOW},
        )
    assert caught.value.mend == "mend it"


def test_lines_of_a_ranged_file_are_each_read_once(tmp_path):
    file = tmp_path / "lines.txt"
    lines = [b"x" * n for n in (0, 5, 17, 3, 0, 40, 1)]
    file.write_bytes(b"\n".join(lines))
    size = file.stat().st_size
    for step in (1, 2, 7, 30, 1000):
        parts = [
            Piece("f", str(file), 0, None, start, min(start + step, size)).read()
            for start in range(0, size, step)
        ]
        assert b"".join(parts) == file.read_bytes()


def test_groups_hold_every_piece_once():
    pieces = [Piece(str(n), str(n), 1 << (n % 25)) for n in range(200)]
    cut = groups(pieces, splittable=False, cores=2)
    assert [p for g in cut for p in g] == pieces
