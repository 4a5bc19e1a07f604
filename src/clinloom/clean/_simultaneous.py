"""Several numbers of one code at one moment: in which order they stand, for the last one counts.

Two panels of one moment are two records. Where each code's greatest number came last, a patient
would have the potassium of the one and the sodium of the other: a record that there never was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import hashing
from clinloom.clean._ties import arranged, spread
from clinloom.events import Flags, Ints
from clinloom.hashing import Words

if TYPE_CHECKING:
    from clinloom.clean._sheet import Sheet

DIGITS = "0123456789"


def in_order(sheet: Sheet, rows: Ints) -> Ints:
    """``rows`` (of the sheet, sorted by subject, time, code and value, nulls first), where numbers
    of a subject's code at one moment stand by their record.

    The record that tells more codes by numbers at that moment comes later; of those that tell as
    many, the later by its name (lab.csv@90 before lab.csv@100) and source; within it the greater.
    """
    near, alike = sheet.simultaneous
    code, value = sheet.code[0], sheet.value
    alike = alike & ~np.isnan(value[rows[near]])  # nulls come first: the next is a number, too
    if not alike.any():
        return rows
    first = np.flatnonzero(np.diff(near, prepend=-2) > 1)  # of each moment
    asked = np.logical_or.reduceat(alike, first)
    size = np.diff(first, append=len(near))[asked] + 1
    moment, which = spread(size)
    members = near[first[asked]][moment] + which
    number = ~np.isnan(value[rows[members]])
    members, moment = members[number], moment[number]
    record = _records(sheet, rows[members])
    breadth = np.zeros(len(rows), np.int64)
    breadth[members] = _breadth(moment, record, code[rows[members]])

    def later(one: Ints, other: Ints) -> Flags:
        low, high = breadth[one], breadth[other]
        found: Flags = low > high
        same = np.flatnonzero(low == high)
        found[same] = _named_later(sheet, rows, one[same], other[same])
        return found

    return arranged(rows, near[alike], later)


def _named_later(sheet: Sheet, rows: Ints, one: Ints, other: Ints) -> Flags:
    """Where ``rows[one]`` come after ``rows[other]`` by their records' names and sources; in a
    record by value. A number at the end of a name counts by its length first."""
    names, others = (sheet.texts("record_id", rows[at]).fill_null("") for at in (one, other))
    stem, stems = (pc.ascii_rtrim(texts, characters=DIGITS) for texts in (names, others))
    length, lengths = pc.binary_length(names), pc.binary_length(others)
    by_number = pc.if_else(
        pc.equal(length, lengths), pc.greater(names, others), pc.greater(length, lengths)
    )
    later = pc.if_else(pc.equal(stem, stems), by_number, pc.greater(stem, stems))
    found: Flags = later.to_numpy(zero_copy_only=False)
    same = np.flatnonzero(pc.equal(names, others).to_numpy(zero_copy_only=False))
    if not len(same):
        return found
    one, other = one[same], other[same]
    low, high = sheet.value[rows[one]], sheet.value[rows[other]]
    last = np.where(low == high, one > other, low > high)
    position, sources = sheet.source
    rank = np.concatenate([_ascending(pa.array(sources, pa.string())), [0]])  # -1: of none
    low, high = rank[position[rows[one]]], rank[position[rows[other]]]
    found[same] = np.where(low == high, last, low > high)
    return found


def _records(sheet: Sheet, rows: Ints) -> Words:
    """Of which record each row is (n,), as a number."""
    source = sheet.source[0][rows].astype(np.uint64)
    return hashing.texts(sheet.texts("record_id", rows)) ^ (source * hashing.P1)


def _breadth(moment: Ints, record: Words, code: Ints) -> Ints:
    """How many codes each row's record tells by numbers at its moment (n,).

    Rows ascend by moment, then by code. Of m moments two records of one are taken for the same with
    a chance of m / 2^63 at most: then both count as one that tells the codes of both.
    """
    bits = np.uint64(max(int(moment[-1]).bit_length(), 1))
    key = (moment.astype(np.uint64) << (np.uint64(64) - bits)) | (record >> bits)
    order = np.argsort(key, kind="stable")
    key, code = key[order], code[order]
    begins = np.concatenate([[True], key[1:] != key[:-1]])
    if begins.all():
        return np.ones(len(order), np.int64)
    new = begins.copy()
    new[1:] |= code[1:] != code[:-1]
    first = np.flatnonzero(begins)
    out = np.empty(len(order), np.int64)
    out[order] = np.repeat(
        np.add.reduceat(new, first, dtype=np.int64), np.diff(first, append=len(order))
    )
    return out


def _ascending(texts: pa.Array) -> Ints:
    """The rank of each text, from 1."""
    rank: Ints = pc.rank(texts, tiebreaker="dense").to_numpy().astype(np.int64)
    return rank
