"""A manifest of images: matched with files once, by hashes; read in a task for its own rows alone.

The driver keeps some thirty bytes a row, of rows only: a 64-bit hash of each name, the numbers of
the first two rows that say different things of it, and how many files bear it. Whether a name is
really the same is looked at again where the row itself is read.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from clinloom.errors import SourceError
from clinloom.files import address, random
from clinloom.identity.subjects import hashed
from clinloom.sources._declared import TimeSpec, times, zoneless
from clinloom.sources._rows.csv import check

BATCH = 1 << 16  # rows that are looked at at once
LACK = "the manifest has"
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """What a row says: of which file, whose it is, when (microseconds, or a text), and of what.

    ``labels``: the manifest's, filled in; None where a cell is empty. ``zoneless``: whether nobody
    tells the zone of its time.
    """

    name: str
    patient: str | None
    time: int | None
    time_text: str | None
    labels: tuple[str | None, ...] = ()
    zoneless: bool = False


@dataclass(frozen=True)
class Manifest:
    """A CSV or Parquet file with a row an image, and what its columns mean."""

    path: str
    file: str
    patient: str
    time: TimeSpec | None
    labels: tuple[str, ...] = ()  # texts in which a {column} stands for its cell

    def rows(self, wanted: Sequence[int]) -> dict[int, Row]:
        """The rows of these numbers, and no other.

        Raises SourceError as :meth:`batches` does, and where there are fewer rows than that.
        """
        numbers = np.unique(np.asarray(wanted, np.int64))
        out: dict[int, Row] = {}
        for begin, batch in self.batches() if len(numbers) else ():
            ends = np.searchsorted(numbers, [begin, begin + batch.num_rows])
            mine = numbers[ends[0] : ends[1]]
            if len(mine):
                some = batch.take(pa.array(mine - begin))
                names, patients = self.names(some), _texts(some.column(self.patient))
                lists = names.to_pylist(), patients.to_pylist(), self.times(some)
                told = zip(*lists, self._labelled(some), self._zoneless(some), strict=True)
                found = (Row(n or "", w or None, *at, of, bare) for n, w, at, of, bare in told)
                out.update(zip(mine.tolist(), found, strict=True))
            if ends[1] == len(numbers):
                return out
        if len(out) < len(numbers):
            raise SourceError(
                "the manifest lost rows while it was read", where=self.path, mend="run it again"
            )
        return out

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The columns that matter, some rows at a time, each with its first row's number.

        Raises SourceError where the manifest cannot be read or lacks a column.
        """
        begin = 0
        try:
            for batch in self._batches():
                for at in range(0, batch.num_rows, BATCH):
                    yield begin + at, batch.slice(at, BATCH)
                begin += batch.num_rows
        except (FileNotFoundError, IsADirectoryError):
            raise SourceError(
                f"there is no manifest '{self.path}'", mend="mend `manifest` in the study"
            ) from None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
            raise SourceError(
                "the manifest is not a CSV or Parquet file",
                where=self.path,
                mend="is it UTF-8 text?",
            ) from None

    def _batches(self) -> Iterator[pa.RecordBatch]:
        wanted = [*columns_of(self.file), self.patient]
        wanted += [name for label in self.labels for name in columns_of(label)]
        if self.time is not None and self.time.column is not None:
            wanted.append(self.time.column)
        wanted = list(dict.fromkeys(wanted))
        if address(self.path).suffix.lower() == ".parquet":
            opened = pq.ParquetFile(random(self.path))
            check(opened.schema_arrow.names, wanted, self.path, lack=LACK)
            yield from opened.iter_batches(BATCH, columns=wanted, use_threads=False)
            return
        with pa_csv.open_csv(random(self.path)) as head:
            check(head.schema.names, wanted, self.path, lack=LACK)
        strings = pa_csv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(wanted, pa.string()),
            strings_can_be_null=False,
        )
        with pa_csv.open_csv(random(self.path), convert_options=strings) as reader:
            yield from reader

    def names(self, batch: pa.RecordBatch) -> pa.Array:
        """The file that each row names; null where a column of its name is empty."""
        return _filled(self.file, batch)

    def _labelled(self, batch: pa.RecordBatch) -> list[tuple[str | None, ...]]:
        """Each row's labels."""
        if not self.labels:
            return [()] * batch.num_rows
        filled = [_filled(label, batch).to_pylist() for label in self.labels]
        return list(zip(*filled, strict=True))

    def _zoneless(self, batch: pa.RecordBatch) -> list[bool]:
        """Whether nobody tells the zone of each row's time."""
        spec = self.time
        column = batch.column(spec.column) if spec is not None and spec.column else None
        found = zoneless(spec, column) if spec is not None else None
        none = [False] * batch.num_rows
        return none if found is None else found.fill_null(False).to_pylist()

    def times(self, batch: pa.RecordBatch) -> list[tuple[int | None, str | None]]:
        """When each row's image was available: microseconds, else a text, else neither."""
        spec = self.time
        if spec is None or spec.static:
            return [(None, None)] * batch.num_rows
        column = batch.column(spec.column) if spec.column else None
        found = times(spec, column, batch.num_rows)
        micro = found.time.cast(pa.int64()).to_pylist()
        return list(zip(micro, found.text.to_pylist(), strict=True))

    def said(self, batch: pa.RecordBatch) -> Numbers:
        """A hash of what each row says, so that rows that differ are told from mere repetition."""
        times = self.times(batch)
        kinds = {when: number for number, when in enumerate(dict.fromkeys(times))}
        texts = pa.array([f"\0{micro}\0{text}" for micro, text in kinds], pa.string())
        when = texts.take(pa.array([kinds[t] for t in times], pa.int64()))
        who = _texts(batch.column(self.patient))
        told = [who, when]
        for label in self.labels:
            if columns_of(label):
                told += [pa.repeat("\0", batch.num_rows), pc.fill_null(_filled(label, batch), "")]
        return hashed(pc.binary_join_element_wise(*told, ""))


