"""A Delta table at the address, replaced in one commit of its log.

Spark writes it, with the session's own Delta package; readers of earlier versions keep them.
"""

from __future__ import annotations

from clinloom.errors import StoreError
from clinloom.files import Address
from clinloom.outputs import Scores
from clinloom.spark import workers
from clinloom.study import Model

REQUIRES: str | None = None


class Options(Model):
    """Nothing is to be set."""


def write(scores: Scores, target: Address, options: Options) -> int:
    """Leave the declared table `predictions` as a Delta table."""
    frame = workers.read(scores.spark, scores.predictions, scores.table)
    written = frame.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
    try:
        written.save(target.uri)
    except Exception as error:  # Spark's messages quote plans and paths
        kind = getattr(error, "getErrorClass", lambda: None)() or type(error).__name__
        raise StoreError(
            f"Spark cannot write a Delta table there ({kind})",
            where=str(target),
            mend="has the session its Delta package (spark.jars.packages, spark.sql.extensions)?",
        ) from None
    return scores.predictions.rows or 0
