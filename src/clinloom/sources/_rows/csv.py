"""CSV files as rows of texts that know the byte at which they start.

Many small files are parsed as one. A row with the wrong number of fields, or text that is not in
the declared encoding, is refused with its place and fails nothing else (RFC 4180).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from clinloom.errors import SourceError, nearest
from clinloom.files import PARQUET, FileUnit
from clinloom.sources._parcel import Refusals, first_byte, whole
from clinloom.sources._rows.edges import carried, trimmed
from clinloom.tables import WORD

Needed = Callable[[Sequence[str]], Sequence[str]]
BATCH = 16 << 20  # bytes that are parsed at once
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Rows:
    """Rows of files: columns, which file each row is of, and where it lies there.

    ``position``: the byte at which the row starts (CSV) or its number (Parquet); where a row has
    no place but a key, ``key`` is each row's, as text, null where none is known. ``part``: they
    are not all rows of their one file, whose patient is ``owner`` where a row tells it.
    """

    columns: dict[str, pa.Array]
    files: list[str]
    file: np.ndarray
    position: np.ndarray
    key: pa.Array | None = None
    part: bool = False
    owner: str | None = None

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.file)


@dataclass
class _Body:
    """A file's lines without its header, in UTF-8. ``base``: where they start in the file;
    ``starts``: where each line does, if the file is written otherwise; ``part``: whether they are
    not all of them.
    """

    name: str
    data: bytes
    base: int
    header: tuple[str, ...]
    delimiter: str
    starts: np.ndarray | None = None
    part: bool = False

    @property
    def kind(self) -> tuple[tuple[str, ...], str]:
        return self.header, self.delimiter


def rows(
    pieces: Iterable[FileUnit],
    *,
    named: Sequence[str],
    needed: Needed,
    delimiter: str,
    encoding: str,
    refused: Refusals,
    parquet: list[FileUnit] | None = None,
) -> Iterator[Rows]:
    """The rows of CSV files, about 16 MB at a time; each named column is a dictionary of texts.

    ``needed``: of a header, the columns that are read; ``parquet`` gets the files whose content is
    Parquet. Raises SourceError where a file lacks one of ``named``.
    """
    held: list[_Body] = []
    size = 0
    for piece in pieces:
        for body in _bodies(piece, delimiter, encoding, refused, parquet):
            fresh = not held or body.kind != held[0].kind
            if fresh:
                check(body.header, named, piece.name)
                once(body.header, needed(body.header), piece.name)
            apart = fresh or body.part or held[0].part or size + len(body.data) > BATCH
            if held and apart:
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
    them too, or nearly, beside one that it has: of a file without a header, the first line is a
    patient's.
    """
    for name in columns:
        if name not in header:
            there = [column for column in columns if column in header]
            near = nearest(name, [h for h in header if re.match(r"[^\W\d]", h)]) if there else None
            found = f"it has {', '.join(there)}" if there else "it has none of the others either"
            raise SourceError(
                f"{lack} no column '{name}'",
                where=file,
                mend=f"did you mean '{near}'?"
                if near
                else f"{found}; does its first line hold the names of its {len(header)} columns?",
            )


def once(header: Sequence[str], columns: Sequence[str], file: str) -> None:
    """Raise SourceError where two columns have the name of one that is read."""
    several = [n for n, name in enumerate(header, 1) if name in columns and header.count(name) > 1]
    if several:
        listed = ", ".join(map(str, several[:4]))
        raise SourceError(
            f"several columns have one name: columns {listed}{' …' if several[4:] else ''}",
            where=file,
            mend="give each column a name of its own; does the first line hold names at all?",
        )


