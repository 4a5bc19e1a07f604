"""Several numbers of one code at one moment: in which order they stand, for the last one counts.

Two panels of one moment are two records. Where each code's greatest number came last, a patient
would have the potassium of the one and the sodium of the other: a record that there never was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import events
from clinloom.events import Flags, Ints

if TYPE_CHECKING:
    from clinloom.clean._sheet import Sheet

NAMED = r"^(?s:(?P<stem>.*?)(?P<number>[0-9]{0,18}))$"  # lab.csv@90 stands before lab.csv@100


def in_order(sheet: Sheet, rows: Ints) -> Ints:
    """``rows`` (of the sheet, sorted by subject, time, code and value, nulls first), where numbers
    of a subject's code at one moment stand by their record.

    The record that tells more codes by numbers at that moment comes later; of those that tell as
    many, the later by its name (numbers at its end as numbers) and source; within it the greater.
    """
    same = _moments(sheet, rows)
    number = sheet.value[rows] == sheet.value[rows]
    code = sheet.code[0][rows]
    near = np.flatnonzero(same)
    near = near[(code[near] == code[near + 1]) & number[near]]  # nulls come first
    if not len(near):
        return rows
    moment = np.concatenate([[0], np.cumsum(~same)])
    alike = np.zeros(moment[-1] + 1, bool)
    alike[moment[near]] = True
    members = np.flatnonzero(alike[moment] & number)
    moment, code = moment[members], code[members]
    record = _records(sheet, rows[members])
    breadth = _breadth(moment, record, code)
    tied = _among(members, near)
    run = np.cumsum(np.concatenate([[True], (np.diff(moment) > 0) | (np.diff(code) != 0)]))
    places = members[tied]
    value = sheet.value[rows[places]]
    order = np.lexsort((value, record[tied], breadth[tied], run[tied]))
    if (np.diff(order) == 1).all():
        return rows
    out = rows.copy()
    out[places] = rows[places[order]]
    return out


def _moments(sheet: Sheet, rows: Ints) -> Flags:
    """Which rows (n - 1,) are of the same subject and time as the one after."""
    before, after = rows[:-1], rows[1:]
    same: Flags = sheet.time[before] == sheet.time[after]
    near = np.flatnonzero(same)
    same[near] = sheet.subject[before[near]] == sheet.subject[after[near]]
    return same


def _among(members: Ints, near: Ints) -> Flags:
    """Which of the members have another number of their code at their moment."""
    places = np.union1d(near, near + 1)
    return np.isin(members, places, assume_unique=True)


def _records(sheet: Sheet, rows: Ints) -> Ints:
    """Of which record each row is (n,): numbers that ascend with the records' names."""
    at = pa.array(rows)
    name = sheet.column("record_id").take(at).cast(pa.string()).dictionary_encode()
    parts = pc.extract_regex(name.dictionary, NAMED)
    stem = pc.rank(pc.struct_field(parts, "stem"), tiebreaker="dense").to_numpy()
    digits = pc.struct_field(parts, "number")
    number = pc.if_else(pc.equal(digits, ""), "0", digits).cast(pa.int64()).to_numpy()
    text = pc.rank(name.dictionary, tiebreaker="dense").to_numpy()  # 07 is not 7
    order = np.lexsort((text, number, stem))
    rank = np.empty(len(order) + 1, np.int64)
    rank[order] = np.arange(1, len(rank))
    rank[-1] = 0  # of none
    position = events.coded(name)[0]
    source, sources = sheet.source
    of_source = np.empty(len(sources) + 1, np.int64)
    of_source[np.argsort(np.array(sources, object))] = np.arange(1, len(of_source))
    of_source[-1] = 0
    found: Ints = rank[position] * len(of_source) + of_source[source[rows]]
    return found


def _breadth(moment: Ints, record: Ints, code: Ints) -> Ints:
    """How many codes each row's record tells by numbers at its moment (n,)."""
    order = np.lexsort((code, record, moment))
    new = np.ones(len(order), bool)
    group = np.zeros(len(order), bool)
    group[1:] = (np.diff(moment[order]) != 0) | (np.diff(record[order]) != 0)
    new[1:] = group[1:] | (np.diff(code[order]) != 0)
    number = np.cumsum(group)
    out = np.empty(len(order), np.int64)
    out[order] = np.bincount(number, new)[number]
    return out
