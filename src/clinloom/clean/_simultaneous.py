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
from clinloom.clean._ties import arranged
from clinloom.events import Flags, Ints
from clinloom.hashing import Parts, Words

if TYPE_CHECKING:
    from clinloom.clean._sheet import Sheet

DIGITS = "0123456789"
ZEROS, LOW, ABOVE_NINE = (np.uint64(0x0101010101010101 * byte) for byte in (0x30, 0x7F, 0x76))


def in_order(sheet: Sheet, rows: Ints) -> Ints:
    """``rows`` (of the sheet, sorted by subject, time, code and value, nulls first), where numbers
    of a subject's code at one moment stand by their record.

    The record that tells more codes by numbers at that moment comes later; of those that tell as
    many, the later by its name (lab.csv@90 before lab.csv@100) and source; within it the greater.
    """
    near, same = sheet.simultaneous
    alike = np.flatnonzero(same)
    if not len(alike):
        return rows
    number = ~np.isnan(sheet.placed(sheet.value))
    alike = alike[number[alike]]  # nulls come first: the next is a number, too
    if not len(alike):
        return rows
    moment = np.cumsum(np.concatenate([[False], ~near]))
    asked = np.zeros(int(moment[-1]) + 1, bool)
    asked[moment[alike]] = True
    members: Ints | slice = slice(None)
    if not (asked.all() and number.all()):
        members = np.flatnonzero(asked[moment] & number)
        moment = moment[members]
        near = moment[1:] == moment[:-1]
        code = sheet.code[0][rows[members]]
        same = near & (code[1:] == code[:-1])
    told = rows[members]
    names = hashing.parts(sheet.texts("record_id", told))
    position, sources = sheet.source
    record = names.whole
    if len(sources) > 1 or position.min() < 0:
        record ^= position[told].astype(np.uint64) * hashing.P1
    breadth = _breadth(record, moment, near, same)

    def later(one: Ints, other: Ints) -> Flags:
        found, open_ = _named_later(names, one, other)
        if breadth is not None:
            low, high = breadth[one], breadth[other]
            found, open_ = np.where(low == high, found, low > high), open_ & (low == high)
        left = np.flatnonzero(open_)
        if len(left):
            found[left] = _spelled_later(sheet, told, one[left], other[left])
        return found

    placed = arranged(told, np.flatnonzero(same), later)
    if placed is told:
        return rows
    if len(placed) == len(rows):
        return placed
    out = rows.copy()
    out[members] = placed
    return out


def _named_later(names: Parts, one: Ints, other: Ints) -> tuple[Flags, Flags]:
    """Where the names ``one`` come after ``other``, and where their ends do not tell it.

    Two names that differ in their last eight bytes alone stand as these do. But where one is
    nothing but digits from the first difference on, and the other is not, its stem is shorter.
    """
    low, high = names.end[one], names.end[other]
    unlike = low ^ high
    since = -(unlike & -unlike)  # the bytes from the first difference on
    numbers, others = ((_digitless(end) & since) == 0 for end in (low, high))
    found = np.where(numbers == others, low.byteswap() > high.byteswap(), others)
    return found, (unlike == 0) | (names.head[one] != names.head[other])


def _digitless(end: Words) -> Words:
    """The highest bit of each byte that is no digit."""
    byte = end ^ ZEROS
    return (((byte & LOW) + ABOVE_NINE) | byte) & ~LOW


def _spelled_later(sheet: Sheet, rows: Ints, one: Ints, other: Ints) -> Flags:
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


def _breadth(record: Words, moment: Ints, near: Flags, same: Flags) -> Ints | None:
    """How many codes each row's record tells by numbers at its moment (n,); None: all as many.

    Rows ascend by moment, then by code; ``near`` and ``same``: whether the next is of the same
    moment, and code. Where the records of each code of a moment add up to the same, they are the
    same, and each of them tells all its codes: only other moments are looked at. Of m moments two
    records of one are taken for the same with a chance of m / 2^63 at most: then both count as one
    that tells the codes of both.
    """
    last = np.flatnonzero(~same)  # of each code but the last
    sums = np.add.reduceat(record, np.concatenate([[0], last + 1]))
    uneven = last[near[last] & (sums[1:] != sums[:-1])]
    if not len(uneven):
        return None
    some = np.zeros(int(moment[-1]) + 1, bool)
    some[moment[uneven]] = True
    rows = np.flatnonzero(some[moment])
    code = np.cumsum(np.concatenate([[False], ~same]))[rows]
    told = _told(record[rows], moment[rows], code)
    if told is None:
        return None
    out = np.zeros(len(record), np.int64)
    out[rows] = told
    return out


def _told(record: Words, moment: Ints, code: Ints) -> Ints | None:
    """How many codes each row's record tells at its moment (n,); None: all as many.

    ``code``: a number for each code of a moment.
    """
    bits = np.uint64(max(int(moment[-1]).bit_length(), 1))
    key = (moment.view(np.uint64) << (np.uint64(64) - bits)) | (record >> bits)
    order = np.argsort(key, kind="stable")
    key, code = key[order], code[order]
    begins = np.concatenate([[True], key[1:] != key[:-1]])
    if begins.all():
        return None
    new = begins.copy()
    new[1:] |= code[1:] != code[:-1]
    first = np.flatnonzero(begins)
    told = np.add.reduceat(new, first, dtype=np.int64)
    if (told == told[0]).all():
        return None
    out = np.empty(len(order), np.int64)
    out[order] = np.repeat(told, np.diff(first, append=len(order)))
    return out


def _ascending(texts: pa.Array) -> Ints:
    """The rank of each text, from 1."""
    rank: Ints = pc.rank(texts, tiebreaker="dense").to_numpy().astype(np.int64)
    return rank
