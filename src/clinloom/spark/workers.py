"""The only way into Python workers: units, rows and whole patients to kernels.

A kernel is a pure function of Arrow tables, picklable (a module's function, or a ``partial`` of
one). Workers open what they read and write their own files, each under a name of its own attempt;
what comes back through Spark is a receipt and small partial sums. The one shuffle is Spark's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark import StorageLevel

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address
from clinloom.spark import blocks, faults, placing, receipts, sums
from clinloom.spark.patients import Input, patients
from clinloom.spark.receipts import PROBLEM, RECEIPT, SLICE, Batches, Writing
from clinloom.spark.session import setting
from clinloom.spark.sums import Merge
from clinloom.spark.units import Spool
from clinloom.store import Part, Pending, Stored, coded
from clinloom.store.stored import stream
from clinloom.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

Parcels = Iterable[Mapping[str, pa.Table]]
UnitKernel = Callable[[Any], Parcels]
PatientKernel = Callable[..., Mapping[str, pa.Table]]
RowKernel = Callable[[pa.Table], pa.Table]
Check = Callable[[Iterator[pa.Table]], Iterator[pa.Table]]
PartialKernel = Callable[[Iterable[pa.Table]], pa.Table | None]

CHUNK = 1 << 19  # events that a kernel is handed at once, rounded up to a whole patient
ON_DISK = StorageLevel.DISK_ONLY  # of blocks that are read twice
TASKS = 4096  # partitions of one job, at most
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
        for number in numbers(batches):
            yield from cut(parcels(number))

    return _numbered(spark, len(units)).mapInArrow(_armed(work), SLICE)


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

    return frame.mapInArrow(_armed(work), SLICE)


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
            yield from receipts.slices(PROBLEM, [(0, 0, 0, _lasting(error).encode())], spots)
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

    return frame.where(f"kind = '{table.name}'").mapInArrow(_armed(work), columns)


def gathered(frame: DataFrame, table: Table) -> list[pa.Table]:
    """The slices of a table, on the driver: for few rows."""
    with faults.told():
        rows = frame.where(f"kind = '{table.name}'").select("block").collect()
    return [blocks.opened(bytes(row["block"]), coded(table)) for row in rows]


def packed(frame: DataFrame, kind: str, table: Table, *, buckets: int) -> DataFrame:
    """A frame's rows as slices of one kind."""
    spots, schema = placing.keys(buckets), coded(table)

    def work(batches: Batches) -> Batches:
        cutter = blocks.Cutter(schema, buckets)
        for batch in batches:
            yield from receipts.slices(kind, cutter.add(pa.Table.from_batches([batch])), spots)
        yield from receipts.slices(kind, cutter.rest(), spots)

    return frame.mapInArrow(_armed(work), SLICE)


def held(
    spark: SparkSession, kind: str, rows: pa.Table, table: Table, *, buckets: int
) -> DataFrame:
    """The driver's few rows as slices of one kind."""
    cutter, spots = blocks.Cutter(coded(table), buckets), placing.keys(buckets)
    made = [*cutter.add(rows), *cutter.rest()]
    cells = [(spots[b], b, kind, count, size, block) for b, count, size, block in made]
    return spark.createDataFrame(cells, SLICE)


def written(frame: DataFrame, table: Table, place: Address) -> list[Address]:
    """A frame's rows as files of a table, one a partition, where workers read them again."""

    def work(batches: Batches) -> Batches:
        with Writing({table.name: place}, {table.name: table}, 0) as writing:
            for batch in batches:
                writing.write({table.name: pa.Table.from_batches([batch])})
        yield from writing.receipts()

    with faults.told():
        rows = frame.mapInArrow(_armed(work), RECEIPT).collect()
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
        cutters = {kind: blocks.Cutter(schemas[kind], buckets) for kind in tables}
        for kind, *_, block in receipts.of_slices(batches):
            rows = blocks.renamed(blocks.opened(block, schemas[kind]), _moved(moved))
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
            yield receipts.receipt(PROBLEM, _lasting(error), None)

    targets = {name: out.place(name) for name, _ in tables.values()}
    if moved:
        kinds = ", ".join(f"'{kind}'" for kind in tables)
        frame = frame.where(f"kind in ({kinds})").mapInArrow(_armed(renamed), SLICE)
    together = frame.union(known) if known is not None else frame
    merged = together.repartition(buckets, "place").mapInArrow(_armed(merge), RECEIPT)
    if counting is not None:
        adding["counts"] = counting[1]
    with setting(together.sparkSession, BATCH_ROWS, str(ROWS_OF_BLOCKS)):
        return _settled(merged, out, adding, parts=buckets)


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


