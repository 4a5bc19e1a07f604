"""The engine: whole patients, however they are chunked; identities; faults of tasks."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinloom import files
from clinloom.errors import DataError, StoreError
from clinloom.files import Piece, groups
from clinloom.identity import crosswalk, subjects
from clinloom.run.sums import added, counted, flowed
from clinloom.spark import blocks, placing, shuffle, sums, workers
from clinloom.spark.session import SETTINGS, at_once, settled
from clinloom.spark.units import Spool
from clinloom.store import Pending, Stored, coded
from clinloom.tables import ACQUIRED, CROSSWALK, FLOW, LINKS, MOVED, REJECTED

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


def tell(unit, rows):
    """A kernel that yields the rows of its unit, in parcels of a few."""
    part = rows.slice(unit["start"], unit["size"])
    for begin in range(0, part.num_rows, 50):
        yield {"events": part.slice(begin, 50)}


def clustered(spark, tmp_path, buckets, *, rows=None, size=300, moved=None):
    """The rows, read in units of ``size``, in their buckets."""
    rows = events() if rows is None else rows
    out = Pending(files.address(tmp_path / f"{buckets}-{size}"))
    units = [{"start": n, "size": size} for n in range(0, rows.num_rows, size)]
    spool = Spool(out.scratch("units") / "units.json", units)
    slices = shuffle.by_unit(
        spark, spool, partial(tell, rows=rows), tables={"events": ACQUIRED}, buckets=buckets
    ).persist(shuffle.ON_DISK)
    assert shuffle.settle(slices) == {"events": rows.num_rows}
    places = ()
    if moved is not None:
        out.write(MOVED, pa.table({"own": moved[0], "true": moved[1]}))
        places = (out.place("moved") / out.parts["moved"][0].file,)
    found = shuffle.cluster(
        slices,
        out=out,
        tables={"events": ("acquired", ACQUIRED)},
        buckets=buckets,
        moved=places,
        counting=(counted, added),
    )["counts"]
    slices.unpersist()
    assert sum(row["rows"] for row in found.to_pylist()) == rows.num_rows
    return Stored("acquired", out.place("acquired"), "k", None, tuple(out.parts["acquired"]))


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


def told(stored: Stored) -> dict[int, list[dict]]:
    return {n: pq.read_table(file).to_pylist() for n, [file] in stored.buckets().items()}


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
    for bucket, listed in found[0].items():
        assert {r["subject_id"] % buckets for r in listed} == {bucket}
        assert [key(r) for r in listed] == sorted(key(r) for r in listed)
    together = [r for listed in found[0].values() for r in listed]
    assert sorted(together, key=key) == sorted(wanted, key=key)


def test_a_bucket_too_large_to_sort_at_once_comes_out_the_same(monkeypatch):
    """Whatever the order in which its slices come, and though it goes over the worker's disk."""
    rows = tangled()
    slices = [part for n in (0, 900) for b, part in blocks.cut(rows.slice(n, 1100), 3) if b == 1]

    def merged(parts):
        bucket = blocks.Bucket(ACQUIRED.arrow)
        for part in parts:
            bucket.add(sums.packed(part), part.num_rows, part.nbytes)
        return pa.concat_tables(bucket.sorted()).to_pylist()

    whole = merged(slices)
    monkeypatch.setattr(blocks, "SORTED", 100)
    monkeypatch.setattr(blocks, "SLICE", 7)
    assert merged(slices[::-1]) == whole
    assert len(whole) == sum(part.num_rows for part in slices) > 100


def test_a_bucket_on_disk_is_a_few_files_however_many_its_slices(monkeypatch):
    monkeypatch.setattr(blocks, "SORTED", 500)
    written = []
    parted = blocks._parted
    monkeypatch.setattr(blocks, "_parted", lambda *args: (written.append(args), parted(*args)))
    rows, bucket = tangled(), blocks.Bucket(ACQUIRED.arrow)
    for begin in range(0, 2000, 10):
        part = rows.slice(begin, 10)
        bucket.add(sums.packed(part), part.num_rows, part.nbytes)
    assert sum(part.num_rows for part in bucket.sorted()) == 2000
    assert len(written) == 4