def _bodies(
    piece: FileUnit,
    delimiter: str,
    encoding: str,
    refused: Refusals,
    parquet: list[FileUnit] | None = None,
) -> Iterator[_Body]:
    data = whole(piece, refused)
    if data is None:
        return
    if parquet is not None and piece.start is None and data.startswith(PARQUET):
        parquet.append(piece)
        return
    if data.startswith(UTF_16) and not piece.start:
        raise SourceError(
            "the file is written in UTF-16",
            where=piece.name,
            mend="write it anew in UTF-8: `iconv -f UTF-16 -t UTF-8`, or 'CSV UTF-8' in Excel",
        )
    head, begin = piece.head() if piece.start else b"", first_byte(piece)
    skip = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    if not piece.start:
        end = data.find(b"\n") + 1 or len(data)
        head, skip = data[skip:end], end
    if len(data) == skip or not data[skip:].strip():
        if piece.start is None:
            refused.add("empty_file", file=piece.name)
        return
    try:
        header, used = _header(head, delimiter, encoding)
    except csv.Error:
        raise SourceError(
            "the first line does not hold the names of columns",
            where=piece.name,
            mend="is it a CSV file, whose lines end with a line feed?",
        ) from None
    data, carried = trimmed(piece, data, len(header), used)
    begin += carried
    part = piece.start is not None
    while skip < len(data):
        end = len(data)
        if end - skip > 2 * BATCH and b'"' not in data:
            end = data.find(b"\n", skip + BATCH) + 1 or end
        part = part or end < len(data)
        body = data[skip:end]
        body = body if body.endswith(b"\n") else body + b"\n"
        base, starts = begin + skip, None
        if not body.isascii():
            starts = _line_starts(body) + base
            body = _encoded(body, encoding, piece.name, starts, refused)
        yield _Body(piece.name, body, base, header, used, starts, part)
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
    if first.sum() != counted and data.count(b"\r") == data.count(b"\r\n"):
        first = np.ones(len(begins), bool)  # a stray mark within a cell quotes nothing
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
        names, part = [body.name for body in bodies], bodies[0].part
        yield _rows(table, names, file[kept], starts[kept], blank[kept], part=part)
    elif len(bodies) > 1:
        for body in bodies:
            yield from _parsed([body], columns, refused)
    else:
        yield from _broken(bodies[0], columns, refused)


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


def _broken(body: _Body, columns: Sequence[str], refused: Refusals) -> Iterator[Rows]:
    """Parse the rows around one that cannot be told from others, and refuse that one's lines."""
    lines = body.data.split(b"\n")[:-1]
    cut = _middle(body)
    if cut:
        above = body.data.count(b"\n", 0, cut)
        _, starts = _places([body], _line_starts(body.data))
        for data, at in ((body.data[:cut], starts[:above]), (body.data[cut:], starts[above:])):
            yield from _parsed([replace(body, data=data, starts=at, part=True)], columns, refused)
        return
    bad = [n for n, line in enumerate(lines) if line.find(b"\r", 0, -1) >= 0]
    bad = bad or [n for n, line in enumerate(lines) if line.count(b'"') % 2]
    bad = bad or [n for n, line in enumerate(lines) if line.strip()]
    _, starts = _places([body], _line_starts(body.data))
    for number in bad:
        refused.add("malformed_row", file=body.name, position=int(starts[number]))
        lines[number] = b""
    data = b"\n".join([*lines, b""])
    yield from _parsed([replace(body, data=data, starts=starts)], columns, refused)


def _middle(body: _Body) -> int:
    """Where a row begins, as near to the middle of the lines as there is one; 0: nowhere."""
    size, cells = len(body.data), len(body.header)
    for begin in (size // 2, size // 4, size // 8, size // 16, 0):
        line = body.data.find(b"\n", begin) + 1
        cut = line + carried(body.data[line:], cells, body.delimiter)
        if 0 < line and cut < size:
            return cut
    return 0


def _table(
    data: bytes, body: _Body, columns: Sequence[str], wrong: list[int], *, quoted: bool
) -> pa.Table | None:
    """The wanted columns, one row a line, blank lines too. ``wrong`` gets numbers, from 1."""

    def refuse(row: pa_csv.InvalidRow) -> str:
        wrong.append(row.number)
        return "skip"

    try:
        return pa_csv.read_csv(
            pa.BufferReader(data),
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
    table: pa.Table,
    files: list[str],
    file: np.ndarray,
    starts: np.ndarray,
    blank: np.ndarray,
    *,
    part: bool,
) -> Rows:
    if blank.any():
        table = table.filter(pa.array(~blank))
        file, starts = file[~blank], starts[~blank]
    table = table.unify_dictionaries().combine_chunks()
    columns = {
        name: column.chunk(0) if column.num_chunks else pa.array([], WORD)
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return Rows(columns, files, file, starts, part=part)
