"""Files as sources see them: folders, single files and zip archives alike, cut into pieces.

A zip archive is read as a folder. A piece is a file, a member of an archive, or (for line-oriented
formats) a byte range of a large file: the kind of unit (see ``units``) that is handed to workers,
which open it themselves and fetch what they need. Bytes that are at hand are read alike.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from itertools import chain

from clinloom.errors import SourceError
from clinloom.files import archives
from clinloom.files.address import Address, address
from clinloom.files.registry import Entry
from clinloom.files.stores import store
from clinloom.files.unpacked import (
    BLOCK,
    GZIP,
    MOST,
    WHOLE,
    TooLarge,
    bounded,
    gunzipped,
    is_gzip,
    joined,
)

RANGE = 32 << 20  # bytes of a large line-oriented file that one worker reads at once
GAP = 256  # bytes between two members of an archive that are still fetched as one
BROKEN = ""  # the member of an archive whose directory cannot be read
LINE = 1 << 16  # bytes that are fetched at once in search of a line's end
PARQUET = b"PAR1\x15"  # how a Parquet file begins: its mark, then a header's first field


@dataclass(frozen=True)
class Piece:
    """A file, an archive's member, or the lines of a file that start in ``[start, stop)``.

    ``record`` says where a member lies in its archive (first byte, end, checksum), ``run`` which
    bytes around it a group fetches at once, ``stamp`` changes when the file is rewritten. A packed
    file may unpack to ``most`` bytes, of which ``whole`` may be held at once.
    """

    name: str
    path: str
    size: int
    member: str | None = None
    start: int | None = None
    stop: int | None = None
    stamp: str = field(default="", compare=False)
    record: Sequence[int] | None = field(default=None, compare=False)
    run: Sequence[int] | None = field(default=None, compare=False)
    whole: int = field(default=WHOLE, compare=False)
    most: int = field(default=MOST, compare=False)

    def read(self) -> bytes:
        """The bytes, unpacked where they are of gzip, cut at line ends where ranged.

        Raises TooLarge where a packed file is more than ``whole`` bytes.
        """
        if self.start is not None:
            return self._lines(self.start, self.stop or self.start)
        if self.member is None and not is_gzip(self.name, b""):
            data = _bytes(self.path)
            return joined(gunzipped([data]), self.whole) if is_gzip("", data) else data
        most = min(self.whole, self.most)
        if self.member is not None and self.size <= min(most, RANGE):
            data = self._member()
            if len(data) <= most and not is_gzip(self.name, data):
                return data
        return joined(self._unpacked(most), most)

    def blocks(self) -> Iterator[bytes]:
        """The whole file, or member, as it unpacks. Raises TooLarge past ``most`` bytes."""
        return self._unpacked(self.most)

    def _unpacked(self, most: int) -> Iterator[bytes]:
        if self.member is not None and self.size > most:
            raise TooLarge(f"it unpacks to more than {most} bytes")
        packed = self._packed()
        for first in packed:
            found: Iterator[bytes] = chain([first], packed)
            if is_gzip(self.name, first):
                found = bounded(gunzipped(found), most)
            yield from found

    def _packed(self) -> Iterator[bytes]:
        if self.member is None:
            yield from archives.fetched(self.path, 0, self.size)
        elif self.large:
            yield from archives.blocks(self.path, self.member, self.size, self.record)
        else:
            yield self._member()

    def _member(self) -> bytes:
        if self.member == BROKEN:  # it was tried, or is gone
            raise zipfile.BadZipFile
        found = (self.size, self.record, self.run, self.stamp)
        return archives.member(self.path, self.member or "", *found)

    @property
    def large(self) -> bool:
        """Whether it is more than one worker reads at once."""
        return self.size > RANGE

    @property
    def packed(self) -> bool:
        """Whether it is unpacked as it is read: a member of an archive, or of gzip."""
        named = self.member is not None or is_gzip(self.name, b"")
        return named or is_gzip("", self.begin(len(GZIP)))

    def begin(self, size: int) -> bytes:
        """The first bytes of a file as it lies there, and no others."""
        return _bytes(self.path, 0, size)

    def head(self) -> bytes:
        """The file's first line, without its line end."""
        if self.start is None:
            return self.read().split(b"\n", 1)[0].rstrip(b"\r")
        return _line(self.path, 0).rstrip(b"\r\n")

    def first_byte(self) -> int:
        """The offset in its file at which the piece's first line starts (see ``read``)."""
        if not self.start:
            return 0
        return self.start - 1 + len(_line(self.path, self.start - 1))

    def following(self, read: int, size: int) -> bytes:
        """At most ``size`` bytes after the lines of a range, which are ``read`` bytes long."""
        end = self.first_byte() + read
        return _bytes(self.path, end, end + size)

    def _lines(self, start: int, stop: int) -> bytes:
        # The line that was begun before belongs to the last piece; the byte before tells whether
        # there is one.
        if start and self.path.startswith("/"):  # here a second read is cheaper than a copy
            start = self.first_byte()
            data = _bytes(self.path, start, stop)
        else:
            data = _bytes(self.path, max(0, start - 1), stop)
            data = data[data.find(b"\n") + 1 or len(data) :] if start else data
        if not data:
            return b""
        return data if data.endswith(b"\n") else data + _line(self.path, stop)


