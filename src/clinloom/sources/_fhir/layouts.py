"""Lines of JSON that differ in nothing but their texts and numbers, read many at a time.

An exporter writes its resources in a handful of layouts: the same keys in the same order, with the
same signs between them. A layout is learned from a line that was decoded. Another line that has its
quotes where the layout wants them, and the layout's bytes between, is the same JSON with other
texts and numbers: so these can be cut out of all such lines at once, with no object made of a line.

Whatever is not surely so is not of the layout: lines with a backslash or a control character, and
numbers that are long or written with an exponent. (RFC 8259)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

QUOTE, END, BACKSLASH, BLANK = b'"'[0], b"\n"[0], b"\\"[0], b" "[0]
TOKEN = re.compile(
    rb'(?P<key>"[^"]*")\s*:|(?P<text>"[^"]*")|(?P<open>[\[{])|(?P<close>[\]}])|(?P<comma>,)'
    rb'|(?P<bare>[^\s"\[\]{},:]+)'
)
# What all readers of numbers take for the same: no minus before a bare 0, few digits, no exponent.
NUMBER = r"^(?:(?:-?[1-9][0-9]{0,14}|0)(?:\.[0-9]{1,15})?|-0\.[0-9]{1,15})$"
NUMERIC = re.compile(NUMBER.encode())
Path = tuple[str | int, ...]  # the keys and places that lead to a value
Numbers = npt.NDArray[np.intp]
LEAST = 64  # lines of a layout in a block, for which a few dozen steps over arrays pay


class Written(NamedTuple):
    """Where a value of a line stands, and what it is: a ``text``, a ``number``, a ``word`` (true,
    false, null and numbers of odd forms), or an object or array (``close``)."""

    begin: int
    end: int
    kind: str


class Part(NamedTuple):
    """A part of a line that may be another in the next; its name is empty where it is not read."""

    begin: int
    end: int
    name: str
    number: bool = False


class Lines:
    """A block of lines. ``left``: the numbers of those that no layout has read, ascending."""

    def __init__(self, data: bytes):
        self.data = data
        self._letters = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(self._letters == END)
        self.begins, self.ends = np.append(0, ends + 1), np.append(ends, len(data))
        self.left: Numbers = np.arange(len(self.begins))

    def __getitem__(self, number: int) -> bytes:
        return self.data[self.begins[number] : self.ends[number]]

    @cached_property
    def is_text(self) -> bool:
        """Whether all of it is UTF-8, and its places are numbers of 32 bits."""
        if len(self.data) > np.iinfo(np.int32).max:
            return False
        try:
            return self.data.isascii() or bool(self.data.decode())
        except UnicodeDecodeError:
            return False

    @cached_property
    def marks(self) -> npt.NDArray[np.int32]:
        """The places of all quotes and line ends, one before the first line and one after."""
        found = np.flatnonzero((self._letters == QUOTE) | (self._letters == END))
        marks = np.empty(len(found) + 2, np.int32)
        marks[0], marks[1:-1], marks[-1] = -1, found, len(self.data)
        return marks

    @cached_property
    def first(self) -> Numbers:
        """For each line, the number of the mark before it; then that of the last mark."""
        return np.append(0, np.searchsorted(self.marks, self.ends.astype(np.int32)))

    @cached_property
    def quotes(self) -> npt.NDArray[np.intp]:
        """How many quotes each line has."""
        return np.diff(self.first) - 1

    @cached_property
    def odd(self) -> npt.NDArray[np.intp]:
        """How many backslashes and control characters each line has."""
        control = self._letters < BLANK
        if b"\\" not in self.data and np.count_nonzero(control) < len(self.ends):
            return np.zeros(len(self.begins), np.intp)  # nothing but the line ends
        control &= self._letters != END
        places = np.flatnonzero(control | (self._letters == BACKSLASH))
        return np.searchsorted(places, self.ends) - np.searchsorted(places, self.begins)

    def alike(self, *, besides: Collection[int]) -> Numbers:
        """The lines left that have the commonest number of quotes, these numbers left out, and of
        odd signs."""
        rows = self.left[~np.isin(self.quotes[self.left], list(besides))]
        for counts in (self.quotes, self.odd):
            if len(rows):
                rows = rows[counts[rows] == np.bincount(counts[rows]).argmax()]
        return rows

    def take(self, rows: Numbers) -> None:
        """These lines are read."""
        self.left = np.setdiff1d(self.left, rows, assume_unique=True)


class Layout:
    """The constant bytes of a line, and where between its quotes its other parts stand.

    ``line``: without backslashes; ``parts``: in order. Raises ValueError where two numbers stand
    between the same quotes, so that these do not tell where each begins.
    """

    def __init__(self, line: bytes, parts: Sequence[Part]):
        letters = np.frombuffer(line, np.uint8)
        marks = np.concatenate(([-1], np.flatnonzero(letters == QUOTE), [len(line)]))
        bounds = np.array([0, *(bound for part in parts for bound in part[:2]), len(line)])
        # A part's begin is told by the mark before it, its end by the mark that follows it.
        near = np.searchsorted(marks, bounds)
        near[1:-1:2] -= 1
        near[0] = 0
        if (marks[near[3:-1:2]] < bounds[2:-2:2]).any():
            raise ValueError("two numbers stand between the same quotes")
        spans = bounds.reshape(-1, 2)
        self._constant = np.concatenate([letters[begin:end] for begin, end in spans])
        self._least = np.diff(bounds).astype(np.int32)  # of the parts and the bytes between
        self._most = self._least.copy()
        self._least[1::2] = [bool(part.name) or part.number for part in parts]
        self._most[1::2] = np.iinfo(np.int32).max
        self._near, self._shift = near, (bounds - marks[near]).astype(np.int32)
        self._quotes, self._odd = len(marks) - 2, int((self._constant < BLANK).sum())
        self._parts = parts

    def read(self, lines: Lines) -> tuple[Numbers, dict[str, pa.Array]]:
        """The lines left that are of this layout, and their parts that have names: no empty ones.

        None where there are so few that it would not pay.
        """
        rows = lines.left
        rows = rows[(lines.quotes[rows] == self._quotes) & (lines.odd[rows] == self._odd)]
        if len(rows) < LEAST:
            return rows[:0], {}
        bounds = lines.marks[lines.first[rows][:, None] + self._near] + self._shift
        lengths = np.diff(bounds, axis=1)
        fits = (lengths >= self._least) & (lengths <= self._most)
        if not fits.all():
            kept = fits.all(axis=1)
            rows, bounds = rows[kept], bounds[kept]
        if len(rows) < LEAST:
            return rows[:0], {}
        # All pieces of these lines, one after the other, and what stands between the lines.
        places = np.append(bounds, np.int32(len(lines.data)))
        pieces = pa.StringArray.from_buffers(
            bounds.size, pa.py_buffer(places), pa.py_buffer(lines.data)
        )
        at = np.arange(0, bounds.size, bounds.shape[1])
        constant = pieces.take(pa.array((at[:, None] + np.arange(0, bounds.shape[1], 2)).ravel()))
        letters = np.frombuffer(constant.buffers()[2], np.uint8, len(rows) * len(self._constant))
        equal = letters.reshape(len(rows), -1) == self._constant
        same = np.ones(len(rows), bool) if equal.all() else equal.all(axis=1)
        read = {}
        for place, part in enumerate(self._parts):
            if part.name or part.number:
                found = pieces.take(pa.array(at + 2 * place + 1))
                if part.number:
                    good = pc.match_substring_regex(found, NUMBER)
                    same &= good.to_numpy(zero_copy_only=False)
                if part.name:
                    read[part.name] = found
        if not same.all():
            read = {name: found.filter(pa.array(same)) for name, found in read.items()}
        return rows[same], read


def values(line: bytes) -> dict[Path, Written]:
    """Where each value of a line stands that is an object; none where this has a backslash, or a
    key twice in the same object."""
    found: dict[Path, Written] = {}
    path: list[str | int] = []
    begins: list[int] = []
    for token in TOKEN.finditer(line) if b"\\" not in line else ():
        kind, (begin, end) = str(token.lastgroup), token.span()
        if kind == "open":
            begins.append(begin)
            path.append(0 if token[0] == b"[" else "")
        elif kind == "key":
            path[-1] = token["key"][1:-1].decode()
        elif kind == "comma":
            if isinstance(place := path[-1], int):
                path[-1] = place + 1
        else:
            if kind == "close":
                path.pop()
                begin = begins.pop()
            elif kind == "bare":
                kind = "number" if NUMERIC.match(token[0]) else "word"
            if tuple(path) in found:
                return {}
            found[tuple(path)] = Written(begin, end, kind)
    return found