def test_a_column_of_nulls_does_not_travel_and_comes_back():
    rows = tangled()
    without = rows.set_column(
        rows.schema.get_field_index("unit"), "unit", pa.nulls(rows.num_rows, pa.string())
    )
    bucket = blocks.Bucket(coded(ACQUIRED))
    for part, travels in ((rows, True), (without, False)):
        cutter = blocks.Cutter(coded(ACQUIRED), 1)
        for _, count, size, block in [*cutter.add(part), *cutter.rest()]:
            assert ("unit" in sums.unpacked(block).column_names) is travels
            bucket.add(block, count, size)
    found = pa.concat_tables(bucket.sorted())
    assert found.schema.names == ACQUIRED.arrow.names
    units = Counter(found.column("unit").to_pylist())
    assert units == Counter(rows.column("unit").to_pylist() + [None] * rows.num_rows)


@pytest.mark.parametrize("buckets", [1, 2, 7, 64, 1000])
def test_each_bucket_has_a_partition_of_its_own(spark, buckets):
    from pyspark.sql import functions as F

    keys = placing.keys(buckets)
    frame = spark.createDataFrame([(k, n) for n, k in enumerate(keys)], "place int, bucket int")
    placed = frame.repartition(buckets, "place").select("bucket", F.spark_partition_id().alias("p"))
    assert all(row["p"] == row["bucket"] for row in placed.collect())


def test_refusals_without_a_patient_are_spread_by_their_place():
    rows = [{"reason": "malformed", "file": f"f{n % 50}", "position": n} for n in range(4000)]
    table = pa.Table.from_pylist(rows, schema=REJECTED.arrow)
    bucket = blocks.bucket_of(table, 8)
    assert np.bincount(bucket, minlength=8).min() > 250
    turned = table.take(pa.array(np.arange(4000)[::-1]))
    assert np.array_equal(blocks.bucket_of(turned, 8), bucket[::-1])


def test_subjects_are_the_hashes_that_spark_gives(spark):
    from pyspark.sql import functions as F

    texts = [("Käse-" * 30)[:n] for n in range(80)] + ["Patient/1", "", "x" * 500]
    frame = spark.createDataFrame([(t,) for t in texts], "t string")
    given = frame.select(F.xxhash64("t").bitwiseAND(F.lit(2**63 - 1)).alias("h")).collect()
    coded = pa.array([*texts, None, texts[3]]).dictionary_encode()
    assert subjects.subjects(coded).to_pylist() == [*(r["h"] for r in given), None, given[3]["h"]]


def linked(unit):
    """A kernel that tells links."""
    yield {"links": pa.table(list(zip(*unit, strict=True)), schema=LINKS.arrow)}


def marked(links, rank: str = "100") -> list[tuple[str, str]]:
    """Links of a source's own identifiers, as its names are marked; each patient was seen."""
    seen = {(one, one) for one, _ in links}
    return [(f"{rank}#s|{one}", f"{rank}#s|{other}") for one, other in [*links, *sorted(seen)]]


def named(*identifiers: str) -> list[int]:
    return subjects.hashed(pa.array([f"#s|{one}" for one in identifiers])).tolist()


def test_identifiers_that_stand_for_themselves_are_in_the_crosswalk_once():
    links = pa.table(list(zip(*marked([("b", "b"), ("a", "a")]), strict=True)), schema=LINKS.arrow)
    rows = crosswalk.themselves(links)
    assert rows.num_rows == 2 and set(rows.column("system").to_pylist()) == {"#s"}
    twice = pa.concat_tables([rows, rows]).sort_by("subject_id")
    for cut in range(5):
        parts = [twice.slice(0, cut), twice.slice(cut)]
        found = pa.concat_tables(crosswalk.distinct(part for part in parts if part.num_rows))
        assert sorted(found.column("identifier").to_pylist()) == ["a", "b"]
    clash = rows.set_column(2, rows.schema.field(2), pa.array([5, 5]))
    with pytest.raises(DataError, match="the same hash"):
        list(crosswalk.distinct([clash]))