class Index:
    """Which names the manifest holds, and how many files bear each: arrays, a number a name."""

    def __init__(self, manifest: Manifest):
        names: list[Numbers] = []
        said: list[Numbers] = []
        rows: list[Numbers] = []
        depths: set[int] = set()
        for begin, batch in manifest.batches():
            named = manifest.names(batch)
            held = np.flatnonzero(named.is_valid().to_numpy(zero_copy_only=False))
            named = named.drop_null()
            names.append(hashed(named))
            said.append(manifest.said(batch)[held])
            rows.append(held + begin)
            depths |= set(pc.unique(pc.count_substring(named, "/")).to_pylist())
        self.depths = sorted(depths)
        self.names, self.first, self.other = _distinct(*map(_joined, (names, said, rows)))
        self.files = np.zeros(len(self.names), np.uint8)  # how many bear the name: 2 is many

    def match(self, paths: Sequence[str]) -> Numbers:
        """Where each file's possible names stand (files, depths), by the manifest's depths; -1."""
        called = [name or "" for path in paths for name in _called(path, self.depths)]
        wanted = hashed(pa.array(called, pa.string())).reshape(len(paths), len(self.depths))
        at = np.searchsorted(self.names, wanted)
        near = np.minimum(at, max(len(self.names) - 1, 0))
        same = self.names[near] == wanted if len(self.names) else np.zeros(at.shape, bool)
        blank = np.array([not name for name in called]).reshape(at.shape)
        return np.where(same & ~blank, near, -1)

    def count(self, paths: Sequence[str]) -> None:
        """Note which names these files bear."""
        found = self.match(paths)
        at, times = np.unique(found[found >= 0], return_counts=True)
        self.files[at] = np.minimum(self.files[at] + times, 2)

    def absent(self) -> Numbers:
        """The first row of each name that no file bears, ascending."""
        return np.sort(self.first[self.files == 0])


def _joined(parts: list[Numbers]) -> Numbers:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _distinct(name: Numbers, said: Numbers, row: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Each name once, ascending, with its first row and the first that says otherwise (or -1)."""
    order = np.lexsort((row, said, name))
    name, said, row = name[order], said[order], row[order]
    fresh = np.ones(len(name), bool)
    fresh[1:] = (name[1:] != name[:-1]) | (said[1:] != said[:-1])
    name, row = name[fresh], row[fresh]
    order = np.lexsort((row, name))
    name, row = name[order], row[order]
    begins = np.flatnonzero(np.concatenate([[True], name[1:] != name[:-1]])[: len(name)])
    several = np.diff(begins, append=len(name)) > 1
    after = np.minimum(begins + 1, max(len(name) - 1, 0))
    other = np.where(several, row[after], -1) if len(name) else row
    return name[begins], row[begins], other


def _called(path: str, depths: Sequence[int]) -> Iterator[str | None]:
    """The names by which a manifest may call the file: its last parts, for each depth it has."""
    parts = path.replace("!/", "/").split("/")
    for depth in depths:
        yield "/".join(parts[-1 - depth :]) if depth < len(parts) else None


def calls(name: str, path: str) -> bool:
    """Whether a manifest's ``name`` means the file."""
    return f"/{path.replace('!/', '/')}".endswith(f"/{name}")


def _filled(template: str, batch: pa.RecordBatch) -> pa.Array:
    """The template with each row's cells; null where one is empty."""
    columns = {name: _texts(batch.column(name)) for name in columns_of(template)}
    if not columns:
        return pa.repeat(template, batch.num_rows)
    parts = list(string.Formatter().parse(template))
    if any(form or conversion for _, _, form, conversion in parts):
        cells = zip(*(c.to_pylist() for c in columns.values()), strict=True)
        rows = (dict(zip(columns, row, strict=True)) for row in cells)
        made = [template.format_map(r) if all(r.values()) else None for r in rows]
        return pa.array(made, pa.string())
    pieces: list[str | pa.Array] = []
    for literal, name, _, _ in parts:
        pieces.append(literal)
        if name is not None:
            cell = columns[name]
            pieces.append(pc.if_else(pc.equal(cell, ""), pa.scalar(None, pa.string()), cell))
    return pc.binary_join_element_wise(*pieces, "")


def columns_of(template: str) -> list[str]:
    """The columns that a template names; none where its braces do not fit."""
    try:
        return [name for _, name, *_ in string.Formatter().parse(template) if name is not None]
    except ValueError:
        return []


def _texts(column: pa.Array) -> pa.Array:
    """The cells as texts without outer blanks; empty for none."""
    if pa.types.is_string(column.type):
        return pc.fill_null(pc.utf8_trim_whitespace(column), "")
    if pa.types.is_floating(column.type):  # an identifier that a null made floating
        made = ["" if v is None or v != v else f"{v:.15g}" for v in column.to_pylist()]
    else:
        made = ["" if v is None else str(v).strip() for v in column.to_pylist()]
    return pa.array(made, pa.string())
