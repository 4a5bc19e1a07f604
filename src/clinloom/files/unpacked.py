"""Packed bytes as they unpack, a block at a time: memory is flat, however far they inflate."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator

BLOCK = 1 << 20  # bytes that are unpacked at once
GZIP = b"\x1f\x8b"  # how a gzip file begins (RFC 1952)
WHOLE = 512 << 20  # the most bytes of a packed file that are held whole, unless a study says more
MOST = 64 << 30  # the most bytes that a packed file may unpack to, unless a study says more


class TooLarge(ValueError):
    """A packed file unpacks to more than the study allows."""


def of_storage(error: BaseException) -> bool:
    """Whether it is the storage's fault, and not of what was read there: that has a number."""
    return isinstance(error, OSError) and error.errno is not None


def is_gzip(name: str, begin: bytes) -> bool:
    """Whether a file is packed by gzip: by its name, or by how it begins."""
    return name.lower().endswith(".gz") or begin.startswith(GZIP)


def gunzipped(packed: Iterable[bytes]) -> Iterator[bytes]:
    """The content of a gzip file, of its members one after the other.

    Raises zlib.error where it is none or is not what it was, EOFError where it is cut short.
    """
    unpacker = None
    for block in packed:
        while block:
            if unpacker is None:
                unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
            data = unpacker.decompress(block, BLOCK)
            if data:
                yield data
            block = unpacker.unconsumed_tail
            if unpacker.eof:  # zeros may fill up the last block
                block, unpacker = unpacker.unused_data.lstrip(b"\0"), None
    if unpacker is not None:
        raise EOFError("a gzip file is cut short")


def inflated(packed: Iterable[bytes]) -> Iterator[bytes]:
    """The content of one deflated stream; what follows its end is passed over.

    Raises zlib.error where it is none, EOFError where it is cut short.
    """
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    for block in packed:
        while block and not unpacker.eof:
            yield unpacker.decompress(block, BLOCK)
            block = unpacker.unconsumed_tail
    yield unpacker.flush()  # at most what one sign stands for
    if not unpacker.eof:
        raise EOFError("a member is cut short")


def joined(blocks: Iterable[bytes], most: int) -> bytes:
    """All of them as one. Raises TooLarge where that is more than ``most`` bytes."""
    held = io.BytesIO()
    for block in bounded(blocks, most):
        held.write(block)
    return held.getvalue()


def bounded(blocks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The blocks. Raises TooLarge where together they are more than ``most`` bytes."""
    size = 0
    for block in blocks:
        size += len(block)
        if size > most:
            raise TooLarge(f"it unpacks to more than {most} bytes")
        yield block