@pytest.mark.parametrize("few", [0, 1000])
def test_identities_are_the_same_by_spark_and_without(spark, tmp_path, monkeypatch, few):
    monkeypatch.setattr(crosswalk, "FEW", few)
    pairs = [("a", "a"), ("Patient/2", "m"), ("Patient/1", "m"), ("m", "z"), ("Patient/2", "m")]
    chain = [(f"n{n}", f"n{n + 1}") for n in range(10, 40)]
    crowd = [(f"Patient/c{n}", "777") for n in range(crosswalk.HOLDERS + 1)]
    later = [("Patient/3", "k"), ("Patient/4", "k")]
    units = [marked(links) for links in (pairs, chain, crowd, later)]
    out = Pending(files.address(tmp_path / "out"))
    [four] = named("Patient/4")
    before = [{"system": "#s", "identifier": i, "subject_id": four} for i in ("Patient/4", "a")]
    out.write(CROSSWALK, CROSSWALK.rows(before), name="before")
    held = Stored("before", out.place("before"), "k", None, tuple(out.parts["before"]))
    spool = Spool(out.scratch("units") / "u", units)
    made = shuffle.by_unit(spark, spool, linked, tables={"links": LINKS}, buckets=3).persist()
    links = sum(map(len, units))
    found = crosswalk.resolve(spark, made, links, out, buckets=3, parts=2, before=held)
    rows = [r for part in shuffle.gathered(found.known, CROSSWALK) for r in part.to_pylist()]
    assert {r["system"] for r in rows} == {"#s"}
    known = {r["identifier"]: r["subject_id"] for r in rows}
    one, a, least = named("Patient/1", "a", "n10")
    wanted = {"a": a, **dict.fromkeys(["Patient/1", "Patient/2", "m", "z"], one)}
    wanted |= dict.fromkeys(["Patient/3", "Patient/4", "k"], four)  # which named it before
    wanted |= {f"n{n}": least for n in range(10, 41)}
    crowded = [f"Patient/c{n}" for n in range(crosswalk.HOLDERS + 1)]
    wanted |= dict(zip(crowded, named(*crowded), strict=True))
    assert known == wanted
    assert found.shared == len(crowd) and found.merged == 2
    tables = [pq.read_table(file) for file in found.moved]
    assert all(np.all(np.diff(t.column("own").to_numpy()) > 0) for t in tables)
    moved = dict(
        zip(*(pa.concat_tables(tables).column(n).to_pylist() for n in ("own", "true")), strict=True)
    )
    assert len(moved) == 2 + 29 + 1  # those by which events name patients: links begin with them
    assert all(moved[own] == one for own in named("Patient/2", "m"))


def test_subjects_are_looked_up_once_for_many_slices():
    """A slice each would read all that moved again: at ten times the patients a hundred times."""
    asked = []

    def true(rows: pa.Table) -> pa.Table:
        asked.append(rows.num_rows)
        return blocks.renamed(rows, iter([(np.array([3]), np.array([8]))]))

    schema = pa.schema([pa.field("subject_id", pa.int64())])
    cutter = blocks.Cutter(schema, 4, true)
    for _ in range(100):
        assert not list(cutter.add(pa.table({"subject_id": [1, 3, 4]}, schema=schema)))
    cut = {bucket: rows for bucket, rows, _, _ in cutter.rest()}
    assert cut == {1: 100, 0: 200} and asked == [300]


