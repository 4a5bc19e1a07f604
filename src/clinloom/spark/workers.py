"""The only way into Python workers: units, rows and whole patients to kernels.

A kernel is a pure function of Arrow tables, picklable (a module's function, or a ``partial`` of
one). Workers open what they read and write their own files, each under a name of its own attempt;
what comes back through Spark is a receipt and small partial sums. The one shuffle is ``shuffle``.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from clinloom import files
from clinloom.errors import StoreError
from clinloom.spark import faults, receipts, sums
from clinloom.spark.patients import Input, patients
from clinloom.spark.receipts import PROBLEM, RECEIPT, Batches, Writing
from clinloom.spark.sums import Merge
from clinloom.store import Part, Pending, Stored
from clinloom.store.stored import stream
from clinloom.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

PatientKernel = Callable[..., Mapping[str, pa.Table]]
RowKernel = Callable[[pa.Table], pa.Table]
PartialKernel = Callable[[Iterable[pa.Table]], pa.Table | None]

CHUNK = 1 << 19  # events that a kernel is handed at once, rounded up to a whole patient
TASKS = 4096  # partitions of one job, at most


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
                yield receipts.receipt(PROBLEM, lasting(error), None)

    made = through(numbered(spark, count), run, RECEIPT)
    return settled(made, out, merges or {}, parts=min(count, TASKS))


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

    return through(frame, work, columns)


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

    made = through(frame, work, RECEIPT)
    return settled(made, None, {"sum": merge}, parts=parts).get("sum")


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

    made = numbered(spark, len(addresses)) if addresses else spark.range(0)
    return through(made, work, from_arrow_schema(schema))


def settled(
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

        frame = through(frame.repartition(halls), join, RECEIPT)
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


def numbered(spark: SparkSession, count: int) -> DataFrame:
    """The numbers below ``count``, spread evenly."""
    return spark.range(0, count, 1, min(count, TASKS))


def numbers(batches: Batches) -> Iterator[int]:
    """The numbers of a task."""
    for batch in batches:
        yield from batch.column(0).to_pylist()


def through(
    frame: DataFrame, work: Callable[[Batches], Batches], columns: str | StructType
) -> DataFrame:
    """A frame's batches through ``work`` in workers; ``columns`` come out."""
    return frame.mapInArrow(_armed(work), columns)


def _armed(work: Callable[[Batches], Batches]) -> Callable[[Batches], Batches]:
    """A task that opens storage as the driver does; what may pass is raised for Spark to retry."""
    options = files.settings()

    def armed(batches: Batches) -> Batches:
        pa.set_cpu_count(1)
        # Arrow's own allocator asks the kernel for huge pages, which it clears anew each time: half
        # of the processor time of what reads and cuts long texts.
        pa.set_memory_pool(pa.system_memory_pool())
        if not gc.get_freeze_count():  # a collection after every task: not of libraries as well
            gc.freeze()
        files.use(options)
        try:
            yield from work(batches)
        except OSError as error:
            raise faults.passing(error) from None

    return armed


def lasting(error: Exception) -> str:
    """The fault as a receipt's text; raises it where another attempt may not meet it."""
    told = faults.lasting(error)
    if told is None:
        raise error
    return told
