"""The only way into Python workers: ``by_file`` and ``by_patient``, and the one shuffle between.

Workers open files themselves and write their own output files, whole or not at all, so no row
crosses the JVM; ``cluster`` shuffles by files. A kernel is a pure function of Arrow tables; it
must be picklable (a module's function, or ``functools.partial`` of one).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clinloom.errors import ClinloomError, StoreError
from clinloom.files import Piece
from clinloom.spark import blocks, sums
from clinloom.spark.blocks import BlockWriter
from clinloom.spark.session import cores
from clinloom.spark.sums import Merge
from clinloom.store import DICTIONARY, Pending, Stored, TableWriter, disk_full
from clinloom.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType

FileKernel = Callable[[Sequence[Piece]], Iterable[Mapping[str, pa.Table]]]
PatientKernel = Callable[..., Mapping[str, pa.Table]]
RowKernel = Callable[[pa.Table], pa.Table]
PartialKernel = Callable[[Iterable[pa.Table]], pa.Table | None]

CHUNK = 1 << 19  # events that a kernel is handed at once, rounded up to a whole patient
RECEIPT = "task long, problem string"
SUM = "sum binary"


def by_file(
    spark: SparkSession,
    groups: Sequence[Sequence[Piece]],
    kernel: FileKernel,
    *,
    out: Pending,
    places: Mapping[str, Path],
    tables: Mapping[str, Table],
    spread: Mapping[str, int] | None = None,
) -> None:
    """Hand each group of files to a worker; ``kernel`` yields parcels, a table for each name.

    ``places`` says where each named table goes; a worker writes one file a group and table, or,
    where ``spread`` names the table, blocks for ``cluster``, one for each of so many buckets.
    """
    work = out.scratch(f"groups-{len(list((out.folder / '.scratch').glob('*')))}")
    for number, group in enumerate(groups):
        (work / f"{number}.json").write_text(json.dumps([asdict(piece) for piece in group]))
    targets = {name: str(path) for name, path in places.items()}
    folder = str(work)

    def task(number: int) -> None:
        pieces = [Piece(**p) for p in json.loads((Path(folder) / f"{number}.json").read_text())]
        _write(kernel(pieces), number, targets, tables, spread or {})

    each(spark, range(len(groups)), task)


def by_patient(
    spark: SparkSession,
    inputs: Mapping[str, Stored],
    kernel: PatientKernel,
    *,
    places: Mapping[str, Path],
    tables: Mapping[str, Table],
    columns: Mapping[str, Sequence[str]] | None = None,
    chunk: int = CHUNK,
) -> None:
    """Hand whole patients to ``kernel(**tables)``; the inputs are bucketed alike.

    The first input is streamed in chunks of whole patients, the others are cut to the same
    patients. The kernel answers a mapping from table names to tables.
    """
    paths = {name: str(stored.path) for name, stored in inputs.items()}
    wanted = {name: list(names) for name, names in (columns or {}).items()}
    targets = {name: str(path) for name, path in places.items()}
    names = {f.name for stored in inputs.values() for f in stored.files()}
    buckets = sorted(int(name[5:10]) for name in names)

    def task(bucket: int) -> None:
        parts = patients(paths, bucket, wanted, chunk)
        _write((kernel(**part) for part in parts), bucket, targets, tables)

    each(spark, buckets, task)


def patients(
    paths: Mapping[str, str], bucket: int, columns: Mapping[str, Sequence[str]], chunk: int
) -> Iterator[dict[str, pa.Table]]:
    """A bucket's tables in chunks of whole patients, in flat memory."""
    (first, *others) = paths
    rest = {name: _whole(paths[name], bucket, columns.get(name)) for name in others}
    subjects = {name: table.column("subject_id").to_numpy() for name, table in rest.items()}
    done = {name: 0 for name in others}

    def cut(upto: int | None) -> dict[str, pa.Table]:
        part = {}
        for name in others:
            end = len(subjects[name])
            if upto is not None:
                end = int(np.searchsorted(subjects[name], upto, side="left"))
            part[name] = rest[name].slice(done[name], end - done[name])
            done[name] = end
        return part

    held: list[pa.Table] = []
    for batch in _stream(paths[first], bucket, columns.get(first), chunk):
        held.append(batch)
        last = batch.column("subject_id")[-1].as_py()
        ids = batch.column("subject_id").to_numpy()
        begins = int(np.searchsorted(ids, last, side="left"))
        earlier = held[:-1]
        if not begins and (not earlier or earlier[0].column("subject_id")[0].as_py() == last):
            continue  # one patient fills the whole chunk: read on
        if begins == 0 and earlier[-1].column("subject_id")[-1].as_py() == last:
            whole = pa.concat_tables(held)
            begins = int(np.searchsorted(whole.column("subject_id").to_numpy(), last, side="left"))
            held = [whole.slice(begins)]
            yield {first: _joined([whole.slice(0, begins)]), **cut(last)}
            continue
        yield {first: _joined([*earlier, batch.slice(0, begins)]), **cut(last)}
        held = [batch.slice(begins)]
    if held:
        yield {first: _joined(held), **cut(None)}
    elif any(len(s) for s in subjects.values()):
        schema = _schema(paths[first], columns.get(first))
        if schema is not None:
            yield {first: schema.empty_table(), **cut(None)}


