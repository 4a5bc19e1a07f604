"""Laboratory results and vital signs: summaries of a code's values over spans before the index.

A number without a time is in every span, but for `slope` and `since`; `last` and `first` are it
where no other was known. A code that is only told so gives one feature, for all spans and
statistics would say the same. So does a code that a patient has `once`, such as an age: where a
record bears two, the second may stem from a later stay, and tell who lived to have one.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from clinloom import events as ev
from clinloom.events import Floats
from clinloom.features._feature import Windows, listed, one_each, widest_of
from clinloom.features._grid import Grid
from clinloom.features._past import Past
from clinloom.features._summaries import TOLD, Statistic, fill_numbers
from clinloom.study import Codes, Model

REQUIRES: str | None = None
MODALITY = "records"
NUMERIC = True  # only events with a number are candidates
STATIC = True  # a number without a time, such as an age, holds at every moment
EXCLUDED: tuple[str, ...] = ("IMAGE//*",)  # what is measured on images belongs to `imaging`


class Options(Model):
    """Which measurements are summarised, how, and over which spans."""

    codes: Codes = Field(default=("*",), description="codes or patterns of numeric events")
    statistics: tuple[Statistic, ...] = Field(
        default=("count", "last", "mean", "min", "max"), description=TOLD, min_length=1
    )
    windows: Windows = Field(
        default=("24h", "48h", "all"),
        description="spans before the index time, e.g. [24h, 7d, all]",
        min_length=1,
    )
    once: Codes = Field(
        default=(),
        description="codes or patterns of which a patient has one, such as an age or a height: one"
        " feature each, the latest, whatever the statistics and windows",
    )
    min_rows: float = Field(
        default=0.01, ge=0, le=1, description="a code is used if this part of training rows has it"
    )


def candidates(options: Options) -> Sequence[str]:
    """The patterns of codes that this family may use."""
    return options.codes


def names(options: Options, vocabulary: Sequence[str]) -> list[str]:
    """The features of the codes that were seen."""
    alone = ev.matching(vocabulary, options.once)
    several = [code for code, once in zip(vocabulary, alone, strict=True) if not once]
    single = [code for code, once in zip(vocabulary, alone, strict=True) if once]
    made = listed("measurements", several, options.statistics, options.windows)
    return made + listed("measurements", single, ("last",), (widest_of(options.windows),))


def untimed(options: Options, vocabulary: Sequence[str]) -> list[str]:
    """The features of codes that are only told without a time."""
    return one_each("measurements", vocabulary, options.statistics, options.windows)


def fill(past: Past, grid: Grid, out: Floats) -> None:
    """Write the features of ``grid`` into ``out`` (rows, features)."""
    fill_numbers(past, grid, out)
