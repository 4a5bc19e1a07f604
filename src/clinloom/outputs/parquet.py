"""One Parquet file, sorted by subject and time within each bucket of patients."""

from __future__ import annotations

from clinloom.files import Address
from clinloom.outputs import Scores, copied
from clinloom.study import Model

REQUIRES: str | None = None


class Options(Model):
    """Nothing is to be set."""


def write(scores: Scores, target: Address, options: Options) -> int:
    """Leave the declared table `predictions`: with the patients' own identifiers where they may."""
    return copied(scores.table, scores.predictions.files(), target)
