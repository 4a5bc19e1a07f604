"""This machine's file system, and whatever is mounted into it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from clinloom.files.address import Address
from clinloom.files.registry import Entry

SCHEMES = ("file",)
ALIASES: dict[str, str] = {}
HADOOP: dict[str, str] = {}
OPTIONS: dict[str, str] = {}
REQUIRES: str | None = None


def takes(name: str) -> bool:
    """No option is passed on."""
    return False


def secret(name: str) -> bool:
    """There is none."""
    return False


def connect(authority: str, options: dict[str, Any]) -> Local:
    """The local file system."""
    return Local()


class Local:
    """Files are replaced by a rename within their folder: whole or not at all."""

    def read(self, a: Address, start: int | None, stop: int | None) -> bytes:
        """The bytes, or those in ``[start, stop)``."""
        with open(a, "rb") as file:
            if start is None and stop is None:
                return file.read()
            file.seek(start or 0)
            return file.read(-1 if stop is None else max(0, stop - (start or 0)))

    def write(self, a: Address, data: bytes) -> str:
        """A temporary in the same folder, synced, renamed over the file."""
        temporary = self._temporary(a, data)
        try:
            made = _version(os.stat(temporary))
            os.replace(temporary, a)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(os.path.dirname(a))
        return made

    def create(self, a: Address, data: bytes) -> str | None:
        """A temporary, synced, linked to the name: that fails where the name is taken."""
        temporary = self._temporary(a, data)
        try:
            os.link(temporary, a)
        except FileExistsError:
            return None
        except OSError:  # a mount without links
            return self._exclusive(a, data)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(os.path.dirname(a))
        return self.version(a)

    def _exclusive(self, a: Address, data: bytes) -> str | None:
        """Two cannot both create; but a reader may see a part, and a crash may leave one."""
        try:
            file = open(a, "xb")
        except FileExistsError:
            return None
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            os.unlink(a)
            raise
        return self.version(a)

    def swap(self, a: Address, data: bytes, expected: str) -> str | None:
        """Checked, then replaced: another may come between."""
        return self.write(a, data) if self.version(a) == expected else None

    def version(self, a: Address) -> str | None:
        """Time of change, size and inode."""
        try:
            return _version(os.stat(a))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self, a: Address) -> bool:
        """Whether a file or folder is there."""
        return os.path.exists(a)

    def entry(self, a: Address) -> Entry:
        """The file. Raises FileNotFoundError, IsADirectoryError."""
        found = os.stat(a)
        if os.path.isdir(a):
            raise IsADirectoryError(21, "it is a folder", str(a))
        return Entry(a, found.st_size, str(found.st_mtime_ns))

    def listed(self, a: Address, deep: bool = True) -> Iterator[Entry]:
        """Every file, by path components; a link to a file counts, one to a folder does not."""
        if os.path.isfile(a):
            yield self.entry(a)
        elif os.path.isdir(a):
            yield from _below(str(a).rstrip("/"), deep)

    def remove(self, a: Address) -> None:
        """The file, link or whole folder."""
        try:
            if os.path.isdir(a) and not os.path.islink(a):
                shutil.rmtree(a)
            else:
                os.unlink(a)
        except (FileNotFoundError, NotADirectoryError):
            pass

    def folder(self, a: Address) -> None:
        """The folder and those above it."""
        os.makedirs(a, exist_ok=True)

    def place(self, a: Address) -> Path:
        """A hidden name in the same folder."""
        os.makedirs(os.path.dirname(a), exist_ok=True)
        return Path(f"{a.parent}/.{a.name}.{uuid.uuid4().hex}")

    def put(self, built: Path, a: Address) -> None:
        """Renamed."""
        os.replace(built, a)

    def random(self, a: Address) -> pa.NativeFile:
        """Memory-mapped."""
        if not os.stat(a).st_size:
            return pa.BufferReader(b"")  # nothing to map
        return pa.memory_map(str(a))

    def _temporary(self, a: Address, data: bytes) -> Path:
        temporary = self.place(a)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary


def _below(folder: str, deep: bool) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda e: e.name)
    except FileNotFoundError:  # removed since the one above was read
        return
    for e in entries:
        if e.is_dir():
            if deep and not e.is_symlink():
                yield from _below(e.path, deep)
        elif e.is_file():
            try:
                stat = e.stat()
            except FileNotFoundError:  # removed since the folder was read
                continue
            yield Entry(Address(e.path), stat.st_size, str(stat.st_mtime_ns))


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"


def _sync(folder: str) -> None:
    """Make a rename last through a loss of power, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
