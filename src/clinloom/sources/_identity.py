"""Who is who: identifiers of one patient, across records and sources, become one subject.

Two identifiers belong together where a source says so (a FHIR Patient and its medical record
number, a linked Patient). The least identifier of a connected set stands for the patient, and
``subject_id`` is a hash of it, so a subject is the same however data arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clinloom.errors import DataError
from clinloom.store import Pending
from clinloom.tables import Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROUNDS = 12  # the longest chain of identifiers of one patient that is followed


@dataclass(frozen=True)
class Crosswalk:
    """Identifier to subject; ``frame`` is None where every identifier stands for itself."""

    frame: DataFrame | None
    merged: int


def subject(column: str):
    """The subject of a patient's standing identifier: 63 bits of xxHash64."""
    from pyspark.sql import functions as F

    return F.xxhash64(F.col(column)).bitwiseAND(F.lit(0x7FFFFFFFFFFFFFFF))


def resolve(spark: SparkSession, links: Path, out: Pending) -> Crosswalk:
    """Write the crosswalk of all identifiers; say how many patients had more than one record.

    Raises DataError if two patients' hashes are the same (about 1 in 10^7 for 10^6 patients).
    """
    from pyspark.sql import functions as F

    edges = spark.read.option("recursiveFileLookup", "true").parquet(str(links))
    edges = edges.select("patient", "other").distinct()
    real = edges.where("patient <> other")
    place = str(out.place("crosswalk"))
    if real.isEmpty():
        alone = edges.select(F.col("patient").alias("identifier"))
        alone = alone.withColumn("subject_id", subject("identifier"))
        alone.coalesce(1).write.mode("overwrite").parquet(place)
        _unique(spark.read.parquet(place), "identifier")
        return Crosswalk(None, 0)
    both = real.union(real.select(F.col("other").alias("patient"), F.col("patient").alias("other")))
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
    named = label.withColumn("subject_id", subject("label"))
    _unique(named, "label")
    named.select(F.col("patient").alias("identifier"), "subject_id").coalesce(1).write.mode(
        "overwrite"
    ).parquet(place)
    crosswalk = spark.read.parquet(place)
    records = crosswalk.where(F.col("identifier").startswith("Patient/"))
    several = records.groupBy("subject_id").count().where("count > 1")
    merged = several.agg(F.sum(F.col("count") - 1).alias("n")).collect()[0]["n"] or 0
    return Crosswalk(crosswalk, int(merged))


def _unique(named: DataFrame, standing: str) -> None:
    from pyspark.sql import functions as F

    row = named.agg(F.countDistinct(standing).alias("a"), F.countDistinct("subject_id").alias("b"))
    if len({*row.collect()[0]}) > 1:
        raise DataError("two patients have the same hash", mend="report this: it should not happen")


def identified(
    spark: SparkSession, folder: Path, crosswalk: Crosswalk, declared: Table
) -> DataFrame | None:
    """The staged table with ``subject_id`` for ``patient``; None where nothing was staged."""
    from pyspark.sql import functions as F

    if not any(folder.rglob("*.parquet")):
        return None
    # each source is a folder `source=N`: read below it, lest N becomes a column
    frame = spark.read.option("recursiveFileLookup", "true").parquet(str(folder))
    if crosswalk.frame is None:
        return frame.withColumn("subject_id", subject("patient"))
    known = crosswalk.frame.withColumnRenamed("identifier", "patient")
    joined = frame.join(known, "patient", "left")
    if declared.name == "rejected":
        return joined
    return joined.withColumn("subject_id", F.coalesce("subject_id", subject("patient")))
