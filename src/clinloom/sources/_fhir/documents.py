"""The documents of a source: lines of resources, an array of them, or a single one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from clinloom.files import FileUnit, json_lines
from clinloom.sources._fhir import resources as r4
from clinloom.sources._parcel import Refusals, first_byte, whole

SAID = re.compile(rb"[^\xef\xbb\xbf \t\r\n]")  # what is no blank


def found(piece: FileUnit, refused: Refusals) -> Iterator[r4.Found]:
    """The resources of a file."""
    data = whole(piece, refused)
    for part, position, lines in parts(piece, data, refused) if data is not None else ():
        yield from r4.lines(part, position) if lines else ((part, position),)


def parts(piece: FileUnit, data: bytes, refused: Refusals) -> Iterator[tuple[bytes, int, bool]]:
    """A file's resources one by one, or its lines (True) many at a time; and where each starts."""
    if piece.start is None and not SAID.search(data):
        refused.add("empty_file", file=piece.name)
        return
    skip = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    data = data[skip:] if skip else data
    if piece.start is not None or json_lines(piece.name, data):
        for lines, start in r4.blocks(data, first_byte(piece) + skip):
            yield lines, start, True
    elif data.lstrip().startswith(b"["):
        try:
            for element, start in r4.elements(data):
                yield element, start, False
        except (msgspec.DecodeError, RecursionError):
            refused.add("malformed_json", file=piece.name, position=0)
    else:
        yield data, skip, False
