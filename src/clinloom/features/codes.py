"""Diagnoses, drugs, procedures, encounters and answers: whether, and how often, a code was there.

Where a code has answers, each is a feature of its own: that a test was negative is no less a fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from clinloom.events import ANSWER, Floats
from clinloom.features._feature import Windows, listed
from clinloom.features._grid import Grid
from clinloom.features._past import Past
from clinloom.features._summaries import fill_counts
from clinloom.study import Codes, Model
from clinloom.tables import BIRTH

REQUIRES: str | None = None
MODALITY = "records"
NUMERIC = False
STATIC = True  # a fact without a time holds at every moment, in every window
EXCLUDED: tuple[str, ...] = ("IMAGE//*", "GENDER//*", BIRTH)


class Options(Model):
    """Which codes are counted, and over which spans."""

    codes: Codes = Field(
        default=(
            "ICD*",
            "SNOMED//*",
            "RXNORM//*",
            "ATC//*",
            "NDC//*",
            "CVX//*",
            "CPT*",
            "HCPCS//*",
            "ENCOUNTER//*",
            "*=*",
        ),
        description="codes or patterns; each answer to a code, `code=answer`, is one of its own",
    )
    statistics: tuple[Literal["present", "count"], ...] = Field(
        default=("present",), description="present: 1 or 0; count: how many", min_length=1
    )
    windows: Windows = Field(
        default=("all",), description="spans before the index time, e.g. [30d, all]", min_length=1
    )
    max_codes: int = Field(default=200, ge=1, description="the codes that most rows have")
    min_rows: float = Field(
        default=0.01, ge=0, le=1, description="a code is used if this part of training rows has it"
    )


def candidates(options: Options) -> Sequence[str]:
    """The patterns of codes that this family may use: with every answer, also those that say no."""
    return (*options.codes, *(f"{p}{ANSWER}*" for p in options.codes if ANSWER not in p))


def names(options: Options, vocabulary: Sequence[str]) -> list[str]:
    """The features of the codes that were seen."""
    return listed("codes", vocabulary, options.statistics, options.windows)


def fill(past: Past, grid: Grid, out: Floats) -> None:
    """Write the features of ``grid`` into ``out`` (rows, features)."""
    fill_counts(past, grid, out)
