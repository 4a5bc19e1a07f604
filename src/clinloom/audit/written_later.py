"""Columns that were written after the outcome, in tables that tell no times.

A table in the wild keeps what was known at the end: how long the stay was, what it cost, whether
somebody would live. No time says so, and by statistics alone a length of stay looks innocent. So a
code that has no time, or the same one for everybody, is known by its words
(``vocabulary.leaks``), and by values that nearly decide the outcome, or rule it out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from clinloom.audit import Evidence, Finding
from clinloom.audit._figures import ALPHA, levels, likelier
from clinloom.vocabulary import leaks

TITLE = (
    "codes without a time of their own whose names are those of what is written at the end (stay,"
    " costs, survival, orders, discharge, death), or whose values decide the outcome or rule it out"
)
BLIND = (
    "a column with another name that tells only a part, and one with a time that is not when it was"
    " written"
)
COVERED = 0.05  # of the rows a value that rules the outcome out must hold
NEVER = 50.0  # times rarer than in all rows
SURE = 5.0


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a column: of a code, what stands before its value."""
    told: set[str] = set()
    for feature in seen.features:
        column = leaks.column(feature.code)
        asked = column in seen.untimed and feature.modality != "images"
        why = leaks.written_later(column) if asked else None
        if why and column not in told:
            told.add(column)
            yield Finding(
                "written_later",
                column,
                f"by its name it is {why}, and no time tells when it was written",
                "it may be known only after the outcome",
                "leave it out, or give its time; where it is known at the prediction, say so",
            )
    yield from _deciding(seen, told)


def _deciding(seen: Evidence, told: set[str]) -> Iterator[Finding]:
    """Values of which hardly a row, or hardly another, has the outcome."""
    positive, negative = seen.sizes
    if not positive or not negative:
        return
    for at, feature in enumerate(seen.features):
        column = leaks.column(feature.code)
        if column not in seen.untimed or column in told:
            continue
        level, size = levels(seen.values[:, at])
        total = np.bincount(level, minlength=size)
        hits = np.bincount(level, weights=seen.positive, minlength=size).astype(int)
        none = (hits / positive) * NEVER <= (total - hits) / negative
        odds = SURE * negative / positive  # of having none, at five times the odds of all
        for place in np.flatnonzero(none & (total >= COVERED * len(level))).tolist():
            rows, without = int(total[place]), int(total[place] - hits[place])
            if likelier(without, rows, odds / (1 + odds)) < ALPHA / max(len(seen.features), 1):
                told.add(column)
                value = "missing" if place == 0 else "one value"
                yield Finding(
                    "written_later",
                    column,
                    f"in the {rows:,} sampled rows where it is {value}, the outcome is {NEVER:.0f}"
                    " times rarer than elsewhere, or more",
                    "a value that rules the outcome out is written when it is known",
                    "leave it out, or give its time; where it is known at the prediction, say so",
                )
                break
