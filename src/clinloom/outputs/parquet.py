"""One Parquet file, sorted by subject and time within each bucket of patients.

Its metadata tells by which bundle it was scored: the worklist shows no other's threshold.
"""

from __future__ import annotations

import json

from clinloom.deploy.bundle import SCORED
from clinloom.files import Address
from clinloom.outputs import Scores, copied
from clinloom.study import Model

REQUIRES: str | None = None


class Options(Model):
    """Nothing is to be set."""


def write(scores: Scores, target: Address, options: Options) -> int:
    """Leave the declared table `predictions`: with the patients' own identifiers where they may."""
    by = {SCORED: json.dumps(scores.bundle.scored_by)}
    return copied(scores.table, scores.predictions.files(), target, by)
