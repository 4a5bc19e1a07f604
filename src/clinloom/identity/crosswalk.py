"""Who is who: identifiers of one patient, across records and sources, become one subject.

Two identifiers belong together where a source says so (a FHIR Patient and its medical record
number, a linked Patient). The least identifier of a connected set stands for the patient, and
``subject_id`` is a hash of it, so a subject is the same however data arrive. Events carry the hash
of their own identifier until it is known who stands for whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.errors import DataError
from clinloom.files import Address
from clinloom.identity.subjects import hashed, subjects
from clinloom.spark import shuffle, workers
from clinloom.store import Pending, TableWriter
from clinloom.store.stored import of_files as stored
from clinloom.tables import CROSSWALK, LINKS, MOVED, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FEW = 200_000  # links that the driver resolves by itself
ROUNDS = 40  # of spreading labels; each about doubles how far one has spread
WALKED = Table(
    "walked",
    "the crosswalk, and the hash of each identifier",
    (*CROSSWALK.columns, MOVED.columns[0]),
)
EDGES = Table("edges", "two identifiers of one patient", LINKS.columns)
PAIRS = "patient string, other string"
RECORD = "Patient/"  # a FHIR patient's own record, beside whom identifiers stand


@dataclass(frozen=True)
class Crosswalk:
    """What is known of identities.

    ``known``: the crosswalk's rows as slices, to be clustered with the events; ``moved``: files of
    subjects by their own identifiers (``own``, ascending) and their true subjects (``true``);
    ``merged``: how many records turned out to be of a patient who had another.
    """

    known: DataFrame
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


def themselves(links: pa.Table) -> pa.Table:
    """The crosswalk's rows (CROSSWALK) of identifiers of which each stands for itself."""
    known = pc.unique(links.column("patient")).cast(pa.string())
    return pa.table([known, pa.array(hashed(known))], schema=CROSSWALK.arrow)


def distinct(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """A bucket's sorted rows of the crosswalk, each once.

    Raises DataError where a subject has two identifiers, each of which stands for itself.
    """
    last = None
    for rows in parts:
        once = rows.group_by(["subject_id", "identifier"], use_threads=False).aggregate([])
        if last is not None and once.slice(0, 1).select(["subject_id", "identifier"]).equals(last):
            once = once.slice(1)
        if not once.num_rows:
            continue
        subject = once.column("subject_id").to_numpy()
        before = -1 if last is None else last.column("subject_id")[0].as_py()
        if (np.diff(subject, prepend=before) == 0).any():
            raise DataError(TWICE, mend="report this at once")
        last = once.slice(once.num_rows - 1).select(["subject_id", "identifier"])
        yield once.select(CROSSWALK.arrow.names)


def resolve(
    spark: SparkSession, slices: DataFrame, links: int, out: Pending, *, buckets: int, parts: int
) -> Crosswalk:
    """Find who is who from the links in slices, so many of them; say who moved.

    Raises DataError if two identifiers' hashes are the same (about 1 in 10^7 for 10^6 patients).
    """
    if links <= FEW:
        rows = _few(shuffle.gathered(slices, LINKS))
        own, true = (rows.column(n).to_numpy() for n in ("own", "subject_id"))
        if len(np.unique(own)) < len(own):
            raise DataError(TWICE, mend="report this at once")
        order = np.argsort(own)
        order = order[own[order] != true[order]]
        files: tuple[Address, ...] = ()
        if len(order):
            files = (out.scratch("moved") / "moved.parquet",)
            with TableWriter(files[0], MOVED) as writer:
                writer.write(pa.table({"own": own[order], "true": true[order]}))
        record = pc.starts_with(rows.column("identifier"), RECORD).to_numpy(zero_copy_only=False)
        merged = int(record.sum()) - len(np.unique(true[record]))
        known = shuffle.held(spark, rows.drop_columns(["own"]), CROSSWALK, buckets=buckets)
        return Crosswalk(known, files, merged)
    pairs = shuffle.unpacked(slices, LINKS, _pairs, PAIRS)
    spread = _many(spark, pairs, out, parts)
    named = workers.by_rows(spread, _crosswalk, "identifier string, subject_id long, own long")
    kept = shuffle.written(named, WALKED, out.scratch("crosswalk"))
    frame = workers.read(spark, stored("crosswalk", kept), WALKED)
    found = workers.summed(frame, _counted, _added, parts=len(kept))
    total = dict.fromkeys(COUNTS, 0) if found is None else found.to_pylist()[0]
    if frame.select("own").distinct().count() < total["rows"]:
        raise DataError(TWICE, mend="report this at once")
    files = ()
    if total["moved"]:
        moved = frame.where("own <> subject_id").selectExpr("own", "subject_id AS true")
        moved = moved.repartitionByRange(max(1, total["moved"] // MOST), "own")
        moved = moved.sortWithinPartitions("own")
        files = tuple(shuffle.written(moved, MOVED, out.scratch("moved")))
    records = frame.where(f"identifier LIKE '{RECORD}%'").select("subject_id").distinct().count()
    known = shuffle.packed(frame.drop("own"), CROSSWALK, buckets=buckets)
    return Crosswalk(known, files, total["records"] - records)


TWICE = "two patients have the same hash"
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


def _few(links: list[pa.Table]) -> pa.Table:
    """The crosswalk's rows, and each identifier's own hash, of few links: on the driver."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = pa.concat_tables([_pairs(part) for part in links])
    both = [pairs.column(n) for n in ("patient", "other")]
    known = pc.unique(pa.chunked_array([c for column in both for c in column.chunks])).sort()
    left, right = (pc.index_in(column, known).to_numpy() for column in both)
    shape = (len(known), len(known))
    joined = coo_array((np.ones(len(left), bool), (left, right)), shape)
    _, patient = connected_components(joined, directed=False)
    _, least = np.unique(patient, return_index=True)  # the first, for `known` ascends
    own = hashed(known)
    subject = own[least[patient]]
    return pa.table({"identifier": known, "subject_id": subject, "own": own})


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
