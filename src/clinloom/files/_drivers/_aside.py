"""What every store away from this machine needs: a file built aside, and faults told plainly."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from clinloom.files.address import Address


def aside(a: Address) -> Path:
    """An empty file that only this user reads, in the worker's own temporary folder."""
    first = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0]
    folder = first if first and os.path.isdir(first) else None
    handle, path = tempfile.mkstemp(suffix=f"-{a.name[-80:]}", dir=folder)
    os.close(handle)
    return Path(path)


def told(a: Address, status: int) -> OSError:
    """The OSError of an HTTP status (0: no answer came), with the address and no more."""
    if status == 404:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(a))
    if status in (401, 403):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(a))
    if status in (304, 412):
        return OSError(errno.ESTALE, "the file was rewritten while it was read", str(a))
    what = f"the store answered {status}" if status else "the store could not be reached"
    return OSError(errno.EIO, what, str(a))
