"""Age at the index time, and sex as it was recorded before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from clinloom.events import Floats
from clinloom.features._feature import listed
from clinloom.features._grid import Grid
from clinloom.features._past import Past
from clinloom.features._summaries import Bins
from clinloom.study import MICROSECONDS, Model
from clinloom.tables import BIRTH

REQUIRES: str | None = None
MODALITY = "records"
NUMERIC = False
STATIC = True
EXCLUDED: tuple[str, ...] = ()

SEXES = "GENDER//*"


class Options(Model):
    """Which demographic features are used."""

    age: bool = Field(default=True, description="years of 365.25 days since MEDS_BIRTH")
    sex: bool = Field(default=True, description="an indicator for each GENDER//code")


def candidates(options: Options) -> Sequence[str]:
    """The patterns of codes that this family may use."""
    return (BIRTH,) * options.age + (SEXES,) * options.sex


def names(options: Options, vocabulary: Sequence[str]) -> list[str]:
    """Age where a birth was seen, then an indicator for each sex that was seen."""
    born = [code for code in vocabulary if code == BIRTH]
    sexes = [code for code in vocabulary if code != BIRTH]
    return [
        *listed("demographics", born, ("age",), ("all",)),
        *listed("demographics", sexes, ("present",), ("all",)),
    ]


def fill(past: Past, grid: Grid, out: Floats) -> None:
    """Write the features of ``grid`` into ``out``; age is NaN where no birth is known."""
    for seen in past.before(grid.codes, None, numeric=False, static=True, cells=grid.cells):
        if "present" in grid.statistics:
            grid.put(out[seen.rows], "present", Bins(seen, grid).count > 0)
        if "age" in grid.statistics:
            years = np.full((1, seen.height, len(grid.codes)), np.nan)
            first = np.flatnonzero(seen.age > 0)[::-1]  # the earliest record stays
            years[0, seen.row[first], seen.code[first]] = seen.age[first] / MICROSECONDS["y"]
            grid.put(out[seen.rows], "age", years)
