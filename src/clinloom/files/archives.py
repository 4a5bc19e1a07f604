"""Members of zip archives by ranges: the directory from the end, then each member's own bytes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from lzma import LZMAError
from typing import IO, cast

from clinloom.files.address import address
from clinloom.files.stores import store
from clinloom.files.unpacked import BLOCK, inflated, of_storage

FETCHED = 8 << 20  # bytes of a large file that are fetched at once
_LOCAL = 30  # bytes of a member's local header before its name
_MOST = _LOCAL + 24 + (1 << 16)  # of a record besides its name and data: header, extra, descriptor


def members(path: str) -> Iterator[tuple[str, int, tuple[int, int, int]]]:
    """Each visible member's name, size and record, in the directory's order.

    Raises zipfile.BadZipFile where it is no archive.
    """
    with _opened(path) as archive:
        infos = archive.infolist()
        starts = sorted({info.header_offset for info in infos} | {archive.start_dir})
    after = dict(zip(starts, starts[1:], strict=False))
    for info in infos:
        hidden = info.filename.startswith("__MACOSX") or "/." in info.filename
        if info.is_dir() or hidden:
            continue
        begin = info.header_offset
        most = begin + _MOST + 4 * len(info.orig_filename) + info.compress_size
        yield info.filename, info.file_size, (begin, min(after.get(begin, most), most), info.CRC)


def member(
    path: str,
    name: str,
    size: int,
    record: Sequence[int] | None,
    run: Sequence[int] | None,
    stamp: str,
) -> bytes:
    """A member's bytes, cut from its run where it is of one; ``stamp``: the archive's.

    Raises zipfile.BadZipFile where they are not what the archive says.
    """
    if record is None:
        return _through(path, name)
    begin, end, checksum = record
    if run is None:
        at = address(path)
        held = store(at).read(at, begin, end)
    else:
        held = _run(path, run[0], run[1], stamp)[begin - run[0] : end - run[0]]
    method, skip = _local(held)
    if method == zipfile.ZIP_STORED:
        data = bytes(held[skip : skip + size])
    elif method == zipfile.ZIP_DEFLATED:
        data = _inflated(held[skip:], size)
    else:
        return _through(path, name)
    if len(data) != size or zlib.crc32(data) != checksum:
        raise zipfile.BadZipFile("a member is not what the archive says")
    return data


def blocks(path: str, name: str, size: int, record: Sequence[int] | None) -> Iterator[bytes]:
    """A large member's bytes as they unpack.

    Raises zipfile.BadZipFile, at their end at last, where they are not what the archive says.
    """
    at = address(path)
    begin, end, checksum = record or (0, 0, 0)
    method, skip = _local(store(at).read(at, begin, begin + _LOCAL)) if record else (-1, 0)
    if method == zipfile.ZIP_STORED:
        found = fetched(path, begin + skip, min(begin + skip + size, end))
    elif method == zipfile.ZIP_DEFLATED:
        found = inflated(fetched(path, begin + skip, end))
    else:
        yield from _in_turn(path, name)
        return
    seen = summed = 0
    try:
        for block in found:
            seen, summed = seen + len(block), zlib.crc32(block, summed)
            if seen > size:
                break
            yield block
    except (zlib.error, EOFError):
        raise zipfile.BadZipFile("a member cannot be unpacked") from None
    if (seen, summed) != (size, checksum):
        raise zipfile.BadZipFile("a member is not what the archive says")


def fetched(path: str, begin: int, end: int) -> Iterator[bytes]:
    """The bytes of a file in ``[begin, end)``, by one request after the other."""
    at = address(path)
    for start in range(begin, end, FETCHED):
        yield store(at).read(at, start, min(start + FETCHED, end))


def _local(held: bytes) -> tuple[int, int]:
    """How a member is packed, and how long its local header is. (APPNOTE 4.3.7)"""
    if held[:4] != b"PK\3\4" or len(held) < _LOCAL:
        raise zipfile.BadZipFile("a member does not begin where the archive says")
    if held[6] & 1:
        raise zipfile.BadZipFile("a member is encrypted")
    skip = _LOCAL + int.from_bytes(held[26:28], "little") + int.from_bytes(held[28:30], "little")
    return int.from_bytes(held[8:10], "little"), skip


def _inflated(data: bytes, size: int) -> bytes:
    try:  # one byte more than is stated tells a member that would not end
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error:
        raise zipfile.BadZipFile("a member cannot be unpacked") from None


@lru_cache(maxsize=1)
def _run(path: str, begin: int, end: int, stamp: str) -> bytes:
    at = address(path)
    return store(at).read(at, begin, end)


def _through(path: str, name: str) -> bytes:
    return b"".join(_in_turn(path, name))


def _in_turn(path: str, name: str) -> Iterator[bytes]:
    """By the standard library: rarer kinds of compression."""
    try:
        with _opened(path) as archive, archive.open(name) as member:
            while block := member.read(BLOCK):
                yield block
    except (NotImplementedError, RuntimeError, EOFError, LZMAError, OSError) as error:
        if of_storage(error):
            raise
        raise zipfile.BadZipFile("a member is packed in a way that cannot be read") from None


def _opened(path: str) -> zipfile.ZipFile:
    at = address(path)
    return zipfile.ZipFile(cast(IO[bytes], at if at.local else store(at).random(at)))
