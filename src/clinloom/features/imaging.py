"""Measurements taken on images, as they were available before the index time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from clinloom.events import Floats
from clinloom.features._feature import Windows, listed
from clinloom.features._grid import Grid
from clinloom.features._past import Past
from clinloom.features._summaries import fill_numbers
from clinloom.study import Codes, Model

REQUIRES: str | None = None
MODALITY = "images"
NUMERIC = True
STATIC = False
EXCLUDED: tuple[str, ...] = ()


class Options(Model):
    """Which image measurements are used, how, and over which spans."""

    codes: Codes = Field(default=("IMAGE//*",), description="codes IMAGE//modality//part//name")
    statistics: tuple[Literal["count", "last", "mean", "min", "max", "slope"], ...] = Field(
        default=("last",), description="last: of the latest image before the index", min_length=1
    )
    windows: Windows = Field(
        default=(None,), description="spans before the index time, e.g. [30d, all]", min_length=1
    )
    min_rows: float = Field(
        default=0.01, ge=0, le=1, description="a code is used if this part of training rows has it"
    )


def candidates(options: Options) -> Sequence[str]:
    """The patterns of codes that this family may use."""
    return options.codes


def names(options: Options, vocabulary: Sequence[str]) -> list[str]:
    """The features of the codes that were seen."""
    return listed("imaging", vocabulary, options.statistics, options.windows)


def fill(past: Past, grid: Grid, out: Floats) -> None:
    """Write the features of ``grid`` into ``out`` (rows, features)."""
    fill_numbers(past, grid, out)
