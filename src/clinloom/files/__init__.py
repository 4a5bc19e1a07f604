"""One opener by scheme for driver and workers: local, HDFS, S3, Azure, Google Cloud Storage.

Every verb takes an address (or the text of one) and holds on every storage, as far as this table
says. "Whole" means that a reader sees the old content or the new, and that an exception leaves
nothing at the address.

=====================  =====================  ======================  =====================
storage                ``write, building``    ``create``              ``swap``
=====================  =====================  ======================  =====================
local, mounts          whole (rename)         exclusive, whole¹       check, then replace
``hdfs:``              whole (rename)         exclusive, whole        check, then replace
``s3:``                whole (one put)        exclusive (condition)²  conditional²
``abfs: abfss:``       whole (one put)        exclusive (condition)   conditional
``gs:``                whole (one put)        exclusive (condition)   conditional
=====================  =====================  ======================  =====================

¹ By a hard link; on a mount that has none, exclusive but not whole: a crash may leave a part.
² ``If-None-Match`` and ``If-Match``: Amazon has both; a store that imitates S3 must have them.

Where ``swap`` checks and then replaces, two that run at once may both succeed: take a lease by
``create`` first. A version that ``write``, ``create`` and ``swap`` answer is that of their own
file, also where another writer has replaced it since. A local ``write`` and ``create`` are synced
to the disk, ``building`` is not.

Faults are OSErrors that name the address and nothing of its content: FileNotFoundError,
PermissionError, and OSError for what may pass, so that Spark tries again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from clinloom.files.address import Address, address
from clinloom.files.options import Options, checked, named, settings, storages, use
from clinloom.files.parts import FAULTS, Part, parted
from clinloom.files.pieces import (
    BROKEN,
    PARQUET,
    RANGE,
    FileUnit,
    Given,
    Piece,
    adjoined,
    cut,
    json_lines,
    listing,
)
from clinloom.files.registry import Entry
from clinloom.files.stores import store
from clinloom.files.units import GROUP, Unit, fingerprint, groups
from clinloom.files.unpacked import MOST, WHOLE, TooLarge, of_storage

__all__ = [
    "BROKEN",
    "FAULTS",
    "GROUP",
    "MOST",
    "PARQUET",
    "RANGE",
    "WHOLE",
    "Address",
    "Entry",
    "FileUnit",
    "Given",
    "Options",
    "Part",
    "Piece",
    "TooLarge",
    "Unit",
    "address",
    "adjoined",
    "building",
    "checked",
    "create",
    "cut",
    "entry",
    "exists",
    "fingerprint",
    "folder",
    "groups",
    "listed",
    "json_lines",
    "listing",
    "named",
    "of_storage",
    "parted",
    "random",
    "read",
    "remove",
    "settings",
    "storages",
    "swap",
    "use",
    "version",
    "write",
]


Where = str | os.PathLike[str]  # an address, or the text or path of one


def read(a: Where, start: int | None = None, stop: int | None = None) -> bytes:
    """The file's bytes, or those in ``[start, stop)`` and no others. Raises OSError."""
    at = address(a)
    return store(at).read(at, start, stop)


def write(a: Where, data: bytes) -> str:
    """Replace the file, whole or not at all; answers its new version. Raises OSError."""
    at = address(a)
    return store(at).write(at, data)


def create(a: Where, data: bytes) -> str | None:
    """Write the file only where nothing is there: its version, or None where something is."""
    at = address(a)
    return store(at).create(at, data)


def version(a: Where) -> str | None:
    """What changes whenever the file is rewritten; None where there is no file."""
    at = address(a)
    return store(at).version(at)


def swap(a: Where, data: bytes, expected: str | None) -> str | None:
    """Replace the file if it still has the version ``expected`` (None: if there is none).

    Answers the new version, or None where the file changed meanwhile. The table above says where
    that is one step.
    """
    at = address(a)
    if expected is None:
        return store(at).create(at, data)
    return store(at).swap(at, data, expected)


def exists(a: Where) -> bool:
    """Whether a file or folder is there; an object store has a folder while something is in it."""
    at = address(a)
    return store(at).exists(at)


def entry(a: Where) -> Entry:
    """The file's address, size and stamp. Raises FileNotFoundError."""
    at = address(a)
    return store(at).entry(at)


def listed(a: Where, *, deep: bool = True) -> Iterator[Entry]:
    """Every file at and below the address, hidden ones too; none where there is nothing.

    In the order of path components on every storage, never all at once: an object store is read
    page by page, a file system folder by folder. Not ``deep``: the folder's own files alone, for
    which a file system opens no other folder.
    """
    at = address(a)
    return store(at).listed(at, deep)


def remove(a: Where) -> None:
    """Remove the file, or the folder with all that is in it; no error where nothing is."""
    at = address(a)
    store(at).remove(at)


def folder(a: Where) -> Address:
    """Make the folder where the store has folders; answers its address."""
    at = address(a)
    store(at).folder(at)
    return at


@contextmanager
def building(a: Where) -> Iterator[Path]:
    """A local path on which to write a file; at a clean exit the file is at the address, whole.

    On this machine it is a hidden name beside the file, else a name in the worker's own temporary
    folder (the first of ``SPARK_LOCAL_DIRS`` where set). After an exception there is nothing.
    """
    at = address(a)
    opened = store(at)
    built = opened.place(at)
    try:
        yield built
        opened.put(built, at)
    finally:
        built.unlink(missing_ok=True)


def random(a: Where) -> pa.NativeFile:
    """The file for random access: mapped where local, else each read is one exact ranged read.

    Several threads may use it at once by ``read_at``. Raises FileNotFoundError.
    """
    at = address(a)
    return store(at).random(at)
