"""Who is who: identifiers of one patient, across records and sources, become one subject.

Two identifiers belong together where a source says so (a FHIR Patient and its medical record
number, a linked Patient). One of a connected set names the subject, whose ``subject_id`` is that
name's hash: the one that named it in the run before, else the least by its mark (see ``names``),
a record before its numbers. Events carry the hash of their own identifier until it is known who
stands for whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.errors import DataError
from clinloom.files import Address
from clinloom.identity.few import FORMER, HOLDERS, WALKED, anchors, few, paired
from clinloom.identity.names import MARK, plain
from clinloom.identity.names import pairs as parted
from clinloom.identity.subjects import hashed
from clinloom.spark import shuffle, workers
from clinloom.spark.session import setting
from clinloom.store import Pending, Stored, TableWriter
from clinloom.store.stored import of_files as stored
from clinloom.store.stored import stream
from clinloom.tables import CROSSWALK, LINKS, MOVED, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FEW = 200_000  # links that the driver resolves by itself
EACH = 500_000  # links in a partition where Spark does, at most
ROUNDS = 40  # of spreading labels; each about doubles how far one has spread
ROWS = 1 << 18  # of an earlier crosswalk that are looked at together
EDGES = Table("edges", "two identifiers of one patient", LINKS.columns)
PAIRS = "patient string, other string"
RECORD = "Patient/"  # a FHIR patient's own record, beside whom identifiers stand


@dataclass(frozen=True)
class Crosswalk:
    """What is known of identities.

    ``known``: the crosswalk's rows as slices, to be clustered with the events; ``moved``: files of
    those identifiers by which events name patients (``own``, ascending) and that stand for another
    subject (``true``);
    ``merged``: how many records turned out to be of a patient who had another; ``shared``: how many
    links were left out because of identifiers that more than HOLDERS records have.
    """

    known: DataFrame
    moved: tuple[Address, ...]
    merged: int
    shared: int = 0


def themselves(links: pa.Table) -> pa.Table:
    """The crosswalk's rows (CROSSWALK) of identifiers of which each stands for itself."""
    known = plain(pc.unique(links.column("patient")).cast(pa.string()))
    return pa.table([*parted(known), pa.array(hashed(known))], schema=CROSSWALK.arrow)