BATCH_ROWS = "spark.sql.execution.arrow.maxRecordsPerBatch"


def by_patient(
    spark: SparkSession,
    inputs: Mapping[str, tuple[Stored, Table]],
    kernel: PatientKernel,
    *,
    out: Pending,
    tables: Mapping[str, Table],
    columns: Mapping[str, Sequence[str]] | None = None,
    merges: Mapping[str, Merge] | None = None,
    chunk: int = CHUNK,
) -> dict[str, pa.Table]:
    """Hand whole patients to ``kernel(**tables)``; the inputs are bucketed alike.

    The first input is streamed in chunks of whole patients, the others are cut to the same
    patients. Of what the kernel answers, ``tables`` are written, a file a bucket; those named in
    ``merges`` are partial sums, merged by the workers: they come back, one small table each.
    """
    wanted = columns or {}
    laid = {name: stored.buckets() for name, (stored, _) in inputs.items()}
    found = sorted(set().union(*laid.values()))
    plan = [
        {
            name: Input(
                tuple(map(str, laid[name].get(bucket, ()))),
                table,
                tuple(wanted[name]) if name in wanted else None,
            )
            for name, (_, table) in inputs.items()
        }
        for bucket in found
    ]
    targets = {name: out.place(name) for name in tables}
    merging = dict(merges or {})

    def work(number: int) -> Iterator[pa.RecordBatch]:
        kept: dict[str, list[pa.Table]] = {name: [] for name in merging}
        with Writing(targets, tables, found[number]) as writing:
            for part in patients(plan[number], chunk):
                made = kernel(**part)
                writing.write(made)
                for name in merging:
                    if name in made and made[name].num_rows:
                        kept[name].append(made[name])
                        if len(kept[name]) > 64:
                            kept[name] = [merging[name](kept[name])]
        yield from writing.receipts()
        for name, parts in kept.items():
            if parts:
                yield receipts.receipt(name, None, sums.packed(merging[name](parts)))

    return tasks(spark, len(plan), work, out=out, merges=merging)


def tasks(
    spark: SparkSession,
    count: int,
    work: Callable[[int], Iterable[pa.RecordBatch]],
    *,
    out: Pending | None = None,
    merges: Mapping[str, Merge] | None = None,
) -> dict[str, pa.Table]:
    """Run ``work(number)`` for so many numbers; it yields :func:`partial` answers to be merged."""
    if not count:
        return {}

    def run(batches: Batches) -> Batches:
        for number in numbers(batches):
            try:
                yield from work(number)
            except Exception as error:
                yield receipts.receipt(PROBLEM, _lasting(error), None)

    made = _numbered(spark, count).mapInArrow(_armed(run), RECEIPT)
    return _settled(made, out, merges or {}, parts=min(count, TASKS))


def partial(name: str, table: pa.Table) -> pa.RecordBatch:
    """A task's part of the answer called ``name``."""
    return receipts.receipt(name, None, sums.packed(table))


def each(spark: SparkSession, count: int, do: Callable[[int], None]) -> None:
    """Run ``do(number)`` in workers for so many numbers; a fault of a task becomes our error."""

    def work(number: int) -> Iterable[pa.RecordBatch]:
        do(number)
        return ()

    tasks(spark, count, work)


def by_rows(frame: DataFrame, kernel: RowKernel, columns: str | StructType) -> DataFrame:
    """A frame's rows through ``kernel(table) -> table``, batch by batch; ``columns`` come out."""

    def work(batches: Batches) -> Batches:
        for batch in batches:
            yield from kernel(pa.Table.from_batches([batch])).combine_chunks().to_batches()

    return frame.mapInArrow(_armed(work), columns)


