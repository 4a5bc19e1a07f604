"""One Parquet file of predictions as the MEDS ecosystem reads them, such as meds-evaluation.

The columns are those of MEDS labels and of predictions; times are UTC without saying so, and nobody
is named but by `subject_id`. (Medical Event Data Standard 0.4, label schema)
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from clinloom.files import Address
from clinloom.outputs import Scores, copied
from clinloom.study import Model
from clinloom.tables import PREDICTIONS

REQUIRES: str | None = None
_columns = tuple(
    replace(column, type=pa.timestamp("us")) if column.name == "prediction_time" else column
    for column in PREDICTIONS.columns
)
MEDS = replace(PREDICTIONS, columns=_columns)


class Options(Model):
    """Nothing is to be set."""


def write(scores: Scores, target: Address, options: Options) -> int:
    """Leave PREDICTIONS, with the type that MEDS gives its times."""
    return copied(MEDS, scores.predictions.files(), target)
