"""Several numbers of one code at one moment: in which order they stand, for the last one counts.

Two panels of one moment are two records. Where each code's greatest number came last, a patient
would have the potassium of the one and the sodium of the other: a record that there never was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.events import Ints

if TYPE_CHECKING:
    from clinloom.clean._sheet import Sheet

DIGITS = "0123456789"


def in_order(sheet: Sheet, rows: Ints) -> Ints:
    """``rows`` (of the sheet, sorted by subject, time, code and value, nulls first), where numbers
    of a subject's code at one moment stand by their record.

    The record that tells more codes by numbers at that moment comes later; of those that tell as
    many, the later by its name (lab.csv@90 before lab.csv@100) and source; within it the greater.
    """
    time = sheet.time[rows]
    near = np.flatnonzero(time[1:] == time[:-1])
    near = near[sheet.subject[rows[near]] == sheet.subject[rows[near + 1]]]  # of one moment
    code, value = sheet.code[0], sheet.value
    alike = code[rows[near]] == code[rows[near + 1]]
    alike &= ~np.isnan(value[rows[near]])  # nulls come first, so that the next is a number, too
    pairs = near[alike]
    if not len(pairs):
        return rows
    tied = np.zeros(len(rows), bool)
    tied[pairs] = tied[pairs + 1] = True
    moment = np.ones(len(rows), np.int64)
    moment[near + 1] = 0
    moment = np.cumsum(moment)
    asked = np.zeros(int(moment[-1]) + 1, bool)
    asked[moment[pairs]] = True
    members = np.flatnonzero(asked[moment])
    members = members[~np.isnan(value[rows[members]])]
    tied = tied[members]
    record, names = _records(sheet, rows[members])
    mine = np.zeros(len(names) * (len(sheet.source[1]) + 1), bool)
    mine[record[tied]] = True
    told = mine[record]  # what other records tell does not matter
    members, tied, record = members[told], tied[told], record[told]
    breadth = _breadth(moment[members], record, code[rows[members]])[tied]
    places, record = members[tied], record[tied]
    run = np.zeros(len(rows), np.int64)
    run[pairs + 1] = 1
    run = np.cumsum(1 - run)[places]
    order = np.lexsort((value[rows[places]], _ranks(record, names, sheet), breadth, run))
    if (np.diff(order) == 1).all():
        return rows
    out = rows.copy()
    out[places] = rows[places[order]]
    return out


def _records(sheet: Sheet, rows: Ints) -> tuple[Ints, pa.Array]:
    """Of which record each row is (n,), as a number below names x (sources + 1); the names.

    The last name stands for none.
    """
    name = sheet.column("record_id").take(pa.array(rows)).cast(pa.string()).dictionary_encode()
    names = pa.concat_arrays([name.dictionary, pa.array([""])])
    position = name.indices.fill_null(len(names) - 1).to_numpy().astype(np.int64)
    return position * (len(sheet.source[1]) + 1) + sheet.source[0][rows] + 1, names


def _breadth(moment: Ints, record: Ints, code: Ints) -> Ints:
    """How many codes each row's record tells by numbers at its moment (n,).

    Rows ascend by moment, then by code.
    """
    key = moment * (int(record.max()) + 1) + record
    order = np.argsort(key, kind="stable")
    key, code = key[order], code[order]
    begins = np.concatenate([[True], key[1:] != key[:-1]])
    new = begins.copy()
    new[1:] |= code[1:] != code[:-1]
    number = np.cumsum(begins) - 1
    out = np.empty(len(order), np.int64)
    out[order] = np.bincount(number, new)[number]
    return out


def _ranks(record: Ints, names: pa.Array, sheet: Sheet) -> Ints:
    """Numbers (n,) that ascend with the records' names and sources; a number at the end of a name
    counts by its length first."""
    position, source = np.divmod(record, len(sheet.source[1]) + 1)
    used, place = np.unique(position, return_inverse=True)
    some = names.take(pa.array(used))
    stem = pc.ascii_rtrim(some, characters=DIGITS).dictionary_encode()
    stems = _ascending(stem.dictionary)[stem.indices.to_numpy()]
    length = pc.binary_length(some).to_numpy()
    rank = np.empty(len(used), np.int64)
    rank[np.lexsort((_ascending(some), length, stems))] = np.arange(len(used))
    sources = np.concatenate([[0], _ascending(pa.array(sheet.source[1], pa.string()))])
    found: Ints = rank[place] * (len(sources) + 1) + sources[source]
    return found


def _ascending(texts: pa.Array) -> Ints:
    """The rank of each text, from 1."""
    rank: Ints = pc.rank(texts, tiebreaker="dense").to_numpy().astype(np.int64)
    return rank
