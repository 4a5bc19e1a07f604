"""CSV files as rows of texts that know the byte at which they start.

Many small files are parsed as one. A row with the wrong number of fields, or text that is not in
the declared encoding, is refused with its place and fails nothing else (RFC 4180).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from clinloom.errors import SourceError, nearest
from clinloom.files import FileUnit
from clinloom.sources._parcel import WORD, Refusals, first_byte, whole
from clinloom.sources._rows.edges import trimmed

Needed = Callable[[Sequence[str]], Sequence[str]]
BATCH = 16 << 20  # bytes that are parsed at once


@dataclass(frozen=True)
class Rows:
    """Rows of files: columns, which file each row is of, and where it lies there.

    ``position``: the byte at which the row starts (CSV) or its number (Parquet); where a row has
    no place but a key, ``key`` is each row's, as text, null where none is known.
    """

    columns: dict[str, pa.Array]
    files: list[str]
    file: np.ndarray
    position: np.ndarray
    key: pa.Array | None = None

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.file)


@dataclass
class _Body:
    """A file's lines without its header, in UTF-8. ``base``: where they start in the file;
    ``starts``: where each line does, if the file is written otherwise.
    """

    name: str
    data: bytes
    base: int
    header: tuple[str, ...]
    delimiter: str
    starts: np.ndarray | None = None

    @property
    def kind(self) -> tuple[tuple[str, ...], str]:
        return self.header, self.delimiter


def rows(
    pieces: Sequence[FileUnit],
    *,
    named: Sequence[str],
    needed: Needed,
    delimiter: str,
    encoding: str,
    refused: Refusals,
) -> Iterator[Rows]:
    """The rows of CSV files, about 16 MB at a time; each named column is a dictionary of texts.

    ``needed``: of a header, the columns that are read. Raises SourceError where a file lacks one of
    ``named``.
    """
    held: list[_Body] = []
    size = 0
    for piece in pieces:
        for body in _bodies(piece, delimiter, encoding, refused):
            if not held or body.kind != held[0].kind:
                check(body.header, named, piece.name)
            if held and (body.kind != held[0].kind or size + len(body.data) > BATCH):
                yield from _parsed(held, needed(held[0].header), refused)
                held, size = [], 0
            held.append(body)
            size += len(body.data)
    if held:
        yield from _parsed(held, needed(held[0].header), refused)


def check(
    header: Sequence[str], columns: Sequence[str], file: str, *, lack: str = "there is"
) -> None:
    """Raise SourceError for the first of ``columns`` that ``header`` lacks.

    ``lack``: how the message begins, before "no column". Names are shown only where the study has
    them too, or nearly: of a file without a header, the first line is a patient's.
    """
    for name in columns:
        if name not in header:
            near = nearest(name, [h for h in header if re.match(r"[^\W\d]", h)])
            there = [column for column in columns if column in header]
            found = f"it has {', '.join(there)}" if there else "it has none of the others either"
            raise SourceError(
                f"{lack} no column '{name}'",
                where=file,
                mend=f"did you mean '{near}'?"
                if near
                else f"{found}; does its first line hold the names of its {len(header)} columns?",
            )


def _bodies(piece: FileUnit, delimiter: str, encoding: str, refused: Refusals) -> Iterator[_Body]:
    data = whole(piece, refused)
    if data is None:
        return
    head, begin = piece.head() if piece.start else b"", first_byte(piece)
    skip = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    if not piece.start:
        end = data.find(b"\n") + 1 or len(data)
        head, skip = data[skip:end], end
    if len(data) == skip or not data[skip:].strip():
        if piece.start is None:
            refused.add("empty_file", file=piece.name)
        return
    header, used = _header(head, delimiter, encoding)
    data, carried = trimmed(piece, data, len(header), used)
    begin += carried
    while skip < len(data):
        end = len(data)
        if end - skip > 2 * BATCH and b'"' not in data:
            end = data.find(b"\n", skip + BATCH) + 1 or end
        part = data[skip:end]
        body = part if part.endswith(b"\n") else part + b"\n"
        base, starts = begin + skip, None
        if not body.isascii():
            starts = _line_starts(body) + base
            body = _encoded(body, encoding, piece.name, starts, refused)
        yield _Body(piece.name, body, base, header, used, starts)
        skip = end


@lru_cache(maxsize=64)
def _header(head: bytes, delimiter: str, encoding: str) -> tuple[tuple[str, ...], str]:
    """The names in a file's first line, and the delimiter between them."""
    line = head.removeprefix(b"\xef\xbb\xbf").decode(encoding, "replace").strip("\r\n")
    used = delimiter if delimiter != "auto" else max(",\t;|", key=line.count)
    return tuple(name.strip() for name in next(csv.reader([line], delimiter=used))), used


def _line_starts(data: bytes) -> np.ndarray:
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10)
    return np.concatenate([[0], ends[:-1] + 1])