@pytest.mark.parametrize("buckets", [1, 7])
@pytest.mark.parametrize("chunk", [1, 13, 100_000])
def test_buckets_and_chunks_change_nothing(spark, tmp_path, buckets, chunk):
    stored = clustered(spark, tmp_path, buckets)
    out = Pending(files.address(tmp_path / f"flow-{chunk}"))
    found = workers.by_patient(
        spark,
        {"events": (stored, ACQUIRED)},
        count,
        out=out,
        tables={"flow": FLOW},
        merges={"flow": flowed},
        chunk=chunk,
    )["flow"]
    written = pa.concat_tables([pq.read_table(f) for f in Path(out.place("flow")).iterdir()])
    ids, sizes = np.unique(events().column("subject_id").to_numpy(), return_counts=True)
    for rows in (found, written):
        told = {r["name"]: r["rows"] for r in rows.to_pylist()}
        assert told == {str(i): n for i, n in zip(ids, sizes, strict=True)}


def test_each_bucket_is_sorted_and_no_patient_is_in_two(spark, tmp_path):
    seen: set[int] = set()
    for file in clustered(spark, tmp_path, 5).files():
        table = pq.read_table(file)
        ids = table.column("subject_id").to_numpy()
        times = table.column("time").cast("int64").to_numpy()
        assert np.all(np.lexsort((times, ids)) == np.arange(len(ids)))
        assert not seen & set(ids.tolist())
        seen |= set(ids.tolist())


def test_a_fault_in_a_worker_is_told_as_ours(spark):
    def refuse(number):
        raise DataError("what happened", where="a stage", mend="mend it")

    with pytest.raises(DataError, match="what happened") as caught:
        workers.each(spark, 3, refuse)
    assert caught.value.mend == "mend it"


def test_a_fault_that_may_pass_is_tried_again_and_one_that_stays_is_told(spark, tmp_path):
    def trying(number, tries):
        mine = tmp_path / f"{number}-{len(list(tmp_path.glob(f'{number}-*')))}"
        mine.touch()
        if len(list(tmp_path.glob(f"{number}-*"))) < tries:
            raise OSError(5, "the store is away", "bucket/key")

    workers.each(spark, 2, partial(trying, tries=3))
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(StoreError, match="the store is away") as caught:
        workers.each(spark, 1, partial(trying, tries=99))
    assert caught.value.where == "bucket/key"


def test_the_session_is_the_callers_again_afterwards(spark):
    key, other = "spark.sql.ansi.enabled", "spark.sql.parquet.outputTimestampType"
    before = spark.conf.get(key)
    spark.conf.set(key, "false")
    spark.conf.unset(other)
    default = spark.conf.get(other)
    told: list[str] = []
    with settled(spark, {**SETTINGS, "spark.ui.port": "1"}, note=told.append):
        assert spark.conf.get(key) == "true"
        assert spark.conf.get(other) == "TIMESTAMP_MICROS"
    assert spark.conf.get(key) == "false" and spark.conf.get(other) == default
    assert len(told) == 1 and "spark.ui.port" in told[0]
    spark.conf.set(key, before)


def test_a_run_broadcasts_no_table_that_it_joins(spark):
    """What it joins grows with the patients: a broadcast table lies whole in the driver's heap."""
    with settled(spark):
        joined = spark.range(9).join(spark.range(9), "id")
        assert joined.count() == 9
        plan = joined._jdf.queryExecution().executedPlan().toString()
    assert "SortMergeJoin" in plan and "Broadcast" not in plan


def test_tasks_begin_no_further_ahead_than_they_run_side_by_side(spark):
    """Else all their answers would wait in the driver."""
    begun: list[int] = []

    def task(number: int) -> int:
        begun.append(number)
        return number

    made = at_once(spark, (partial(task, number) for number in range(20)))
    assert next(made) == 0 and len(begun) <= 3  # on two cores
    assert list(made) == list(range(1, 20))


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
    cut = list(groups(pieces, cores=2))
    assert [p for g in cut for p in g] == pieces


def test_a_native_blas_adds_up_alike_on_any_number_of_cores(spark):
    told = spark._jvm.System.getenv("OPENBLAS_NUM_THREADS")
    workers = spark.range(1).rdd.map(lambda _: __import__("os").environ["OPENBLAS_NUM_THREADS"])
    assert told == "1" and workers.collect() == ["1"]
