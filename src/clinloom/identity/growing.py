"""Who is who while links keep coming: what one run finds of all of them at once, step by step.

The links that are known lie by the subject that they lead to, and a list says which identifiers
stand for another subject than their own. New links are walked together with those of every subject
that they touch, until nothing more is touched: whom they name is then what ``few`` says of all
links, in whatever order they came. An identifier that too many records have links nobody: so much
of its links is kept as shows it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.errors import DataError
from clinloom.identity.few import HOLDERS, few, paired
from clinloom.identity.names import plain
from clinloom.identity.subjects import hashed
from clinloom.tables import LINKS, Column, Table

KNOWN = Table(
    "crosswalk",
    "links between identifiers, by the subject that they lead to: for their owner alone",
    (Column("subject_id", pa.int64(), "whose they are", False), *LINKS.columns),
    ("subject_id",),
)
STANDING = Table(
    "standing",
    "for whom identifiers stand that events bear, or that link; the greatest version counts",
    (
        Column("subject_id", pa.int64(), "the hash of the identifier", False),
        Column("true", pa.int64(), "the subject", False),
        Column("version", pa.int64(), "which step of the stream found it", False),
    ),
    ("subject_id",),
)
LANES = 16  # files that are asked side by side
Edge = tuple[str, str]
Asked = Callable[[str, np.ndarray], list[pa.Table]]  # rows of a table (its name) by subjects


@dataclass(frozen=True)
class Found:
    """What new links changed.

    ``true``: the subject of every identifier that was asked for and is not its own; ``moved``: of
    each identifier that events may bear already and whose subject changed, the old one and the
    new; ``known`` and ``standing``: the rows to be kept beside those that are.
    """

    true: Mapping[int, int] = field(default_factory=dict)
    moved: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    known: pa.Table = field(default_factory=lambda: KNOWN.empty)
    standing: pa.Table = field(default_factory=lambda: STANDING.empty)


def resolve(links: Iterable[pa.Table], asked: Asked, *, version: int) -> Found:
    """Who is who after new links (LINKS): (p, p) for everybody of whom events tell among them.

    ``asked(name, subjects)`` gives what is kept of ``crosswalk`` or ``standing`` of some subjects.
    Raises DataError where two identifiers have the same hash.
    """
    pairs = pa.concat_tables([paired(part) for part in (*links, LINKS.empty)])
    pairs = pairs.group_by(["patient", "other"], use_threads=False).aggregate([])
    left, right = (pairs.column(n).to_pylist() for n in ("patient", "other"))
    fresh = {(one, other) for one, other in zip(left, right, strict=True) if one != other}
    own = _owns({*left, *right})
    stood = _standing(asked, own.values())
    held: dict[Edge, set[int]] = {}
    edges, subjects = set(fresh), set[int]()
    wanted = {_true(stood, own[name]) for edge in fresh for name in edge}
    while wanted - subjects:
        rows = asked(KNOWN.name, np.array(sorted(wanted - subjects), np.int64))
        subjects |= wanted
        for subject, one, other in (row for part in rows for row in _rows(part)):
            held.setdefault((one, other), set()).add(subject)
        more = {name for edge in held.keys() - edges for name in edge} - own.keys()
        edges |= held.keys()
        own |= _owns(more)
        stood |= _standing(asked, [own[name] for name in more])
        wanted = {_true(stood, own[name]) for edge in edges for name in edge}
    now = _walked(edges, own) if edges - held.keys() else {}  # else nothing new is told
    before = {number: _true(stood, number) for number in own.values()}
    true = before | now
    changed = {number for number in now if before[number] != true[number]}
    new = sorted(changed | ({own[name] for name in left} - stood.keys()))
    names = KNOWN.arrow.names
    kept = _kept(edges, held, own, true) if now else ()
    return Found(
        {number: subject for number, subject in true.items() if number != subject},
        {number: (before[number], true[number]) for number in changed & stood.keys()},
        KNOWN.rows(dict(zip(names, row, strict=True)) for row in kept),
        pa.table(
            [new, [true[number] for number in new], [version] * len(new)], schema=STANDING.arrow
        ),
    )


def _true(stood: Mapping[int, int], number: int) -> int:
    return stood.get(number, number)


def _rows(part: pa.Table) -> Iterable[tuple[int, str, str]]:
    columns = (part.column(n).to_pylist() for n in KNOWN.arrow.names)
    return zip(*columns, strict=True)


def _owns(names: Iterable[str]) -> dict[str, int]:
    """The hash of each name, which bears a mark."""
    listed = list(names)
    numbers = hashed(plain(pa.array(listed, pa.string()))).tolist()
    return dict(zip(listed, numbers, strict=True))


def _standing(asked: Asked, owns: Iterable[int]) -> dict[int, int]:
    """For whom identifiers stand that are kept, by their hashes."""
    keys = np.array(sorted(set(owns)), np.int64)
    rows = pa.concat_tables([STANDING.empty, *(asked(STANDING.name, keys) if len(keys) else ())])
    columns = (rows.sort_by("version").column(n).to_pylist() for n in ("subject_id", "true"))
    return dict(zip(*columns, strict=True))


def _walked(edges: Iterable[Edge], own: Mapping[str, int]) -> dict[int, int]:
    """The subject of every identifier in these links; its own where it links nobody."""
    left, right = (list(side) for side in zip(*edges, strict=True))
    walked, _ = few([pa.table([left, right], schema=LINKS.arrow)])
    if pc.count_distinct(walked.column("own")).as_py() < walked.num_rows:
        raise DataError("two patients have the same hash", mend="report this at once")
    names = (walked.column(n).to_pylist() for n in ("own", "subject_id"))
    alone = {own[name]: own[name] for edge in edges for name in edge}
    return alone | dict(zip(*names, strict=True))


def _kept(
    edges: Iterable[Edge],
    held: Mapping[Edge, set[int]],
    own: Mapping[str, int],
    true: Mapping[int, int],
) -> Iterable[tuple[int, str, str]]:
    """Where each link is to lie, and does not yet: by its subject, or, where too many records have
    the identifier, by that one's own hash."""
    holders = Counter(other for _, other in edges)
    shown: Counter[str] = Counter()
    for one, other in sorted(edges):
        subject = true[own[one]]
        if holders[other] > HOLDERS:
            subject = own[other]
            shown[other] += 1
            if shown[other] > HOLDERS + 1:
                continue
        if subject not in held.get((one, other), ()):
            yield subject, one, other


def side_by_side(tasks: Iterable[Callable[[], pa.Table]]) -> list[pa.Table]:
    """The answers of small reads, which mostly wait for a storage."""
    with ThreadPoolExecutor(LANES) as pool:
        return list(pool.map(lambda task: task(), tasks))
