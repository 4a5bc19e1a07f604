"""A remote file for random access: each read is one exact ranged read, nothing ahead."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import pyarrow as pa


class Ranges(io.RawIOBase):
    """A file of ``size`` bytes behind ``fetch(start, stop)``; seeking fetches nothing."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int):
        super().__init__()
        self._fetch, self._size, self._at = fetch, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, from the start, from here or from the end."""
        if whence == os.SEEK_CUR:
            offset += self._at
        elif whence == os.SEEK_END:
            offset += self._size
        if offset < 0:
            raise ValueError("a file has no byte before its first")
        self._at = offset
        return offset

    def read(self, size: int | None = -1) -> bytes:
        """So many bytes, fewer only at the end."""
        left = max(0, self._size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        data = self._fetch(self._at, self._at + count) if count else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def ranged(fetch: Callable[[int, int], bytes], size: int) -> pa.NativeFile:
    """The file as Arrow, Parquet and zipfile take it; its ``read_at`` is safe among threads."""
    return pa.PythonFile(Ranges(fetch, size), mode="r")