def _joined(parts: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


def _open(path: str | Path, columns: Sequence[str] | None) -> pq.ParquetFile:
    names = set(pq.read_schema(path).names) if columns is None else set(columns)
    return pq.ParquetFile(path, read_dictionary=sorted(names & DICTIONARY), memory_map=True)


def _stream(
    path: str, bucket: int, columns: Sequence[str] | None, chunk: int
) -> Iterator[pa.Table]:
    file = Path(path) / f"part-{bucket:05d}.parquet"
    if not file.exists():
        return
    opened = _open(file, columns)
    for batch in opened.iter_batches(batch_size=chunk, columns=columns, use_threads=False):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _whole(path: str, bucket: int, columns: Sequence[str] | None) -> pa.Table:
    file = Path(path) / f"part-{bucket:05d}.parquet"
    if not file.exists():
        schema = _schema(path, columns)
        return schema.empty_table() if schema is not None else pa.table({"subject_id": []})
    return _open(file, columns).read(columns=columns, use_threads=False)


def _schema(path: str, columns: Sequence[str] | None) -> pa.Schema | None:
    for file in sorted(Path(path).glob("part-*.parquet")):
        return (
            _open(file, columns).read_row_group(0, columns=columns).schema
            if (pq.read_metadata(file).num_row_groups)
            else pq.read_schema(file)
        )
    return None


def cluster(
    spark: SparkSession,
    spread: Mapping[str, Path],
    *,
    places: Mapping[str, Path],
    tables: Mapping[str, Table],
    buckets: int,
    moved: Path | None = None,
) -> None:
    """The one shuffle: the blocks that ``by_file`` wrote become a sorted file a bucket and table.

    The rows' order is ``blocks.sorting``, however files were grouped; an empty bucket has no file.
    ``moved`` (a ``.npy`` of int64 (2, n): subjects, ascending, and who they are) renames subjects
    that turned out to be others.
    """
    folders = {name: str(path) for name, path in spread.items()}
    targets = {name: str(path) for name, path in places.items()}
    if moved is not None:
        folders = _moved(spark, folders, tables=tables, buckets=buckets, moved=str(moved))

    def task(bucket: int) -> None:
        for name, folder in folders.items():
            parts = blocks.in_order(sorted(Path(folder).rglob("*.arrow")), bucket)
            _write(({name: rows} for rows in parts), bucket, targets, tables)

    each(spark, range(buckets), task)


def _moved(
    spark: SparkSession,
    folders: Mapping[str, str],
    *,
    tables: Mapping[str, Table],
    buckets: int,
    moved: str,
) -> dict[str, str]:
    """Cut the blocks anew, with each subject's true name; where they lie then."""
    targets = {name: f"{moved}.{name}" for name in folders}
    files = [
        (n, str(f)) for n, path in folders.items() for f in sorted(Path(path).rglob("*.arrow"))
    ]

    def task(number: int) -> None:
        name, file = files[number]
        names = np.load(moved, mmap_mode="r")
        with BlockWriter(Path(targets[name]) / str(number), tables[name], buckets) as writer:
            for bucket in range(buckets):
                writer.write(blocks.renamed(blocks.block(Path(file), bucket), names))

    each(spark, range(len(files)), task)
    return targets


def by_rows(frame: DataFrame, kernel: RowKernel, columns: str | StructType) -> DataFrame:
    """A frame's rows through ``kernel(table) -> table``, batch by batch; ``columns`` come out."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pa.set_cpu_count(1)
        for batch in batches:
            yield from kernel(pa.Table.from_batches([batch])).combine_chunks().to_batches()

    return frame.mapInArrow(work, columns)


def summed(
    frame: DataFrame, partial: PartialKernel, merge: Merge, *, parts: int
) -> pa.Table | None:
    """A small answer about all rows of a frame, made of partial sums.

    ``partial(tables) -> table | None`` is handed a partition's rows as an iterator of tables;
    ``merge(tables) -> table`` joins such answers, in any order and grouping; of many ``parts``
    (the frame's partitions, about) workers merge first. None where no partition had an answer.
    """

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pa.set_cpu_count(1)
        found = partial(pa.Table.from_batches([batch]) for batch in batches)
        if found is not None:
            yield _sum(found)

    def join(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [sums.unpacked(b) for batch in batches for b in batch.column(0).to_pylist()]
        if parts:
            yield _sum(merge(parts))

    made = frame.mapInArrow(work, SUM)
    halls = sums.halls(parts)
    if halls:
        made = made.repartition(halls).mapInArrow(join, SUM)
    found = [sums.unpacked(bytes(row["sum"])) for row in made.collect()]
    return merge(found) if found else None


def _sum(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([sums.packed(table)], pa.binary())], ["sum"])


def each(spark: SparkSession, numbers: Iterable[int], task: Callable[[int], None]) -> None:
    """Run ``task`` for each number in Spark's workers; a fault of a task becomes our error."""
    todo = list(numbers)
    if not todo:
        return
    slices = min(len(todo), 4096)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pa.set_cpu_count(1)
        for batch in batches:
            for position in batch.column(0).to_pylist():
                problem = None
                try:
                    task(todo[position])
                except (ClinloomError, OSError) as error:
                    problem = _problem(error)
                yield _receipt(position, problem)

    frame = spark.range(0, len(todo), 1, slices)
    _settle(frame.mapInArrow(work, RECEIPT))


def _receipt(task: int, problem: str | None) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([task], pa.int64()), pa.array([problem], pa.string())], ["task", "problem"]
    )


