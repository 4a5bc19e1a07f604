"""The one shuffle: slices of rows on their way through Spark, and what becomes of them.

A worker cuts what a kernel yields into slices (see ``blocks``); Spark brings those of a bucket
together, and another worker merges and writes them. Slices that are read twice wait on Spark's own
disks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark import StorageLevel

from clinloom.files import Address
from clinloom.spark import blocks, faults, placing, receipts, sums, workers
from clinloom.spark.receipts import PROBLEM, RECEIPT, SLICE, Batches, Writing
from clinloom.spark.session import setting
from clinloom.spark.sums import Merge
from clinloom.spark.units import Spool
from clinloom.spark.workers import RowKernel
from clinloom.store import Pending, coded
from clinloom.store.stored import stream
from clinloom.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Parcels = Iterable[Mapping[str, pa.Table]]
UnitKernel = Callable[[Any], Parcels]
Check = Callable[[Iterator[pa.Table]], Iterator[pa.Table]]
ON_DISK = StorageLevel.DISK_ONLY  # of slices that are read twice
BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"
ROWS_OF_BLOCKS = 64  # of a slice each: an Arrow batch of some 20 MB


def by_unit(
    spark: SparkSession,
    units: Spool,
    kernel: UnitKernel,
    *,
    tables: Mapping[str, Table],
    buckets: int,
) -> DataFrame:
    """What ``kernel(unit)`` yields, a table for each name, cut into rows of SLICE.

    A unit is a part of a source that a worker opens itself. Rows of the kind ``problem`` tell of
    faults; see :func:`settle`. Persist the frame where it is read twice.
    """
    cut = _cutting(tables, buckets)

    def parcels(number: int) -> Iterator[Mapping[str, pa.Table]]:
        yield from kernel(units.unit(number))

    def work(batches: Batches) -> Batches:
        for number in workers.numbers(batches):
            yield from cut(parcels(number))

    return workers.through(workers.numbered(spark, len(units)), work, SLICE)


def by_table(
    frame: DataFrame,
    kernel: Callable[[Iterator[pa.Table]], Parcels],
    *,
    tables: Mapping[str, Table],
    buckets: int,
) -> DataFrame:
    """What ``kernel`` yields of a DataFrame's rows, handed on a partition at a time, as
    :func:`by_unit` gives it."""
    cut = _cutting(tables, buckets)

    def parcels(batches: Batches) -> Iterator[Mapping[str, pa.Table]]:
        yield from kernel(pa.Table.from_batches([batch]) for batch in batches)

    def work(batches: Batches) -> Batches:
        yield from cut(parcels(batches))

    return workers.through(frame, work, SLICE)


def _cutting(tables: Mapping[str, Table], buckets: int) -> Callable[[Parcels], Batches]:
    """How workers cut what a kernel yields; its fault becomes a row of the kind ``problem``."""
    schemas = {name: coded(table) for name, table in tables.items()}
    spots = placing.keys(buckets)

    def cut(parcels: Parcels) -> Batches:
        cutters = {name: blocks.Cutter(schema, buckets) for name, schema in schemas.items()}
        try:
            for parcel in parcels:
                for name, rows in parcel.items():
                    if name in cutters and rows.num_rows:
                        yield from receipts.slices(name, cutters[name].add(rows), spots)
        except Exception as error:
            yield from receipts.slices(PROBLEM, [(0, 0, 0, workers.lasting(error).encode())], spots)
            return
        for name, cutter in cutters.items():
            yield from receipts.slices(name, cutter.rest(), spots)

    return cut


def settle(frame: DataFrame) -> dict[str, int]:
    """Run the units; how many rows of each kind there were. Raises what the first fault said."""
    from pyspark.sql import functions as F

    with faults.told():
        problem = F.when(F.col("kind") == PROBLEM, F.col("block"))
        problem = F.first(problem, ignorenulls=True).alias("problem")
        found = frame.groupBy("kind").agg(F.sum("rows").alias("rows"), problem).collect()
    for row in found:
        if row["kind"] == PROBLEM:
            raise faults.raised(bytes(row["problem"]).decode())
    return {row["kind"]: row["rows"] for row in found}


def unpacked(frame: DataFrame, table: Table, kernel: RowKernel, columns: str) -> DataFrame:
    """The rows in the slices of a table, through ``kernel``."""
    schema = coded(table)

    def work(batches: Batches) -> Batches:
        for *_, block in receipts.of_slices(batches):
            yield from kernel(blocks.opened(block, schema)).combine_chunks().to_batches()

    return workers.through(frame.where(f"kind = '{table.name}'"), work, columns)


def gathered(frame: DataFrame, table: Table) -> list[pa.Table]:
    """The slices of a table, on the driver: for few rows."""
    with faults.told():
        rows = frame.where(f"kind = '{table.name}'").select("block").collect()
    return [blocks.opened(bytes(row["block"]), coded(table)) for row in rows]


def together(
    frame: DataFrame, table: Table, kernel: Callable[[list[pa.Table]], pa.Table], *, parts: int
) -> pa.Table | None:
    """A small answer about a table's slices: ``kernel`` is handed each bucket's, all of them.

    None where there is no slice.
    """
    schema = coded(table)

    def work(batches: Batches) -> Batches:
        held: dict[int, list[pa.Table]] = {}
        for _, bucket, *_, block in receipts.of_slices(batches):
            held.setdefault(bucket, []).append(blocks.opened(block, schema))
        for some in held.values():
            yield receipts.receipt(table.name, None, sums.packed(kernel(some)))

    met = frame.where(f"kind = '{table.name}'").repartition(parts, "place")
    made = workers.through(met, work, RECEIPT)
    return workers.settled(made, None, {table.name: pa.concat_tables}, parts=parts).get(table.name)


def packed(frame: DataFrame, table: Table, *, buckets: int) -> DataFrame:
    """A frame's rows as slices of a table."""
    spots, schema = placing.keys(buckets), coded(table)

    def work(batches: Batches) -> Batches:
        cutter = blocks.Cutter(schema, buckets)
        for batch in batches:
            yield from receipts.slices(
                table.name, cutter.add(pa.Table.from_batches([batch])), spots
            )
        yield from receipts.slices(table.name, cutter.rest(), spots)

    return workers.through(frame, work, SLICE)