def distinct(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """A bucket's sorted rows of the crosswalk, each once.

    Raises DataError where a subject has two identifiers, each of which stands for itself.
    """
    last = None
    for rows in parts:
        once = rows.select(CROSSWALK.arrow.names)
        once = once.group_by(CROSSWALK.arrow.names, use_threads=False).aggregate([])
        if last is not None and once.slice(0, 1).equals(last):
            once = once.slice(1)
        if not once.num_rows:
            continue
        subject = once.column("subject_id").to_numpy()
        before = -1 if last is None else last.column("subject_id")[0].as_py()
        if (np.diff(subject, prepend=before) == 0).any():
            raise DataError(TWICE, mend="report this at once")
        last = once.slice(once.num_rows - 1)
        yield once


def resolve(
    spark: SparkSession,
    slices: DataFrame,
    links: int,
    out: Pending,
    *,
    buckets: int,
    parts: int,
    before: Stored | None = None,
) -> Crosswalk:
    """Find who is who from the links in slices, so many of them; say who moved.

    ``parts``: partitions that keep the cluster busy; many links go into more. ``before``: the
    crosswalk of an earlier run, by which subjects keep their names. Raises DataError if two
    identifiers' hashes are the same (about 1 in 10^7 for 10^6 patients).
    """
    if links <= FEW:
        return _by_driver(spark, slices, out, buckets=buckets, before=before)
    parts = max(parts, links // EACH)
    with setting(spark, "spark.sql.shuffle.partitions", str(parts)):
        return _by_spark(spark, slices, out, buckets=buckets, parts=parts, before=before)


def _by_driver(
    spark: SparkSession, slices: DataFrame, out: Pending, *, buckets: int, before: Stored | None
) -> Crosswalk:
    links = shuffle.gathered(slices, LINKS)
    rows, shared = few(links, _streamed(before))
    own, true = (rows.column(n).to_numpy() for n in ("own", "subject_id"))
    if len(np.unique(own)) < len(own):
        raise DataError(TWICE, mend="report this at once")
    order = np.argsort(own)
    order = order[(own[order] != true[order]) & np.isin(own[order], _bearing(links))]
    files: tuple[Address, ...] = ()
    if len(order):
        files = (out.scratch("moved") / "moved.parquet",)
        with TableWriter(files[0], MOVED) as writer:
            writer.write(pa.table({"own": own[order], "true": true[order]}))
    record = pc.starts_with(rows.column("identifier"), RECORD).to_numpy(zero_copy_only=False)
    merged = int(record.sum()) - len(np.unique(true[record]))
    known = shuffle.held(spark, rows.drop_columns(["own"]), CROSSWALK, buckets=buckets)
    return Crosswalk(known, files, merged, shared)


def _by_spark(
    spark: SparkSession,
    slices: DataFrame,
    out: Pending,
    *,
    buckets: int,
    parts: int,
    before: Stored | None,
) -> Crosswalk:
    links = shuffle.unpacked(slices, LINKS, paired, PAIRS)
    pairs, shared = _believed(links)
    if before is not None:
        pairs = _recalled(pairs, workers.read(spark, before, CROSSWALK))
    spread = _many(spark, pairs, out, parts)
    columns = "system string, identifier string, subject_id long, own long"
    named = workers.by_rows(spread, _crosswalk, columns)
    kept = shuffle.written(named, WALKED, out.scratch("crosswalk"))
    frame = workers.read(spark, stored("crosswalk", kept), WALKED)
    found = workers.summed(frame, _counted, _added, parts=len(kept))
    total = dict.fromkeys(COUNTS, 0) if found is None else found.to_pylist()[0]
    if frame.select("own").distinct().count() < total["rows"]:
        raise DataError(TWICE, mend="report this at once")
    bearing = workers.by_rows(links.select("patient").distinct(), _named, "own long")
    moved = frame.where("own <> subject_id").join(bearing, "own", "left_semi")
    moved = moved.selectExpr("own", "subject_id AS true")
    moved = moved.repartitionByRange(max(1, total["moved"] // MOST), "own")
    moved = moved.sortWithinPartitions("own")
    files = tuple(shuffle.written(moved, MOVED, out.scratch("moved")))
    records = frame.where(f"identifier LIKE '{RECORD}%'").select("subject_id").distinct().count()
    known = shuffle.packed(frame.drop("own"), CROSSWALK, buckets=buckets)
    return Crosswalk(known, files, total["records"] - records, shared)


TWICE = "two patients have the same hash"
MOST = 1_000_000  # moved subjects in a file
COUNTS = ("rows", "moved", "records")


def _crosswalk(labelled: pa.Table) -> pa.Table:
    """The crosswalk's rows of (patient, label), with each identifier's own hash."""
    name, label = (plain(labelled.column(n).combine_chunks()) for n in ("patient", "label"))
    columns = [*parted(name), pa.array(hashed(label)), pa.array(hashed(name))]
    return pa.table(columns, names=WALKED.arrow.names)


def _bearing(links: Sequence[pa.Table]) -> np.ndarray:
    """The hashes of the identifiers by which events name patients: links begin with them."""
    names = [pc.unique(part.column("patient")).cast(pa.string()) for part in links]
    return hashed(plain(pa.concat_arrays([*names, pa.array([], pa.string())])))


def _named(names: pa.Table) -> pa.Table:
    return pa.table({"own": _bearing([names])})


def _streamed(before: Stored | None) -> Iterator[pa.Table]:
    for file in before.files() if before is not None else ():
        yield from stream(str(file), CROSSWALK.arrow.names, ROWS, coded=False)


def _counted(tables: Iterable[pa.Table]) -> pa.Table | None:
    total = np.zeros(3, np.int64)
    for rows in tables:
        own, true = (rows.column(n).to_numpy() for n in ("own", "subject_id"))
        record = pc.starts_with(rows.column("identifier"), RECORD).to_numpy()
        total += [len(own), (own != true).sum(), record.sum()]
    return pa.table({name: [n] for name, n in zip(COUNTS, total.tolist(), strict=True)})


def _added(tables: Sequence[pa.Table]) -> pa.Table:
    whole = pa.concat_tables(tables)
    return pa.table({name: [pc.sum(whole.column(name)).as_py()] for name in COUNTS})


def _believed(pairs: DataFrame) -> tuple[DataFrame, int]:
    """Links without those to identifiers that too many records have, and how many these are."""
    from pyspark.sql import functions as F

    edges = pairs.where("patient <> other").distinct()
    held = edges.groupBy("other").agg(F.count("*").alias("holders")).where(f"holders > {HOLDERS}")
    shared = held.agg(F.sum("holders")).collect()[0][0] or 0
    if not shared:
        return pairs, 0
    kept = edges.join(held.select("other"), "other", "left_anti").select("patient", "other")
    return pairs.where("patient = other").union(kept), int(shared)


def _recalled(pairs: DataFrame, before: DataFrame) -> DataFrame:
    """Links in which the names that were a subject's before come first."""
    from pyspark.sql import functions as F

    def called(rows: pa.Table) -> pa.Table:
        return pa.table({"anchor": anchors(rows)})

    names = workers.by_rows(before, called, "anchor string")
    for end in ("patient", "other"):
        name = f"substring({end}, {MARK + 1})"
        former = f"CASE WHEN anchor IS NULL THEN {end} ELSE concat('{FORMER}', substring({end}, 2))"
        pairs = pairs.join(names, F.expr(f"anchor = {name}"), "left")
        pairs = pairs.withColumn(end, F.expr(f"{former} END")).drop("anchor")
    return pairs


def _many(spark: SparkSession, pairs: DataFrame, out: Pending, parts: int) -> DataFrame:
    """The same by Spark: the least label spreads along links, and along labels' own labels.

    Every round is written and read again, so that plans stay small and a lost executor costs
    a round at most.
    """
    from pyspark.sql import functions as F

    def kept(frame: DataFrame, name: str) -> DataFrame:
        files = shuffle.written(frame.toDF("patient", "other"), EDGES, out.scratch(name))
        return workers.read(spark, stored(name, files), EDGES)

    both = pairs.union(pairs.select("other", "patient"))
    for name in ("patient", "other"):  # everybody has itself
        both = both.union(pairs.select(name, name))
    both = kept(both.distinct().repartition(parts), "edges")
    label = kept(both.groupBy("patient").agg(F.min("other")), "labels")
    for turn in range(ROUNDS):
        far = label.select(F.col("patient").alias("label"), F.col("other").alias("further"))
        near = label.withColumnRenamed("other", "label")
        jumped = near.join(far, "label").select(F.col("patient").alias("other"), "further")
        spread = both.join(jumped, "other").groupBy("patient").agg(F.min("further"))
        spread = kept(spread, f"labels-{turn}")
        before = label.select("patient", F.col("other").alias("before"))
        changed = spread.join(before, "patient").where("other <> before").count()
        label = spread
        if not changed:
            return label.withColumnRenamed("other", "label")
    raise DataError(
        f"a patient's identifiers form a chain too long to follow in {ROUNDS} rounds",
        where="links",
        mend="is an identifier shared by many patients, such as a placeholder?",
    )
