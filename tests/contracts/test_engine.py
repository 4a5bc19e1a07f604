"""The engine: whole patients, however they are chunked; identities; faults of tasks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinloom.errors import DataError
from clinloom.files import Piece, groups
from clinloom.identity import crosswalk, subjects
from clinloom.spark import blocks, workers
from clinloom.store import Pending, Stored
from clinloom.tables import ACQUIRED, FLOW, LINKS

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


def tell(pieces, rows):
    """A kernel that yields the rows of its group, in parcels of a few."""
    for piece in pieces:
        part = rows.slice(piece.start, piece.size)
        for begin in range(0, part.num_rows, 50):
            yield {"events": part.slice(begin, 50)}


def clustered(spark, tmp_path, buckets, *, rows=None, size=300, moved=None):
    """The rows, read in groups of ``size``, in their buckets."""
    rows = events() if rows is None else rows
    name = f"{buckets}-{size}"
    out, place = Pending(tmp_path / name), tmp_path / f"acquired-{name}"
    place.mkdir()
    cut = [[Piece("p", "p", size, None, n, n)] for n in range(0, rows.num_rows, size)]
    tables, spread = {"events": ACQUIRED}, {"events": out.scratch("spread")}
    workers.by_file(
        spark,
        cut,
        partial(tell, rows=rows),
        out=out,
        places=spread,
        tables=tables,
        spread={"events": buckets},
    )
    file = None
    if moved is not None:
        file = out.scratch("moved") / "subjects.npy"
        np.save(file, moved)
    workers.cluster(
        spark, spread, places={"events": place}, tables=tables, buckets=buckets, moved=file
    )
    return Stored("acquired", place, "k")


def tangled(seed: int = 2) -> pa.Table:
    """Rows in no order, with ties, duplicates and nulls in every column that may hold them."""
    random = np.random.default_rng(seed)

    def some(*values):
        return values[random.integers(len(values))]

    rows = [
        {
            "subject_id": int(random.integers(40)) << 57,
            "time": some(None, 5, 6, 10**15),
            "code": some("A", "B"),
            "numeric_value": some(None, 1.0, -2.5),
            "text_value": some(None, "", "x", "é"),
            "unit": some(None, "kg"),
            "source": some("s", "t"),
            "record_id": some("r1", "r2"),
        }
        for _ in range(2000)
    ]
    return pa.Table.from_pylist(rows, schema=ACQUIRED.arrow)


def key(row: dict) -> tuple:
    """How rows are ordered: by these columns, nulls first."""
    time = row["time"] and row["time"].timestamp()
    first = [row["subject_id"], time, row["code"], row["numeric_value"], row["text_value"]]
    rest = [row["record_id"], row["unit"], row["source"]]
    return tuple((v is not None, 0 if v is None else v) for v in first + rest)


def told(stored: Stored) -> dict[str, list[dict]]:
    return {file.name: pq.read_table(file).to_pylist() for file in stored.files()}


@pytest.mark.parametrize("buckets", [1, 7])
@pytest.mark.parametrize("linked", [False, True])
def test_how_files_are_grouped_changes_nothing_and_nothing_is_lost(
    spark, tmp_path, buckets, linked
):
    rows, moved = tangled(), None
    wanted = rows.to_pylist()
    if linked:  # the identifiers of subjects 3 and 5 turn out to be those of 4 and 30
        moved = np.array([[3, 5], [4, 30]]) << 57
        of = dict(zip(*moved.tolist(), strict=True))
        wanted = [{**r, "subject_id": of.get(r["subject_id"], r["subject_id"])} for r in wanted]
    found = [
        told(clustered(spark, tmp_path, buckets, rows=rows, size=size, moved=moved))
        for size in (130, 2000)
    ]
    assert found[0] == found[1]
    for name, listed in found[0].items():
        assert {r["subject_id"] % buckets for r in listed} == {int(name[5:10])}
        assert [key(r) for r in listed] == sorted(key(r) for r in listed)
    together = [r for listed in found[0].values() for r in listed]
    assert sorted(together, key=key) == sorted(wanted, key=key)


def test_a_bucket_too_large_to_sort_at_once_comes_out_the_same(tmp_path, monkeypatch):
    rows = tangled()
    with blocks.BlockWriter(tmp_path / "part", ACQUIRED, 3) as writer:
        writer.write(rows)
    files = sorted(tmp_path.glob("*.arrow"))
    whole = pa.concat_tables(blocks.in_order(files, 0)).to_pylist()
    monkeypatch.setattr(blocks, "SORTED", 100)
    monkeypatch.setattr(blocks, "SLICE", 7)
    assert pa.concat_tables(blocks.in_order(files, 0)).to_pylist() == whole
    assert len(whole) == sum(i % 3 == 0 for i in rows.column("subject_id").to_pylist())


def test_subjects_are_the_hashes_that_spark_gives(spark):
    from pyspark.sql import functions as F

    texts = [("Käse-" * 30)[:n] for n in range(80)] + ["Patient/1", "", "x" * 500]
    frame = spark.createDataFrame([(t,) for t in texts], "t string")
    given = frame.select(F.xxhash64("t").bitwiseAND(F.lit(2**63 - 1)).alias("h")).collect()
    coded = pa.array([*texts, None, texts[3]]).dictionary_encode()
    assert subjects.subjects(coded).to_pylist() == [*(r["h"] for r in given), None, given[3]["h"]]


@pytest.mark.parametrize("few", [0, 100])
def test_identities_are_the_same_by_spark_and_without(spark, tmp_path, monkeypatch, few):
    monkeypatch.setattr(crosswalk, "FEW", few)
    pairs = [("a", "a"), ("Patient/2", "m"), ("Patient/1", "m"), ("m", "z"), ("Patient/2", "m")]
    (tmp_path / "links" / "source=0").mkdir(parents=True)
    table = pa.table(list(zip(*pairs, strict=True)), schema=LINKS.arrow)
    pq.write_table(table, tmp_path / "links" / "source=0" / "part-00000.parquet")
    out = Pending(tmp_path / "out")
    found = crosswalk.resolve(spark, tmp_path / "links", out)
    subject = dict(
        zip("aPmz", subjects.hashed(pa.array(["a", "Patient/1", "m", "z"])), strict=True)
    )
    rows = pq.read_table(out.place("crosswalk")).to_pylist()
    assert {r["identifier"]: r["subject_id"] for r in rows} == {
        "a": subject["a"],
        **dict.fromkeys(["Patient/1", "Patient/2", "m", "z"], subject["P"]),
    }
    own, true = np.load(found.moved)
    assert len(own) == 3 and np.all(np.diff(own) > 0) and set(true) == {subject["P"]}
    assert subject["m"] in own and subject["z"] in own and found.merged == 1


@pytest.mark.parametrize("buckets", [1, 7])
@pytest.mark.parametrize("chunk", [1, 13, 100_000])
def test_buckets_and_chunks_change_nothing(spark, tmp_path, buckets, chunk):
    stored = clustered(spark, tmp_path, buckets)
    place = tmp_path / f"flow-{chunk}"
    place.mkdir()
    workers.by_patient(
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
        workers.by_file(
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