def held(spark: SparkSession, rows: pa.Table, table: Table, *, buckets: int) -> DataFrame:
    """The driver's few rows as slices of a table."""
    cutter, spots = blocks.Cutter(coded(table), buckets), placing.keys(buckets)
    made = [*cutter.add(rows), *cutter.rest()]
    cells = [(spots[b], b, table.name, count, size, block) for b, count, size, block in made]
    return spark.createDataFrame(cells, SLICE)


def written(frame: DataFrame, table: Table, place: Address) -> list[Address]:
    """A frame's rows as files of a table, one a partition, where workers read them again."""

    def work(batches: Batches) -> Batches:
        with Writing({table.name: place}, {table.name: table}, 0) as writing:
            for batch in batches:
                writing.write({table.name: pa.Table.from_batches([batch])})
        yield from writing.receipts()

    with faults.told():
        rows = workers.through(frame, work, RECEIPT).collect()
    return [place / json.loads(row["told"])[0] for row in rows]


def cluster(
    frame: DataFrame,
    *,
    out: Pending,
    tables: Mapping[str, tuple[str, Table]],
    buckets: int,
    known: DataFrame | None = None,
    moved: Sequence[Address] = (),
    merges: Mapping[str, tuple[Table, Merge]] | None = None,
    counting: tuple[Callable[[str, pa.Table], pa.Table], Merge] | None = None,
    checks: Mapping[str, Check] | None = None,
) -> dict[str, pa.Table]:
    """The one shuffle: slices become a sorted file a bucket and table.

    ``tables``: for each kind the name that its table gets, and its declaration; the rows' order is
    ``blocks.sorting``, however units were grouped; an empty bucket has no file. ``moved``: files of
    ``own`` and ``true``, by which subjects that turned out to be others are renamed, and the slices
    of ``frame`` cut anew; those of ``known`` are right already. ``merges``: kinds that are
    added up, not written. ``counting``: ``partial(name, rows)`` of everything written, and its
    merge; both come back. ``checks``: what a kind's sorted rows pass through on their way.
    """
    spots, checking = placing.keys(buckets), dict(checks or {})
    adding = {kind: merge for kind, (_, merge) in (merges or {}).items()}
    schemas = {kind: coded(table) for kind, (_, table) in tables.items()}
    schemas |= {kind: coded(table) for kind, (table, _) in (merges or {}).items()}

    def renamed(batches: Batches) -> Batches:
        def true(rows: pa.Table) -> pa.Table:
            return blocks.renamed(rows, movements(moved))

        cutters = {kind: blocks.Cutter(schemas[kind], buckets, true) for kind in tables}
        for kind, *_, block in receipts.of_slices(batches):
            rows = blocks.opened(block, schemas[kind])
            yield from receipts.slices(kind, cutters[kind].add(rows), spots)
        for kind, cutter in cutters.items():
            yield from receipts.slices(kind, cutter.rest(), spots)

    def merge(batches: Batches) -> Batches:
        held: dict[tuple[int, str], blocks.Bucket] = {}
        added: dict[str, list[pa.Table]] = {}
        for kind, bucket, count, size, block in receipts.of_slices(batches):
            if kind == PROBLEM:
                yield receipts.receipt(PROBLEM, block.decode(), None)
            elif kind in adding:
                added.setdefault(kind, []).append(blocks.opened(block, schemas[kind]))
            else:
                found = held.setdefault((bucket, kind), blocks.Bucket(schemas[kind]))
                found.add(block, count, size)
        for kind, tallies in added.items():
            yield receipts.receipt(kind, None, sums.packed(adding[kind](tallies)))
        try:
            for (bucket, kind), rows in sorted(held.items()):
                check = checking.get(kind)
                parts = rows.sorted() if check is None else check(rows.sorted())
                yield from _merged(bucket, parts, targets, *tables[kind], counting)
                held[bucket, kind] = blocks.Bucket(schemas[kind])  # let go of what is written
        except Exception as error:
            yield receipts.receipt(PROBLEM, workers.lasting(error), None)

    targets = {name: out.place(name) for name, _ in tables.values()}
    if moved:
        kinds = ", ".join(f"'{kind}'" for kind in tables)
        frame = workers.through(frame.where(f"kind in ({kinds})"), renamed, SLICE)
    together = frame.union(known) if known is not None else frame
    merged = workers.through(together.repartition(buckets, "place"), merge, RECEIPT)
    if counting is not None:
        adding["counts"] = counting[1]
    with setting(together.sparkSession, BATCH_ROWS, str(ROWS_OF_BLOCKS)):
        return workers.settled(merged, out, adding, parts=buckets)


def _merged(
    bucket: int,
    rows: Iterable[pa.Table],
    places: Mapping[str, Address],
    name: str,
    table: Table,
    counting: tuple[Callable[[str, pa.Table], pa.Table], Merge] | None,
) -> Batches:
    """Write the rows of one table and bucket; what was written, and its counts."""
    counted: list[pa.Table] = []
    with Writing(places, {name: table}, bucket) as writing:
        for part in rows:
            writing.write({name: part})
            if counting is not None:
                counted.append(counting[0](name, part))
    yield from writing.receipts()
    if counting is not None and counted:
        yield receipts.receipt("counts", None, sums.packed(counting[1](counted)))


def movements(places: Sequence[Address]) -> Iterator[tuple[Any, Any]]:
    """Subjects that turned out to be others (own, true), as :func:`cluster` is told of them."""
    for place in places:
        for part in stream(str(place), ["own", "true"], blocks.HELD, coded=False):
            yield part.column("own").to_numpy(), part.column("true").to_numpy()
