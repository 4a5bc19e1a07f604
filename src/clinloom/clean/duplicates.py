"""The same fact told twice: the first is kept."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from clinloom.clean._sheet import Sheet
from clinloom.clean._ties import runs
from clinloom.events import Flags, Ints, coded, looked_up, matching
from clinloom.study import Codes, RuleModel

REQUIRES: str | None = None
ORDER = 50
IMAGES = ("IMAGE//*",)
# A row that is called by where it stands (CSV: its byte; Parquet: its number) has no name.
KIND = re.compile("[^/]+/[^/]+")
PLACE = re.compile(r"[^#]*@\d+|(?i:.*[.](parquet|pq)([.]gz)?)?#\d+")


class Options(RuleModel):
    """Whether repeated facts are removed."""

    distinct: Codes = Field(
        default=(
            "ENCOUNTER//*",
            "RXNORM//*",
            "ATC//*",
            "NDC//*",
            "CVX//*",
            "MEDICATION//*",
            "Medication*/*",
            "Immunization/*",
        ),
        description="codes, records (as FHIR's `MedicationAdministration/*`) or patterns of which"
        " two records of one source are two facts, though they say the same: a second dose; rows"
        " that have no identifier of their own but their place in a file are one",
    )


def apply(sheet: Sheet, options: Options) -> None:
    """Remove rows whose subject, time, code, value, unit and text were there; ledger `duplicate`.

    Records and sources may differ: two exports of one hospital tell the same measurement twice.
    Two encounters that begin at one moment, or two doses, are two all the same (``distinct``), as
    far as one source tells them. What is measured on images is the same only of one image: the
    slices and views of a moment may agree in a number, and each is a fact.
    """
    rows = sheet.ordered()
    _, same = sheet.simultaneous
    near, value = np.flatnonzero(same), sheet.placed(sheet.value)
    low, high = value[near], value[near + 1]
    near = near[(low == high) | (np.isnan(low) & np.isnan(high))]
    if not len(near):
        return
    places, run = runs(near)
    text, _ = coded(sheet.column("text_value").take(pa.array(rows[places])))
    unit = sheet.unit[0][rows[places]]
    image = _images(sheet, rows[places])
    order = np.lexsort((places, image, unit, text, run))
    again = np.ones(len(order) - 1, bool)
    for key in (run, text, unit, image):
        again &= np.diff(key[order]) == 0
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
    told = matching([codes[n] for n in used.tolist()], distinct)[place]
    record = sheet.column("record_id").take(pa.array(rows)).cast(pa.string())
    at = np.flatnonzero(told | _of_kinds(record, distinct))
    if not len(at):
        return own
    position, names = coded(record.take(pa.array(at)))
    named = np.array([PLACE.fullmatch(name) is None for name in names], bool)
    position = np.where(looked_up(named, position), position, -1)
    fact = np.cumsum(~again) - 1
    source = sheet.source[0][rows]
    mine = source[at] == source[np.flatnonzero(~again)][fact[at]]
    _, new = np.unique(fact[at] * (len(names) + 1) + position, return_index=True)
    fresh = np.zeros(len(at), bool)
    fresh[new] = True
    own[at] = fresh & mine
    return own


def _of_kinds(record: pa.Array, patterns: Codes) -> Flags:
    """Which records (n,) are of the kinds, ``Kind/*``, that are among the patterns."""
    kinds = [".*".join(map(re.escape, p.split("*"))) for p in patterns if KIND.fullmatch(p)]
    if not kinds:
        return np.zeros(len(record), bool)
    found = pc.match_substring_regex(record, f"^({'|'.join(kinds)})$").fill_null(False)
    flags: Flags = found.to_numpy(zero_copy_only=False)
    return flags


def _images(sheet: Sheet, rows: Ints) -> Ints:
    """Of which image each row is (n,), as a number; 0 where it is no image's."""
    position, codes = sheet.code
    out = np.zeros(len(rows), np.int64)
    mine = np.flatnonzero(looked_up(matching(codes, IMAGES), position[rows]))
    if len(mine):
        out[mine] = coded(sheet.column("record_id").take(pa.array(rows[mine])))[0] + 1
    return out