def summed(
    frame: DataFrame, partial: PartialKernel, merge: Merge, *, parts: int
) -> pa.Table | None:
    """A small answer about all rows of a frame, made of partial sums.

    ``partial(tables) -> table | None`` is handed a partition's rows as an iterator of tables;
    ``merge(tables) -> table`` joins such answers, in any order and grouping; of many ``parts``
    (the frame's partitions, about) workers merge first. None where no partition had an answer.
    """

    def work(batches: Batches) -> Batches:
        found = partial(pa.Table.from_batches([batch]) for batch in batches)
        if found is not None:
            yield receipts.receipt("sum", None, sums.packed(found))

    made = frame.mapInArrow(_armed(work), RECEIPT)
    return _settled(made, None, {"sum": merge}, parts=parts).get("sum")


def read(
    spark: SparkSession,
    stored: Stored,
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    kernel: RowKernel | None = None,
    rows: int = 1 << 14,
) -> DataFrame:
    """A committed table as a DataFrame, read by workers; ``kernel`` keeps or changes its rows.

    Spark itself needs no connector to the store. ``kernel`` keeps the columns.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    names = list(columns) if columns is not None else table.arrow.names
    schema = pa.schema([table.arrow.field(name) for name in names])
    addresses = [str(file) for file in stored.files()]

    def work(batches: Batches) -> Batches:
        for number in numbers(batches):
            for part in stream(addresses[number], names, rows, coded=False):
                kept = kernel(part) if kernel is not None else part
                yield from kept.select(names).cast(schema).combine_chunks().to_batches()

    made = _numbered(spark, len(addresses)) if addresses else spark.range(0)
    return made.mapInArrow(_armed(work), from_arrow_schema(schema))


def _settled(
    frame: DataFrame, out: Pending | None, merges: Mapping[str, Merge], *, parts: int
) -> dict[str, pa.Table]:
    """Run the tasks: note what they wrote, merge what they counted, raise what the first said."""
    halls = sums.halls(parts) if merges else 0
    if halls:

        def join(batches: Batches) -> Batches:
            held: dict[str, list[pa.Table]] = {}
            for batch in batches:
                for row in batch.to_pylist():
                    if row["sum"] is None:
                        yield receipts.receipt(row["name"], row["told"], None)
                    else:
                        held.setdefault(row["name"], []).append(sums.unpacked(row["sum"]))
            for name, tables in held.items():
                yield receipts.receipt(name, None, sums.packed(merges[name](tables)))

        frame = frame.repartition(halls).mapInArrow(_armed(join), RECEIPT)
    with faults.told():
        rows = frame.collect()
    counted: dict[str, list[pa.Table]] = {}
    for row in rows:
        if row["name"] == PROBLEM:
            raise faults.raised(row["told"])
        if row["sum"] is not None:
            counted.setdefault(row["name"], []).append(sums.unpacked(bytes(row["sum"])))
        elif out is not None:
            out.took(row["name"], [Part(*json.loads(row["told"]))])
    if out is not None:
        _seen(out)
    return {name: merges[name](tables) for name, tables in counted.items()}


def _seen(out: Pending) -> None:
    """Raise StoreError where workers wrote to a disk of their own that the driver does not see."""
    for name, parts in out.parts.items():
        if parts and out.root.local and not (out.place(name) / parts[-1].file).path.exists():
            raise StoreError(
                "workers wrote where this process cannot see it: each has a disk of its own",
                where=str(out.root),
                mend="give an --out that every machine reaches, such as hdfs:, s3: or abfss:",
            )


def _numbered(spark: SparkSession, count: int) -> DataFrame:
    """The numbers below ``count``, spread evenly."""
    return spark.range(0, count, 1, min(count, TASKS))


def numbers(batches: Batches) -> Iterator[int]:
    """The numbers of a task."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def _armed(work: Callable[[Batches], Batches]) -> Callable[[Batches], Batches]:
    """A task that opens storage as the driver does; what may pass is raised for Spark to retry."""
    options = files.settings()

    def armed(batches: Batches) -> Batches:
        pa.set_cpu_count(1)
        files.use(options)
        try:
            yield from work(batches)
        except OSError as error:
            raise faults.passing(error) from None

    return armed


def _lasting(error: Exception) -> str:
    """The fault as a receipt's text; raises it where another attempt may not meet it."""
    told = faults.lasting(error)
    if told is None:
        raise error
    return told


def _moved(places: Sequence[Address]) -> Iterator[tuple[Any, Any]]:
    for place in places:
        for part in stream(str(place), ["own", "true"], blocks.HELD, coded=False):
            yield part.column("own").to_numpy(), part.column("true").to_numpy()
