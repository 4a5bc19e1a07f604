"""Who is who: identifiers of one patient, across records and sources, become one subject.

Two identifiers belong together where a source says so (a FHIR Patient and its medical record
number, a linked Patient). The least identifier of a connected set stands for the patient, and
``subject_id`` is a hash of it, so a subject is the same however data arrive. Events carry the hash
of their own identifier until it is known who stands for whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinloom.errors import DataError
from clinloom.identity.subjects import hashed, subjects
from clinloom.store import Pending
from clinloom.tables import CROSSWALK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FEW = 5_000_000  # links that the driver resolves by itself
ROUNDS = 12  # the longest chain of identifiers of one patient that Spark follows


@dataclass(frozen=True)
class Crosswalk:
    """What is known of identities. ``moved``: a ``.npy`` file, int64 (2, n), of subjects by their
    own identifiers, ascending, and their true subjects; None where each stands for itself.
    ``merged``: how many records turned out to be of a patient who had another.
    """

    moved: Path | None
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


def resolve(spark: SparkSession, links: Path, out: Pending) -> Crosswalk:
    """Write the crosswalk of all identifiers; say who moved.

    Raises DataError if two identifiers' hashes are the same (about 1 in 10^7 for 10^6 patients).
    """
    files = sorted(links.rglob("*.parquet"))
    if sum(pq.read_metadata(file).num_rows for file in files) <= FEW:
        _write_few([pq.read_table(file, partitioning=None) for file in files], out)
    else:
        _write_many(spark, links, out)
    parts = []
    for file in sorted(out.place("crosswalk").glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(columns=CROSSWALK.arrow.names):
            record = pc.starts_with(batch.column(0), "Patient/").to_numpy(zero_copy_only=False)
            parts.append((hashed(batch.column(0)), batch.column(1).to_numpy(), record))
    own, true, record = (np.concatenate(part) for part in zip(*parts, strict=True))
    if len(np.unique(own)) < len(own):
        raise DataError("two patients have the same hash", mend="report this: it should not happen")
    moved = np.flatnonzero(own != true)
    if not len(moved):
        return Crosswalk(None, 0)
    moved = moved[np.argsort(own[moved])]
    place = out.scratch("moved") / "subjects.npy"
    np.save(place, np.stack([own[moved], true[moved]]))
    return Crosswalk(place, int(record.sum()) - len(np.unique(true[record])))


def _write_few(links: list[pa.Table], out: Pending) -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = pa.concat_tables(links).group_by(["patient", "other"]).aggregate([])
    both = [pairs.column(n).cast(pa.string()) for n in ("patient", "other")]
    known = pc.unique(pa.chunked_array([c for column in both for c in column.chunks])).sort()
    left, right = (pc.index_in(column, known).to_numpy() for column in both)
    shape = (len(known), len(known))
    joined = coo_array((np.ones(len(left), bool), (left, right)), shape)
    _, patient = connected_components(joined, directed=False)
    _, least = np.unique(patient, return_index=True)  # the first, for `known` ascends
    rows = [known, pa.array(hashed(known)[least[patient]])]
    out.write(CROSSWALK, pa.table(rows, schema=CROSSWALK.arrow))


def _write_many(spark: SparkSession, links: Path, out: Pending) -> None:
    """The same by Spark: labels spread along the links until none changes."""
    from pyspark.sql import functions as F

    edges = spark.read.option("recursiveFileLookup", "true").parquet(str(links))
    both = edges.select("patient", "other").union(edges.select("other", "patient"))
    both = both.union(edges.select("patient", F.col("patient").alias("other"))).distinct()
    scratch = str(out.scratch("edges"))
    both.write.mode("overwrite").parquet(scratch)
    both = spark.read.parquet(scratch)
    label = both.groupBy("patient").agg(F.min("other").alias("label"))
    for turn in range(ROUNDS):
        spread = both.join(label.withColumnRenamed("patient", "other"), "other")
        better = spread.groupBy("patient").agg(F.min("label").alias("label"))
        held = str(out.scratch(f"labels-{turn}"))
        better.write.mode("overwrite").parquet(held)
        better = spark.read.parquet(held)
        same = better.join(label.withColumnRenamed("label", "before"), "patient")
        settled = same.where("label <> before").isEmpty()
        label = better
        if settled:
            break
    subject = F.xxhash64("label").bitwiseAND(F.lit(0x7FFFFFFFFFFFFFFF)).alias("subject_id")
    made = label.select(F.col("patient").alias("identifier"), subject).orderBy("identifier")
    made.write.mode("overwrite").parquet(str(out.place("crosswalk")))