@dataclass(frozen=True)
class Given:
    """The bytes of a file that are at hand already: of a request, or read by somebody else."""

    name: str
    data: bytes = field(repr=False)
    stamp: str = field(default="", compare=False)
    whole: int = field(default=WHOLE, compare=False)

    @property
    def size(self) -> int:
        """How many bytes were given."""
        return len(self.data)

    @property
    def start(self) -> None:
        """Given bytes are a whole file, no range of one."""
        return None

    def read(self) -> bytes:
        """The bytes, unpacked where they are of gzip: not more than ``whole``, else TooLarge."""
        if not is_gzip(self.name, self.data):
            return self.data
        return joined(gunzipped([self.data]), self.whole)

    def head(self) -> bytes:
        """The first line, without its line end."""
        return self.read().split(b"\n", 1)[0].rstrip(b"\r")

    def first_byte(self) -> int:
        """The offset of the first line."""
        return 0


FileUnit = Piece | Given  # what readers of files are handed


def _bytes(path: str, start: int | None = None, stop: int | None = None) -> bytes:
    at = address(path)
    return store(at).read(at, start, stop)


def _line(path: str, start: int) -> bytes:
    """From a byte to the end of its line, the line's end included."""
    parts: list[bytes] = []
    step = LINE
    while True:
        data = _bytes(path, start, start + step)
        end = data.find(b"\n") + 1
        parts.append(data[:end] if end else data)
        if end or len(data) < step:
            return b"".join(parts)
        start, step = start + step, 2 * step


def listing(path: str, *, include: str = "*", where: str = "") -> Iterator[Piece]:
    """Every file under ``path`` (a folder, a file or a zip archive) whose name fits ``include``.

    In the order of path components, a few at a time; hidden files are passed over. An archive in a
    folder that cannot be opened is a piece that cannot be read, whatever ``include`` says. Raises
    SourceError where nothing is there, nothing fits, or ``path`` is such an archive.
    """
    root = address(path)
    fits = re.compile(translate(include)).match
    found = there = False
    try:
        for entry in store(root).listed(root):
            there = True
            for piece in _members(entry, root):
                if piece.member == BROKEN or fits(piece.name.rsplit("/", 1)[-1]):
                    found = True
                    yield piece
        there = there or store(root).exists(root)
    except zipfile.BadZipFile:
        raise SourceError(
            f"the zip archive '{path}' cannot be opened",
            where=where or None,
            mend="fetch it again",
        ) from None
    except PermissionError as error:
        raise _forbidden(error.filename or path, where) from None
    if not there:
        raise SourceError(
            f"'{path}' does not exist",
            where=where or None,
            mend=f"the nearest folder that does is '{_nearby(root)}'; mend the path in the study"
            " or give it with --set",
        )
    if not found:
        raise SourceError(
            f"no file under '{path}' is named like '{include}'",
            where=where or None,
            mend="is it the right folder?",
        )


