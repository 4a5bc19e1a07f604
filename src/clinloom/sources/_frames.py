"""What sources that Spark reads share: the unit that tells their state, from the files it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class State:
    """All of a source that Spark cuts by itself: it is told apart here, not read."""

    name: str
    size: int
    stamp: str

    def read(self) -> bytes:
        """Nothing: the rows come by ``frame``."""
        return b""


def of_files(files: DataFrame) -> tuple[int, str] | None:
    """Size and stamp of some files, by their path, size and time of change; None of none.

    ``files``: a row a file, with these three columns in this order.
    """
    from pyspark.sql import functions as F

    size = F.sum(files.columns[1]).alias("size")
    mixed = F.sum(F.xxhash64(*files.columns).cast("decimal(38,0)")).alias("mixed")
    row = files.agg(F.count("*").alias("n"), size, mixed).collect()[0]
    return (int(row["size"]), f"files {row['n']} {row['mixed']}") if row["n"] else None
