"""Where a range of a CSV file begins, if a quoted cell may hold line breaks.

A range is cut at line ends, and a line may lie within a quoted cell of a row that was begun before.
Nobody counts quotation marks from the file's begin for that: the lines after the edge tell, by how
many of their rows have as many cells as the header. Both ranges that meet at an edge look at the
same bytes, so that a row belongs to one of them, whatever they find. (RFC 4180)
"""

from __future__ import annotations

import re
from functools import lru_cache

from clinloom.files import FileUnit, Piece

WINDOW = 1 << 16  # bytes after an edge that are looked at
SIZES = [WINDOW << n for n in range(0, 10, 2)]  # of a row that crosses an edge, 16 MB at most


def trimmed(piece: FileUnit, data: bytes, cells: int, delimiter: str) -> tuple[bytes, int]:
    """The rows that begin in a range, and how many bytes of ``data`` belong to a row before.

    ``data``: the lines that start in the range; ``cells``: how many a row has.
    """
    if not isinstance(piece, Piece) or piece.start is None:  # all lines are here
        return data, 0
    before = 0
    if piece.start:
        begin = data if len(data) >= WINDOW else piece.following(0, WINDOW)
        before = carried(begin, cells, delimiter)
        if before >= len(data):  # no row begins here
            return b"", 0
    for size in SIZES:
        following = piece.following(len(data), size)
        more = carried(following, cells, delimiter)
        if more < size:  # else the row goes on
            break
    return data[before:] + following[:more], before


def carried(data: bytes, cells: int, delimiter: str) -> int:
    """How many bytes at the begin of ``data`` belong to a row that was begun before."""
    window, ended = data[:WINDOW], len(data) < WINDOW
    if b'"' not in window:
        return 0
    if ended and not window.endswith(b"\n"):  # the file's last row counts as any other
        window += b"\n"
    token = _token(delimiter)
    outside, _ = _fitting(token, window, 0, cells)
    closed = _closed(delimiter).match(window)
    if closed is None:  # within one cell, or a mark that quotes nothing
        return 0
    end = _row_end(token, window, closed.end())
    inside, rows = _fitting(token, window, end, cells)
    if not rows and ended:  # that row is the file's last: nothing else speaks for it
        inside = 0.5
    return _row_end(token, data, closed.end()) if inside > outside else 0


@lru_cache(maxsize=8)
def _token(delimiter: str) -> re.Pattern[bytes]:
    """A cell and what ends it: a delimiter, a line end, or the end of the bytes."""
    sign = re.escape(delimiter.encode())
    quoted = rb'"[^"]*(?:""[^"]*)*"(?=' + sign + rb"|\r?\n|\Z)"
    return re.compile(rb"(?:" + quoted + rb"|[^\n" + sign + rb"]*)\r?(" + sign + rb"|\n|\Z)")


@lru_cache(maxsize=8)
def _closed(delimiter: str) -> re.Pattern[bytes]:
    """To the end of a quoted cell that was begun before."""
    sign = re.escape(delimiter.encode())
    return re.compile(rb'[^"]*(?:""[^"]*)*"(?=' + sign + rb"|\r?\n|\Z)")


def _row_end(token: re.Pattern[bytes], data: bytes, at: int) -> int:
    """Where the row ends that has a cell's end ``at``."""
    while at < len(data):
        if data[at : at + 2] == b"\r\n":
            return at + 2
        sign, at = data[at : at + 1], at + 1
        if sign == b"\n":
            break
        found = token.match(data, at)
        at = found.start(1) if found else len(data)
    return at


def _fitting(token: re.Pattern[bytes], window: bytes, at: int, cells: int) -> tuple[float, int]:
    """The share of whole rows from ``at`` on that have so many cells, and how many rows there are.

    Blank lines are no rows.
    """
    fit = rows = count = 0
    begun = at
    while at < len(window):
        found = token.match(window, at)
        if found is None:
            break
        at, count = found.end(), count + 1
        if found[1] == b"\n":
            if window[begun:at].strip():
                rows += 1
                fit += count == cells
            count, begun = 0, at
        elif not found[1]:  # the bytes end within a row
            break
    return (fit / rows if rows else 0.0), rows
