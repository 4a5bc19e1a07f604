"""Records of which a later version tells of another patient, in all that was read, by Spark.

Hashes of the records that have versions, each with its patient's, come together in a small shuffle
of their own. Only where some tell of several patients are these records' versions looked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from clinloom.files import Address
from clinloom.identity.records import RECORDS, VERSIONS, contested, taken_back, versions
from clinloom.spark import blocks, shuffle, workers
from clinloom.tables import ACQUIRED, CONTESTED, LEDGER, REFUSED, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FEW = 2_000_000  # claims, of 16 bytes each, that the driver compares by itself
MOST = 200_000  # records that are corrected
SHARE, LEAST = 10, 1000  # a tenth of the records, and so many, are more than corrections can be
EVENTS = Table("events", ACQUIRED.why, ACQUIRED.columns)
COLUMNS = "subject_id long, source string, record_id string, version long, fact boolean"
SEVERAL = pa.schema([("record", pa.int64())])


def found(
    slices: DataFrame, claims: int, *, buckets: int, moved: Sequence[Address]
) -> tuple[pa.Table, pa.Table]:
    """What later versions take back of other patients (REFUSED), and what the ledger says.

    ``slices``: all that was read, among it so many ``claims`` (RECORDS); ``moved``: who turned out
    to be another, as ``crosswalk.resolve`` says it. Where more records than can be corrections tell
    of several patients, as those of two servers under the same numbers do, nothing is taken back.
    """
    if not claims:
        return REFUSED.empty, LEDGER.empty
    if claims <= FEW:
        several = contested(_true(shuffle.gathered(slices, RECORDS), moved))
    else:
        kernel = partial(_contested, moved=moved, most=4 * MOST // buckets + LEAST)
        answer = shuffle.together(slices, RECORDS, kernel, parts=buckets)
        several = answer.column("record").to_numpy() if answer is not None else np.zeros(0)
    if not len(several):
        return REFUSED.empty, LEDGER.empty
    if len(several) > max(LEAST, min(MOST, claims // SHARE)):
        row = {"rule": CONTESTED, "action": "kept", "count": len(several)}
        return REFUSED.empty, LEDGER.rows([row])
    parts = [
        shuffle.unpacked(slices, table, partial(versions, among=several, fact=fact), COLUMNS)
        for table, fact in ((EVENTS, True), (REFUSED, False))
    ]
    told = workers.summed(parts[0].union(parts[1]), _joined, pa.concat_tables, parts=buckets)
    assert told is not None  # noqa: S101 - claims are made of these rows
    return taken_back(blocks.renamed(told, shuffle.movements(moved))), LEDGER.empty


def _contested(claimed: list[pa.Table], *, moved: Sequence[Address], most: int) -> pa.Table:
    """So many of a bucket's records that tell of several patients, at most."""
    return pa.table([contested(_true(claimed, moved))[:most]], schema=SEVERAL)


def _true(claimed: list[pa.Table], moved: Sequence[Address]) -> list[pa.Table]:
    """The claims, of patients as they truly are."""
    if not moved:
        return claimed
    rows = pa.concat_tables(claimed)
    who = rows.select(["whose"]).rename_columns(["subject_id"])
    true = blocks.renamed(who, shuffle.movements(moved)).column("subject_id")
    return [rows.set_column(1, "whose", true)]


def _joined(parts: Iterable[pa.Table]) -> pa.Table:
    return pa.concat_tables([VERSIONS.empty, *(part.cast(VERSIONS.arrow) for part in parts)])