def _encoded(data: bytes, encoding: str, file: str, starts: np.ndarray, refused: Refusals) -> bytes:
    """The lines in UTF-8; those that are not in ``encoding`` are refused and left empty."""
    try:
        text = data.decode(encoding)
        return data if encoding == "utf-8" else text.encode()
    except UnicodeDecodeError:
        lines = data.split(b"\n")[:-1]
    for number, line in enumerate(lines):
        try:
            lines[number] = line.decode(encoding).encode()
        except UnicodeDecodeError:
            refused.add("malformed_encoding", file=file, position=int(starts[number]))
            lines[number] = b""
    return b"\n".join([*lines, b""])


def _parsed(bodies: list[_Body], columns: Sequence[str], refused: Refusals) -> Iterator[Rows]:
    """Parse the bodies as one; where their rows cannot be told apart so, one by one."""
    if len(bodies) > 1 and any(body.data.count(b'"') % 2 for body in bodies):
        for body in bodies:
            yield from _parsed([body], columns, refused)
        return
    data = b"".join(body.data for body in bodies) if len(bodies) > 1 else bodies[0].data
    begins = _line_starts(data)
    wrong: list[int] = []
    quoted = b'"' in data
    table = _table(data, bodies[0], columns, wrong, quoted=quoted)
    counted = -1 if table is None else table.num_rows + len(wrong)
    first = _row_starts(data, begins) if quoted else np.ones(len(begins), bool)
    if first.sum() != counted:  # a stray mark within a cell quotes nothing
        first = np.ones(len(begins), bool)
    if table is not None and first.sum() == counted:
        file, starts = (part[first] for part in _places(bodies, begins))
        lengths = np.diff(begins[first], append=len(data))
        returns = np.frombuffer(data, np.uint8)[begins[first]] == 13
        blank = (lengths == 1) | ((lengths == 2) & returns)
        kept = np.ones(counted, bool)
        for number in wrong:
            kept[number - 1] = False
            name = bodies[file[number - 1]].name
            refused.add("malformed_row", file=name, position=int(starts[number - 1]))
        yield _rows(table, [b.name for b in bodies], file[kept], starts[kept], blank[kept])
    elif len(bodies) > 1:
        for body in bodies:
            yield from _parsed([body], columns, refused)
    else:
        yield from _without_stray_quotes(bodies[0], columns, refused)


def _places(bodies: Sequence[_Body], begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each line of the joined bodies: which body it is of, and where it starts in its file."""
    ends = np.cumsum([len(body.data) for body in bodies])
    begun = np.searchsorted(begins, np.concatenate([[0], ends]))
    lines = np.diff(begun)
    moved = [body.base - (end - len(body.data)) for body, end in zip(bodies, ends, strict=True)]
    starts = begins + np.repeat(moved, lines)
    for body, first, last in zip(bodies, begun[:-1], begun[1:], strict=True):
        if body.starts is not None:
            starts[first:last] = body.starts
    return np.repeat(np.arange(len(bodies), dtype=np.int32), lines), starts


def _row_starts(data: bytes, begins: np.ndarray) -> np.ndarray:
    """Which lines start a row: one that starts within quotes goes on with the row before."""
    marks = np.cumsum(np.frombuffer(data, np.uint8) == 34, dtype=np.int32)
    inside = marks[begins[1:] - 1] % 2 == 1
    if marks[-1] % 2:  # a mark that nothing closes says nothing about the lines after it
        inside[:] = False
    return np.concatenate([[True], ~inside])


def _without_stray_quotes(body: _Body, columns: Sequence[str], refused: Refusals) -> Iterator[Rows]:
    """Refuse each line with an odd number of quotation marks and parse the others."""
    lines = body.data.split(b"\n")[:-1]
    odd = [n for n, line in enumerate(lines) if line.count(b'"') % 2]
    _, starts = _places([body], _line_starts(body.data))
    if not odd:
        refused.add("malformed_file", file=body.name)
        return
    for number in odd:
        refused.add("malformed_row", file=body.name, position=int(starts[number]))
        lines[number] = b""
    data = b"\n".join([*lines, b""])
    yield from _parsed(
        [_Body(body.name, data, body.base, body.header, body.delimiter, starts)], columns, refused
    )


def _table(
    data: bytes, body: _Body, columns: Sequence[str], wrong: list[int], *, quoted: bool
) -> pa.Table | None:
    """The wanted columns, one row a line, blank lines too. ``wrong`` gets numbers, from 1."""

    def refuse(row: pa_csv.InvalidRow) -> str:
        wrong.append(row.number)
        return "skip"

    try:
        return pa_csv.read_csv(
            io.BytesIO(data),
            read_options=pa_csv.ReadOptions(
                column_names=list(body.header), use_threads=False, block_size=len(data) + 1
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=body.delimiter,
                newlines_in_values=quoted,
                ignore_empty_lines=False,
                invalid_row_handler=refuse,
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(columns),
                column_types=dict.fromkeys(columns, WORD),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None


def _rows(
    table: pa.Table, files: list[str], file: np.ndarray, starts: np.ndarray, blank: np.ndarray
) -> Rows:
    if blank.any():
        table = table.filter(pa.array(~blank))
        file, starts = file[~blank], starts[~blank]
    table = table.unify_dictionaries().combine_chunks()
    columns = {
        name: column.chunk(0) if column.num_chunks else pa.array([], WORD)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return Rows(columns, files, file, starts)