def _forbidden(path: str, where: str = "") -> SourceError:
    return SourceError(
        f"'{path}' may not be read",
        where=where or None,
        mend="does this user, or do the storage's credentials, have the right to?",
    )


def _nearby(root: Address) -> str:
    near = root.parent
    try:
        while near != near.parent and not store(near).exists(near):
            near = near.parent
    except OSError:  # the store shows no more than that
        pass
    return near


def _members(entry: Entry, root: Address) -> Iterator[Piece]:
    at, size, stamp = entry
    base = at.rsplit("/", 1)[-1]
    if base.startswith("."):
        return
    name = at[len(root) :].lstrip("/") or base
    if not base.lower().endswith(".zip"):
        yield Piece(name, at, size, stamp=stamp)
        return
    try:
        for member, length, record in archives.members(at):
            yield Piece(f"{name}!/{member}", at, length, member, stamp=stamp, record=record)
    except zipfile.BadZipFile:
        if at == root:
            raise
        yield Piece(name, at, size, BROKEN, stamp=stamp)


def cut(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Files of lines, a large one as ranges of its lines; what cannot be cut at its lines whole.

    A large file's first bytes tell which it is, whatever it is called.
    """
    for piece in pieces:
        if piece.member is not None or not piece.large or not _in_lines(piece):
            yield piece
            continue
        for start in range(0, piece.size, RANGE):
            stop = min(start + RANGE, piece.size)
            yield Piece(piece.name, piece.path, stop - start, None, start, stop, piece.stamp)


BOM = b"\xef\xbb\xbf"


def _in_lines(piece: Piece) -> bool:
    if is_gzip(piece.name, b""):
        return False
    try:
        return of_lines(piece.name, piece.begin(BLOCK))
    except PermissionError:
        raise _forbidden(piece.path) from None


def of_lines(name: str, begin: bytes) -> bool:
    """Whether a file that begins so may be cut at its lines: rows, or a JSON value a line."""
    if begin.startswith(PARQUET) or is_gzip("", begin):
        return False
    text = begin.removeprefix(BOM).lstrip()
    return not text.startswith((b"{", b"[")) or json_lines(name, begin)


def json_lines(name: str, begin: bytes) -> bool:
    """Whether a file that begins so holds a JSON value a line, by its name or its first line."""
    if name.lower().removesuffix(".gz").endswith((".ndjson", ".jsonl")):
        return True
    first, _, rest = begin.removeprefix(BOM).lstrip().partition(b"\n")
    if not rest or rest.isspace():
        return False
    try:
        json.loads(first.decode(errors="replace"))  # broken text in a line is that line's fault
    except (ValueError, RecursionError):
        return False
    return True


def adjoined(group: Sequence[FileUnit]) -> list[FileUnit]:
    """The units that one read is given, in their order, to be fetched by as few requests as may be.

    An archive's members that lie side by side are fetched by one.
    """
    out: list[FileUnit] = []
    first = 0
    for number in range(1, len(group) + 1):
        if number < len(group) and _follows(group[number - 1], group[number]):
            continue
        together = [unit for unit in group[first:number] if isinstance(unit, Piece)]
        begin, end = (together[n].record if together else None for n in (0, -1))
        if len(together) > 1 and begin is not None and end is not None:
            run = (begin[0], end[1])
            out += [replace(piece, run=run) for piece in together]
        else:
            out += group[first:number]
        first = number
    return out


def _follows(before: FileUnit, piece: FileUnit) -> bool:
    if isinstance(before, Given) or isinstance(piece, Given):
        return False
    if before.record is None or piece.record is None:
        return False
    gap = piece.record[0] - before.record[1]  # a folder's own record, or none
    return piece.path == before.path and 0 <= gap <= GAP
