"""Observations of the usual shape, as columns of all the lines that were written in one layout.

Usual is: an id, a status that tells a fact, a patient by reference, one code, a time, at most one
value and no components. Everything else is left to who reads Observations one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.sources._fhir import resources as r4
from clinloom.sources._fhir.concepts import UNREAD, VALUES, Called, Concepts, Observation
from clinloom.sources._fhir.event import TEXT
from clinloom.sources._fhir.layouts import (
    LEAST,
    Layout,
    Lines,
    Numbers,
    Part,
    Path,
    Written,
    values,
)
from clinloom.sources._fhir.values import MISSING, Value

LESSONS = 48  # in a row that may be in vain
TRIES = 3  # of them in a block, on lines with the same number of quotes
CONSTANT: tuple[Path, ...] = (("resourceType",), ("status",))
TEXTS: dict[str, tuple[Path, ...]] = {  # what is read, of the first of these that is told
    "id": (("id",),),
    "patient": (("subject", "reference"),),
    "issued": (("issued",),),
    "happened": (
        ("effectiveDateTime",),
        ("effectivePeriod", "end"),
        ("effectivePeriod", "start"),
    ),
    "updated": (("meta", "lastUpdated"),),
    "unit": (("valueQuantity", "code"), ("valueQuantity", "unit")),
}
CODE: Path = ("code",)
NUMBER: Path = ("valueQuantity", "value")
DUE = frozenset({"id", "code", "patient"})
SAID = (pa.float64(), TEXT, TEXT)
COMPARATOR: Path = ("valueQuantity", "comparator")


class Noted(NamedTuple):
    """What a line's code tells besides: to so many records, how it is called; or how often codings
    that are passed over come with it in the block."""

    row: int
    code: bytes  # as it is written
    patient: str | None
    times: int


class Found(NamedTuple):
    """The events (n,) of the lines ``rows``, ascending, in the columns of ``event.Rows``."""

    rows: Numbers
    columns: list[pa.Array]
    noted: list[Noted]  # ascending


class Learned(NamedTuple):
    """A layout, and what all of its lines hold that is counted and not read."""

    layout: Layout
    unread: list[str]


class Usual:
    """Reads what it can of blocks of lines.

    ``told``: the statuses that tell a fact; ``decode``: gives a line's resource; ``unread``: counts
    what else is in the lines that are read.
    """

    def __init__(
        self,
        concepts: Concepts,
        told: frozenset[str | None],
        decode: Callable[[bytes], Any],
        unread: Counter[str],
    ):
        self._concepts, self._told, self._decode = concepts, told, decode
        self._unread = unread
        self._layouts: list[Learned] = []
        self._lessons = LESSONS

    def read(self, lines: Lines) -> Found | None:
        """The usual Observations of a block, which are left no longer; None: no layout reads any.

        Layouts that paid are kept for the next block, and others are learned while there are many
        lines alike that none of them reads.
        """
        if len(lines.left) < LEAST or b'"Observation"' not in lines.data or not lines.is_text:
            return None
        known, self._layouts = self._layouts, []
        found = [part for layout in known if (part := self._by(layout, lines)) is not None]
        vain: Counter[int] = Counter()  # lessons, by how many quotes the line has
        while self._lessons:
            alike = lines.alike(besides=[quotes for quotes, n in vain.items() if n == TRIES])
            if len(alike) < LEAST:
                break
            quotes = int(lines.quotes[alike[0]])
            layout = self._learned(lines[int(alike[len(alike) * vain[quotes] // TRIES])])
            part = self._by(layout, lines) if layout is not None else None
            if part is not None:
                found.append(part)
            if part is not None and len(part.rows) >= LEAST:
                self._lessons = LESSONS
            else:
                self._lessons -= 1
                vain[quotes] += 1
        return _together(found) if found else None

    def _by(self, learned: Learned, lines: Lines) -> Found | None:
        """What a layout reads of a block; it is kept where that pays."""
        rows, read = learned.layout.read(lines)
        if not len(rows):
            return None
        found = self._columns(rows, read)
        lines.take(found.rows)
        self._unread.update(dict.fromkeys(learned.unread, len(found.rows)))
        if len(found.rows) >= LEAST:
            self._layouts.append(learned)
        return found

    def _learned(self, line: bytes) -> Learned | None:
        """The layout of a usual Observation; None where that is none, or of no layout."""
        o, found = self._decode(line), values(line)
        if not found or type(o) is not Observation or o.status not in self._told:
            return None
        if any(field is not None for field in (o.component, o.hasMember, o.effectiveInstant)):
            return None
        if o.meta is not None and o.meta.versionId is not None and not o.meta.lastUpdated:
            return None  # its version would have to be read
        said = [name for name in VALUES if getattr(o, name) is not None]
        names = {path: name for name, paths in TEXTS.items() if (path := _told(paths, found))}
        whole: dict[Path, str] = {CODE: "code"}
        if NUMBER in found and found[NUMBER].kind == "number" and COMPARATOR not in found:
            names[NUMBER] = "number"
        else:
            whole |= {(name,): name for name in said}
        parts = list(_parts(found, names, whole))
        told = {part.name for part in parts}
        if len(said) > 1 or not told >= DUE or not told & {"issued", "happened"}:
            return None
        try:
            unread = [told for name, told in UNREAD.items() if getattr(o, name) is not r4.UNREAD]
            return Learned(Layout(line, parts), unread)
        except ValueError:
            return None

    def _columns(self, rows: Numbers, read: dict[str, pa.Array]) -> Found:
        """The events of such of these lines as are usual in every part."""
        code, issued = read["code"].dictionary_encode(), read.get("issued")
        called = [self._concepts.called[text.encode()] for text in code.dictionary.to_pylist()]
        nothing = pa.nulls(len(rows), TEXT)
        time = made = read.get("happened", nothing)
        if issued is not None:
            time = issued
        else:
            made = pa.repeat("", len(rows))
        said, good = self._said(read, len(rows))
        alone = pa.array([c.alone for c in called], TEXT).take(code.indices)
        good = pc.and_(good, alone.is_valid())
        good = pc.and_(good, pc.and_(pc.greater(time, "0"), pc.less(time, ":")))  # it is a digit
        record = pc.binary_join_element_wise("Observation/", read["id"], "")
        columns = [read["patient"], time, made, nothing, alone, *said, record]
        columns += [read.get("updated", nothing), pa.nulls(len(rows), pa.int64()), code]
        rows, columns = _such(rows, columns, good)
        about = columns[0].dictionary_encode()
        patients = [self._concepts.patients[text] for text in about.dictionary.to_pylist()]
        columns[0] = pa.array(patients, TEXT).take(about.indices)
        rows, columns = _such(rows, columns, columns[0].is_valid())
        return Found(rows, columns[:-1], self._noted(rows, columns[0], columns[-1], called))

    def _said(
        self, read: dict[str, pa.Array], count: int
    ) -> tuple[list[pa.Array], pa.BooleanArray]:
        """Number, text and unit, and which of these are well formed."""
        if "number" in read:
            unit = read.get("unit", pa.nulls(count, TEXT))
            number = read["number"].cast(pa.float64())
            return [number, pa.nulls(count, TEXT), unit], pa.repeat(True, count)
        name = next((name for name in read if name in VALUES), None)
        said: list[Value | None] = [MISSING]
        if name is None:
            coded = pa.repeat("", count).dictionary_encode()
        else:
            coded = read[name].dictionary_encode()
            said = [self._concepts.said[name, text] for text in coded.dictionary.to_pylist()]
        parts = zip(*(one or MISSING for one in said), strict=True)
        columns = [pa.array(part, kind) for part, kind in zip(parts, SAID, strict=True)]
        good = pa.array([one is not None for one in said])
        return [c.take(coded.indices) for c in columns], good.take(coded.indices)

    def _noted(
        self, rows: Numbers, patient: pa.Array, code: pa.DictionaryArray, called: list[Called]
    ) -> list[Noted]:
        """What is to be counted, and who is still asked how a code is called."""
        if not any(c.shown or c.left_out for c in called):
            return []
        indices, noted = code.indices.to_numpy(), list[Noted]()
        written = [text.encode() for text in code.dictionary.to_pylist()]
        counts = np.unique(indices, return_index=True, return_counts=True)
        for one, at, times in zip(*counts, strict=True):
            if called[one].left_out:
                noted.append(Noted(int(rows[at]), written[one], None, int(times)))
        asked = np.flatnonzero(np.array([bool(c.shown) for c in called])[indices])
        patients = patient.take(pa.array(asked)).to_pylist()
        for at, whose in zip(asked.tolist(), patients, strict=True):
            noted.append(Noted(int(rows[at]), written[indices[at]], whose, 0))
        return sorted(noted, key=lambda note: note.row)


def _told(paths: Sequence[Path], found: Mapping[Path, Written]) -> Path | None:
    """The first of these that is a text."""
    return next((path for path in paths if path in found and found[path].kind == "text"), None)


def _parts(
    found: Mapping[Path, Written], names: Mapping[Path, str], whole: Mapping[Path, str]
) -> Iterator[Part]:
    """The parts of a line that may differ, in their order. ``whole``: what is taken as written."""
    for path, (begin, end, kind) in sorted(found.items(), key=lambda one: one[1][:2]):
        if path in whole:
            yield Part(begin, end, whole[path])
        elif path[:1] in whole or path in CONSTANT:
            continue
        elif kind == "text":
            yield Part(begin + 1, end - 1, names.get(path, ""))
        elif kind == "number":
            yield Part(begin, end, names.get(path, ""), number=True)


def _such(
    rows: Numbers, columns: list[pa.Array], good: pa.BooleanArray
) -> tuple[Numbers, list[pa.Array]]:
    """Only the rows that are good."""
    if good.true_count == len(rows):
        return rows, columns
    return rows[good.to_numpy(zero_copy_only=False)], [c.filter(good) for c in columns]


def _together(found: list[Found]) -> Found:
    """What several layouts read, in the order of the lines."""
    if len(found) == 1:
        return found[0]
    rows = np.concatenate([part.rows for part in found])
    order = np.argsort(rows)
    columns = zip(*(part.columns for part in found), strict=True)
    inside = [pa.concat_arrays(column).take(pa.array(order)) for column in columns]
    return Found(
        rows[order], inside, sorted((n for part in found for n in part.noted), key=lambda n: n.row)
    )
