"""Large files of lines that no range can enter, read in turn: parts, each of whole lines.

A packed file's check sum is known at its end, and rows that were handed on cannot be taken back: so
a file of more than one part is unpacked twice, first to be checked. Either all of it is read, or
none.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from clinloom.files.pieces import BROKEN, FileUnit, Piece, of_lines
from clinloom.files.unpacked import BLOCK, TooLarge, is_gzip

PART = 16 << 20  # bytes of lines that are handed on at once
FAULTS = (EOFError, zlib.error, zipfile.BadZipFile, TooLarge)  # of a file that cannot be unpacked


class _Lines:
    """The content of a file, of which some is held: what is handed on, and what is looked at."""

    def __init__(self, blocks: Iterator[bytes]):
        self._blocks, self._held = blocks, bytearray()
        self.ended = False  # whether all that there is is held

    def ahead(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end; they stay."""
        self._fill(size)
        return bytes(self._held[:size])

    def take(self) -> bytes:
        """The next lines, about PART bytes; nothing at the end."""
        self._fill(PART)
        end = self._held.rfind(b"\n", 0, PART) + 1
        looked = PART
        while not end and not self.ended:  # a line that is longer than that
            self._fill(max(looked, len(self._held)) + BLOCK)
            end, looked = self._held.find(b"\n", looked) + 1, len(self._held)
        end = end or len(self._held)
        data = bytes(self._held[:end])
        del self._held[:end]
        return data

    def _fill(self, size: int) -> None:
        while len(self._held) < size and not self.ended:
            block = next(self._blocks, None)
            if block is None:
                self.ended = True
            else:
                self._held += block


@dataclass(frozen=True)
class Part(Piece):
    """Some lines of a file, read already: as a range of them, it knows what follows.

    ``of``: the file; ``start``: None where these are all its bytes; ``fault``: why it cannot be
    read.
    """

    of: Piece | None = None
    data: bytes = field(default=b"", repr=False, compare=False)
    lead: bytes = field(default=b"", repr=False, compare=False)
    lines: _Lines | None = field(default=None, repr=False, compare=False)
    fault: Exception | None = None

    def read(self) -> bytes:
        """The lines. Raises the fault of a file that cannot be unpacked."""
        if self.fault is not None:
            raise self.fault
        return self.data

    def head(self) -> bytes:
        """The file's first line, without its line end."""
        return self.lead

    def first_byte(self) -> int:
        """The offset of the first line in the unpacked file."""
        return self.start or 0

    def following(self, read: int, size: int) -> bytes:
        """At most ``size`` bytes from the ``read``th on, as long as no later part was asked for."""
        rest = self.data[read : read + size]
        more = self.lines.ahead(size - len(rest)) if self.lines and len(rest) < size else b""
        return rest + more


def parted(piece: FileUnit) -> Iterator[FileUnit]:
    """A large file that is in no range as parts of its lines; any other file as it is."""
    if not isinstance(piece, Piece) or isinstance(piece, Part) or piece.member == BROKEN:
        yield piece
    elif piece.start is not None or not _in_turn(piece):
        yield piece
    else:
        try:
            found = _begun(piece)
        except FAULTS as fault:
            found = _part(piece, fault=fault)
        if found is not None:
            yield found
        else:
            yield from _parts(piece)


def _in_turn(piece: Piece) -> bool:
    held = piece.member is not None and piece.size > piece.whole
    return held or piece.large or is_gzip(piece.name, b"")


def _begun(piece: Piece) -> FileUnit | None:
    """The file where it is small, or is no lines; None where it is to be read in parts.

    Raises what tells that it cannot be.
    """
    lines = _Lines(piece.blocks())
    lined = of_lines(piece.name, lines.ahead(BLOCK))
    packed = piece.packed
    if not lined and not packed:
        return piece
    held = lines.ahead(PART)
    if lines.ended and (lined or len(held) <= piece.whole):
        return _part(piece, data=held)
    if not lined:
        return piece
    if packed:
        _checked(piece)
    return None


def _checked(piece: Piece) -> None:
    """Unpack all of it. Raises what tells that it cannot be read, TooLarge for a line too."""
    line = 0
    for block in piece.blocks():
        last = block.rfind(b"\n")
        line = line + len(block) if last < 0 else len(block) - last - 1
        if line > piece.whole:
            raise TooLarge(f"a line is more than {piece.whole} bytes")


def _parts(piece: Piece) -> Iterator[Part]:
    lines = _Lines(piece.blocks())
    start, lead = 0, b""
    while data := lines.take():
        lead = lead if start else data[: data.find(b"\n")].rstrip(b"\r")
        yield _part(piece, start=start, data=data, lead=lead, lines=lines)
        start += len(data)


def _part(piece: Piece, *, start: int | None = None, **held: Any) -> Part:
    told = {f.name: getattr(piece, f.name) for f in fields(Piece)}
    return Part(**{**told, **held, "start": start, "of": piece})
