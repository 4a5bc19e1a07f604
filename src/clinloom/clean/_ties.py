"""Rows that tie, put in order by comparing them two by two: all runs of ties at once.

What tells two rows apart is mostly dear to look at (names of records) and there are mostly two of
them, so nothing is ranked: only neighbours are compared, and only runs in which two stand wrongly
are sorted, by Batcher's odd-even merge (AFIPS 1968), which compares the same places whatever holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.events import Flags, Ints

Later = Callable[[Ints, Ints], Flags]


def arranged(rows: Ints, near: Ints, later: Later) -> Ints:
    """``rows`` (n,) with each run of ties in order; the same array where all are.

    ``near``: the places, ascending, whose next row ties with them. ``later`` of places ``a`` and
    ``b`` (k,): at which of them the row at ``a`` comes after that at ``b``; a total order, so that
    rows which are the same stay as they stand.
    """
    wrong = later(near, near + 1)
    if not wrong.any():
        return rows
    out = rows.copy()
    first = np.diff(near, prepend=-2) > 1
    pair = first & np.append(first[1:], True)  # of which the one comparison tells all
    _swap(out, near[pair & wrong])
    more = np.flatnonzero(~pair)
    begins = np.flatnonzero(first[more])
    if not len(begins):
        return out
    some = np.flatnonzero(np.logical_or.reduceat(wrong[more], begins))
    if not len(some):
        return out
    size = np.diff(begins, append=len(more))[some] + 1
    begin = near[more[begins[some]]]
    order = np.arange(len(rows))
    for low, distance in _network(int(size.max())):
        count = np.searchsorted(low, size - distance)  # comparisons that lie within each run
        run, which = spread(count)
        at = begin[run] + low[which]
        swapped = at[later(order[at], order[at + distance])]
        _swap(order, swapped, distance)
    run, which = spread(size)
    places = begin[run] + which
    out[places] = rows[order[places]]
    return out


def _swap(rows: Ints, at: Ints, distance: int = 1) -> None:
    rows[at], rows[at + distance] = rows[at + distance], rows[at]


def runs(near: Ints) -> tuple[Ints, Ints]:
    """The places that tie with the next or the one before (k,), and of which run each is.

    ``near``: the places, ascending, whose next one ties with them.
    """
    first = np.flatnonzero(np.diff(near, prepend=-2) > 1)
    run, which = spread(np.diff(first, append=len(near)) + 1)
    return near[first[run]] + which, run


def spread(count: Ints) -> tuple[Ints, Ints]:
    """Of so many items each: whose each item is, and the how manieth of it, from 0."""
    of = np.repeat(np.arange(len(count)), count)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count)


def _network(size: int) -> Iterator[tuple[Ints, int]]:
    """The steps that sort ``size`` items: which are compared with those a distance further on."""
    merged = 1
    while merged < size:
        distance = merged
        while distance:
            low = np.arange(distance % merged, size - distance)
            low = low[(low - distance % merged) % (2 * distance) < distance]
            yield low[low // (2 * merged) == (low + distance) // (2 * merged)], distance
            distance //= 2
        merged *= 2


def after(one: pa.Array, other: pa.Array, otherwise: Flags) -> Flags:
    """Where the texts ``one`` come after ``other`` (nulls first); ``otherwise`` where they are
    the same."""
    later, same = _flags(pc.greater(one, other)), _flags(pc.equal(one, other))
    if one.null_count or other.null_count:
        some, others = (_flags(texts.is_valid()) for texts in (one, other))
        later, same = np.where(some == others, later, some), same | ~(some | others)
    return np.where(same, otherwise, later)


def _flags(told: pa.Array) -> Flags:
    flags: Flags = told.fill_null(False).to_numpy(zero_copy_only=False)
    return flags
