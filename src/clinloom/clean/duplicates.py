"""The same fact told twice: the first is kept."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import Field

from clinloom.clean._sheet import Sheet
from clinloom.events import Flags, Ints, coded, looked_up, matching
from clinloom.study import Codes, RuleModel

REQUIRES: str | None = None
ORDER = 50
IMAGES = ("IMAGE//*",)


class Options(RuleModel):
    """Whether repeated facts are removed."""

    distinct: Codes = Field(
        default=("ENCOUNTER//*",),
        description="codes or patterns of which two records of one source are two facts, though"
        " they say the same",
    )


def apply(sheet: Sheet, options: Options) -> None:
    """Remove rows whose subject, time, code, value and text were there; ledger `duplicate`.

    Records and sources may differ: two exports of one hospital tell the same measurement twice.
    Two encounters that begin at one moment are two all the same (``distinct``), as far as one
    source tells them. What is measured on images is the same only of one image: the slices and
    views of a moment may agree in a number, and each is a fact.
    """
    rows = sheet.ordered()
    before, after = rows[:-1], rows[1:]
    same = (sheet.time[before] == sheet.time[after]) & (
        sheet.subject[before] == sheet.subject[after]
    )
    near = np.flatnonzero(same)
    same[near] = sheet.code[0][before[near]] == sheet.code[0][after[near]]
    near = np.flatnonzero(same)
    low, high = sheet.value[before[near]], sheet.value[after[near]]
    same[near] = (low == high) | (np.isnan(low) & np.isnan(high))
    near = np.flatnonzero(same)
    if not len(near):
        return
    places = np.unique(np.concatenate([near, near + 1]))
    run = np.concatenate([[0], np.cumsum(~same)])[places]
    text, _ = coded(sheet.column("text_value").take(pa.array(rows[places])))
    image = _images(sheet, rows[places])
    order = np.lexsort((places, image, text, run))
    again = (np.diff(run[order]) == 0) & (np.diff(text[order]) == 0) & (np.diff(image[order]) == 0)
    alike = rows[places[order]]
    again = np.concatenate([[False], again])
    again &= ~_records(sheet, alike, again, options.distinct)
    sheet.remove(np.sort(alike[again]), rule="duplicate")


def _records(sheet: Sheet, rows: Ints, again: Flags, distinct: Codes) -> Flags:
    """Which rows are facts of their own: the first of a record, of the source that told it first.

    ``rows`` in the order of facts; ``again``: which say the same as the row before.
    """
    own = np.zeros(len(rows), bool)
    code, codes = sheet.code
    used, place = np.unique(code[rows], return_inverse=True)
    at = np.flatnonzero(matching([codes[n] for n in used.tolist()], distinct)[place])
    if not len(at):
        return own
    some = rows[at]
    record, names = coded(sheet.column("record_id").take(pa.array(some)))
    fact = np.cumsum(~again[at])
    _, first = np.unique(fact, return_index=True)
    source = sheet.source[0][some]
    mine = source == source[first][fact - fact[0]]
    _, new = np.unique(fact * (len(names) + 1) + record, return_index=True)
    fresh = np.zeros(len(at), bool)
    fresh[new] = True
    own[at] = fresh & mine
    return own


def _images(sheet: Sheet, rows: Ints) -> Ints:
    """Of which image each row is (n,), as a number; 0 where it is no image's."""
    position, codes = sheet.code
    out = np.zeros(len(rows), np.int64)
    mine = np.flatnonzero(looked_up(matching(codes, IMAGES), position[rows]))
    if len(mine):
        out[mine] = coded(sheet.column("record_id").take(pa.array(rows[mine])))[0] + 1
    return out
