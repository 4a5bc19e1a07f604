"""Who is who among few links: on a driver, or within one request, without Spark."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.identity.names import pairs as parted
from clinloom.identity.names import plain, texts
from clinloom.identity.subjects import hashed
from clinloom.tables import CROSSWALK, LINKS, MOVED, Table

HOLDERS = 10  # records that one identifier may belong to: more, and it is no patient's
WALKED = Table(
    "walked",
    "the crosswalk, and the hash of each identifier",
    (*CROSSWALK.columns, MOVED.columns[0]),
)
FORMER, FIRST = "0", 1  # the first letter of a mark: this name was a subject's before


def few(links: list[pa.Table], before: Iterable[pa.Table] = ()) -> tuple[pa.Table, int]:
    """The crosswalk's rows (WALKED) of few links (LINKS), and how many links were left out.

    ``before``: an earlier crosswalk's rows (CROSSWALK).
    """
    pairs = pa.concat_tables([paired(part) for part in (*links, LINKS.empty)])
    pairs = pairs.group_by(["patient", "other"], use_threads=False).aggregate([])
    themselves = pc.equal(pairs.column("patient"), pairs.column("other"))
    edges = pairs.filter(pc.invert(themselves))
    held = edges.column("other").combine_chunks().value_counts()
    crowded = held.field("values").filter(pc.greater(held.field("counts"), HOLDERS))
    apart = pc.is_in(edges.column("other"), crowded)
    pairs = pa.concat_tables([pairs.filter(themselves), edges.filter(pc.invert(apart))])
    both = [pairs.column(n) for n in ("patient", "other")]
    known = pc.unique(pa.chunked_array([c for column in both for c in column.chunks], pa.string()))
    if not len(known):
        return WALKED.empty, int(pc.sum(apart).as_py() or 0)
    marked = _remarked(known, before)
    order = pc.sort_indices(marked)
    known, names = known.take(order), plain(known.take(order))
    left, right = (pc.index_in(column, known).to_pylist() for column in both)
    own = hashed(names)
    columns = [*parted(names), own[_least(len(known), left, right)], own]
    return pa.table(columns, names=WALKED.arrow.names), int(pc.sum(apart).as_py() or 0)


def _least(count: int, left: Iterable[int], right: Iterable[int]) -> np.ndarray:
    """The least number of each of ``count`` numbers' sets (count,) that pairs join."""
    above = list(range(count))

    def top(number: int) -> int:
        while above[number] != number:
            above[number] = number = above[above[number]]
        return number

    for one, other in zip(left, right, strict=True):
        low, high = sorted((top(one), top(other)))
        above[high] = low
    return np.array([top(number) for number in range(count)], np.int64)


def paired(links: pa.Table) -> pa.Table:
    """Links as plain texts."""
    return pa.table({n: links.column(n).cast(pa.string()) for n in ("patient", "other")})


def anchors(crosswalk: pa.Table) -> pa.Array:
    """The names, of a crosswalk's rows, that are their subjects': their hash is its number."""
    systems, values = (crosswalk.column(n).combine_chunks() for n in ("system", "identifier"))
    names = texts(systems, values)
    return names.filter(pa.array(hashed(names) == crosswalk.column("subject_id").to_numpy()))


def _remarked(known: pa.Array, before: Iterable[pa.Table]) -> pa.Array:
    """The names with their marks, those first that were a subject's before."""
    names = plain(known)
    found = np.zeros(len(names), bool)
    for rows in before:
        found |= pc.is_in(names, anchors(rows)).to_numpy(zero_copy_only=False)
    rest = pc.utf8_slice_codeunits(known, FIRST)
    return pc.if_else(pa.array(found), pc.binary_join_element_wise(FORMER, rest, ""), known)
