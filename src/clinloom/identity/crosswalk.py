"""Who is who: identifiers of one patient, across records and sources, become one subject.

Two identifiers belong together where a source says so (a FHIR Patient and its medical record
number, a linked Patient). The least identifier of a connected set stands for the patient, and
``subject_id`` is a hash of it, so a subject is the same however data arrive. Events carry the hash
of their own identifier until it is known who stands for whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.errors import DataError
from clinloom.files import Address
from clinloom.identity.subjects import hashed, subjects
from clinloom.spark import workers
from clinloom.store import Pending
from clinloom.store.stored import of_files as stored
from clinloom.tables import CROSSWALK, LINKS, MOVED, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FEW = 200_000  # links that the driver resolves by itself
ROUNDS = 40  # of spreading labels; each about doubles how far one has spread
EDGES = Table("edges", "two identifiers of one patient", LINKS.columns)
PAIRS = "patient string, other string"
RECORD = "Patient/"  # a FHIR patient's own record, beside whom identifiers stand


@dataclass(frozen=True)
class Crosswalk:
    """What is known of identities.

    ``blocks``: the crosswalk's rows, packed, to be clustered with the events; ``moved``: files of
    subjects by their own identifiers (``own``, ascending) and their true subjects (``true``);
    ``merged``: how many records turned out to be of a patient who had another.
    """

    blocks: DataFrame
    moved: tuple[Address, ...]
    merged: int


def named(parcel: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """A parcel's tables with ``subject_id``, by its own identifier, for ``patient``."""
    out = {}
    for name, rows in parcel.items():
        if name != "links" and "patient" in rows.column_names:
            own = subjects(rows.column("patient"))
            rows = rows.drop_columns(["patient"]).append_column("subject_id", own)
        out[name] = rows
    return out


def resolve(
    spark: SparkSession, blocks: DataFrame, links: int, out: Pending, *, parts: int
) -> Crosswalk:
    """Find who is who from the ``links`` in blocks, so many of them; say who moved.

    Raises DataError if two identifiers' hashes are the same (about 1 in 10^7 for 10^6 patients).
    """
    pairs = workers.unpacked(blocks, "links", _pairs, PAIRS)
    if links <= FEW:
        known = spark.createDataFrame(_few(pairs).to_pandas(), "patient string, label string")
        spread = known.coalesce(1)
    else:
        spread = _many(spark, pairs, out, parts)
    rows = workers.by_rows(spread, _crosswalk, "identifier string, subject_id long, own long")
    rows = rows.persist()
    try:
        found = workers.summed(rows, _counted, _added, parts=parts)
        total = dict.fromkeys(COUNTS, 0) if found is None else found.to_pylist()[0]
        if total["rows"] and rows.select("own").distinct().count() < total["rows"]:
            raise DataError("two patients have the same hash", mend="report this at once")
        moved = rows.where("own <> subject_id").selectExpr("own", "subject_id AS true")
        files = ()
        if total["moved"]:
            sorted_ = moved.repartitionByRange(max(1, total["moved"] // MOST), "own").sort("own")
            files = tuple(workers.written(sorted_, MOVED, out.scratch("moved")))
        merged = 0
        if total["records"]:
            true = rows.where(f"identifier LIKE '{RECORD}%'")
            merged = total["records"] - true.select("subject_id").distinct().count()
        packed = workers.packed(rows.drop("own"), "crosswalk", CROSSWALK.arrow).persist()
        packed.count()
    finally:
        rows.unpersist()
    return Crosswalk(packed, files, merged)


MOST = 1_000_000  # moved subjects in a file
COUNTS = ("rows", "moved", "records")


def _pairs(links: pa.Table) -> pa.Table:
    """Links as plain texts."""
    return pa.table({n: links.column(n).cast(pa.string()) for n in ("patient", "other")})


def _crosswalk(labelled: pa.Table) -> pa.Table:
    """The crosswalk's rows of (patient, label), with each identifier's own hash."""
    return pa.table(
        {
            "identifier": labelled.column("patient"),
            "subject_id": pa.array(hashed(labelled.column("label").combine_chunks())),
            "own": pa.array(hashed(labelled.column("patient").combine_chunks())),
        }
    )


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


def _few(pairs: DataFrame) -> pa.Table:
    """(patient, label) of a bounded number of links, on the driver."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from clinloom.spark.session import to_arrow

    distinct = to_arrow(pairs.distinct())
    both = [distinct.column(n) for n in ("patient", "other")]
    known = pc.unique(pa.chunked_array([c for column in both for c in column.chunks])).sort()
    left, right = (pc.index_in(column, known).to_numpy() for column in both)
    shape = (len(known), len(known))
    joined = coo_array((np.ones(len(left), bool), (left, right)), shape)
    _, patient = connected_components(joined, directed=False)
    _, least = np.unique(patient, return_index=True)  # the first, for `known` ascends
    return pa.table({"patient": known, "label": known.take(pa.array(least[patient]))})


def _many(spark: SparkSession, pairs: DataFrame, out: Pending, parts: int) -> DataFrame:
    """The same by Spark: the least label spreads along links, and along labels' own labels.

    Every round is written and read again, so that plans stay small and a lost executor costs
    a round at most.
    """
    from pyspark.sql import functions as F

    def kept(frame: DataFrame, name: str) -> DataFrame:
        files = workers.written(frame.toDF("patient", "other"), EDGES, out.scratch(name))
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