def _problem(error: BaseException) -> str:
    if disk_full(error):
        return json.dumps(["OSError", "No space left on device", None, None])
    if isinstance(error, ClinloomError):
        return json.dumps([type(error).__name__, error.message, error.where, error.mend])
    reason = error.strerror if isinstance(error, OSError) else None
    name = getattr(error, "filename", None)
    return json.dumps(["StoreError", reason or type(error).__name__, name, None])


def _settle(frame: DataFrame) -> None:
    """Run the tasks; raise what the first failed one said."""
    from clinloom import errors

    for row in frame.collect():
        if row["problem"] is not None:
            kind, message, where, mend = json.loads(row["problem"])
            if kind == "OSError":
                raise OSError(28, message)
            raise getattr(errors, kind, StoreError)(message, where=where, mend=mend)


def _write(
    parcels: Iterable[Mapping[str, pa.Table]],
    number: int,
    places: Mapping[str, str],
    tables: Mapping[str, Table],
    spread: Mapping[str, int] = {},  # noqa: B006 - never changed
) -> None:
    """Write what a kernel yields: one file a table, whole or not at all, or blocks."""
    writers: dict[str, TableWriter | BlockWriter] = {}
    failed: BaseException | None = None
    try:
        for parcel in parcels:
            for name, rows in parcel.items():
                if name not in places or not rows.num_rows:
                    continue
                if name not in writers:
                    file = Path(places[name]) / f"part-{number:05d}"
                    writers[name] = (
                        BlockWriter(file, tables[name], spread[name])
                        if name in spread
                        else TableWriter(file.with_suffix(".parquet"), tables[name])
                    ).__enter__()
                writers[name].write(rows)
    except BaseException as error:
        failed = error
        raise
    finally:
        for writer in writers.values():
            writer.__exit__(type(failed) if failed else None, failed, None)


def bucket_count(size: int, spark: SparkSession) -> int:
    """How many buckets for ``size`` bytes of input: flat memory, and work for every core."""
    return int(min(1024, max(2 * cores(spark), -(-size // (48 << 20)))))
