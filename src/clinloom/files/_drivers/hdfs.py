"""HDFS, through hdfs-native: no Java and no libhdfs in the worker.

The cluster is the one of ``HADOOP_CONF_DIR``; a Kerberos ticket comes from its cache, a token from
``HADOOP_TOKEN_FILE_LOCATION``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import time
import uuid
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa

from clinloom.errors import StoreError, UsageError
from clinloom.files.address import Address
from clinloom.files.registry import Entry, Store, library

from ._aside import aside, told
from ._ranges import ranged

SCHEMES = ("hdfs",)
ALIASES: dict[str, str] = {}
HADOOP: dict[str, str] = {}
REQUIRES: str | None = "hdfs"
OPTIONS = {
    "config_dir": "the folder of core-site.xml and hdfs-site.xml",
    "kerberos_principal": "who this is",
    "kerberos_keytab": "the file of its keys",
    "kerberos_cache": "the cache of its tickets",
}
NO_TICKET = "HDFS asks for a Kerberos ticket (kinit, or a keytab) and this process has none"
PAUSES = (0.02, 0.1, 0.4, 1.0, 3.0)  # seconds between two looks for a file's last block
BLOCK = 8 << 20  # bytes of a large file that are sent at once
T = TypeVar("T")
_opened_by: set[int] = set()  # processes that have used the library: this one and those above it


def takes(name: str) -> bool:
    """Hadoop's own settings are passed on."""
    return name.startswith(("dfs.", "fs.", "hadoop.", "ipc."))


def secret(name: str) -> bool:
    """Those of Hadoop's settings that are named like one."""
    return bool(re.search(r"(secret|password|credential|token|\.key)$", name))


def connect(authority: str, options: dict[str, Any]) -> Store:
    """The name node, or the cluster's own where the address names none.

    Raises StoreError in a process that was forked from one which has used HDFS: the library's
    threads are not in it, and every call would wait for ever. Spark's workers are no such process.
    """
    native = library("hdfs_native", extra="hdfs")
    if _opened_by - {os.getpid()}:
        raise StoreError(
            "HDFS was used before this process was forked", mend="start the process by spawn"
        )
    _opened_by.add(os.getpid())
    authority = _tokens_own(authority, options)
    config = {name: str(value) for name, value in options.items() if takes(name)}
    rest = {name: str(value) for name, value in options.items() if not takes(name)}
    try:
        client = native.Client(f"hdfs://{authority}" if authority else None, config or None, **rest)
    except (OSError, RuntimeError, ValueError):
        raise UsageError(
            "HDFS cannot be opened as it is configured",
            where="storage.hdfs",
            mend="does HADOOP_CONF_DIR (or config_dir) hold the cluster's core-site.xml?",
        ) from None
    return Hdfs(native, client)


class Hdfs:
    """Files are written under a hidden name and renamed: whole or not at all."""

    def __init__(self, native: Any, client: Any):
        self._native, self._client = native, client

    def read(self, a: Address, start: int | None, stop: int | None) -> bytes:
        """The bytes, or those in ``[start, stop)``, from the data nodes."""
        file = self._opened(a, stop)
        size = len(file)
        first = min(start or 0, size)
        last = size if stop is None else min(stop, size)
        return self._ask(a, lambda: file.read_range(first, last - first)) if last > first else b""

    def write(self, a: Address, data: bytes) -> str:
        """A hidden file, renamed over the other."""
        return self._write(a, data, overwrite=True)

    def create(self, a: Address, data: bytes) -> str | None:
        """A hidden file; the name node refuses its rename where the name is taken."""
        if self._status(a) is not None:
            return None
        try:
            return self._write(a, data, overwrite=False)
        except OSError:
            if self._status(a) is not None:
                return None
            raise

    def swap(self, a: Address, data: bytes, expected: str) -> str | None:
        """Checked, then replaced: another may come between."""
        return self.write(a, data) if self.version(a) == expected else None

    def version(self, a: Address) -> str | None:
        """Time of change and size."""
        found = self._status(a)
        return _stamp(found) if found is not None and not found.isdir else None

    def exists(self, a: Address) -> bool:
        """Whether a file or folder is there."""
        return self._status(a) is not None

    def entry(self, a: Address) -> Entry:
        """The file."""
        found = self._status(a)
        if found is None:
            raise told(a, 404)
        if found.isdir:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(a))
        return Entry(a, found.length, _stamp(found))

    def listed(self, a: Address, deep: bool = True) -> Iterator[Entry]:
        """Folder by folder; each is held and sorted, as the name node orders by signed bytes."""
        found = self._status(a)
        if found is not None and found.isdir:
            yield from self._below(a, _path(a), deep)
        elif found is not None:
            yield Entry(a, found.length, _stamp(found))

    def _below(self, a: Address, folder: str, deep: bool) -> Iterator[Entry]:
        listed = self._ask(a, lambda: list(self._client.list_status(folder)))
        for found in sorted(listed, key=lambda f: f.path.rsplit("/", 1)[-1]):
            path = re.sub(r"^hdfs://[^/]*", "", found.path)
            if found.isdir:
                if deep:
                    yield from self._below(a, path, deep)
            else:
                place = Address(f"hdfs://{a.authority}{path}")
                yield Entry(place, found.length, _stamp(found))

    def remove(self, a: Address) -> None:
        """The file or whole folder, past the trash."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(a, lambda: self._client.delete(_path(a), recursive=True))

    def folder(self, a: Address) -> None:
        """The folder and those above it, for its owner's group as the cluster's mask has it."""
        self._ask(a, lambda: self._client.mkdirs(_path(a), create_parent=True))

    def place(self, a: Address) -> Path:
        """A file of its own in the worker's temporary folder."""
        return aside(a)

    def put(self, built: Path, a: Address) -> None:
        """Sent under a hidden name, then renamed."""
        with built.open("rb") as file:
            self._send(a, iter(lambda: file.read(BLOCK), b""), overwrite=True)

    def random(self, a: Address) -> pa.NativeFile:
        """Ranged reads of the blocks as they lie now."""
        file = self._opened(a)

        def fetch(start: int, stop: int) -> bytes:
            data: bytes = self._ask(a, lambda: file.read_range(start, stop - start))
            return data

        return ranged(fetch, len(file))

    def _opened(self, a: Address, stop: int | None = None) -> Any:
        """The file, with all of its bytes up to ``stop``.

        A name node may let a file be closed before its last block is reported; until then the
        library passes over that block. Raises OSError where it does not appear.
        """
        for pause in (*PAUSES, None):
            file = self._ask(a, lambda: self._client.read(_path(a)))
            if stop is not None and len(file) >= stop:
                return file
            found = self._status(a)
            if found is None or len(file) >= found.length:
                return file
            if pause is not None:
                time.sleep(pause)
        raise OSError(errno.EIO, "a block of the file is missing", str(a))

    def _write(self, a: Address, data: bytes, *, overwrite: bool) -> str:
        return self._send(a, iter([data] if data else []), overwrite=overwrite)

    def _send(self, a: Address, parts: Iterator[bytes], *, overwrite: bool) -> str:
        """The version of what was sent: asked before the rename, which keeps it, for afterwards
        the name may be another writer's file."""
        hidden = f"{_path(a.parent).rstrip('/')}/.{a.name}.{uuid.uuid4().hex}"
        try:
            options = self._native.WriteOptions(create_parent=True)
            file = self._ask(a, lambda: self._client.create(hidden, options))
            for part in parts:
                self._ask(a, partial(file.write, part))
            self._ask(a, file.close)
            made = _stamp(self._ask(a, lambda: self._client.get_file_info(hidden)))
            self._ask(a, lambda: self._client.rename(hidden, _path(a), overwrite))
        except BaseException:
            with contextlib.suppress(Exception):
                self._client.delete(hidden)
            raise
        return made

    def _status(self, a: Address) -> Any:
        try:
            return self._ask(a, lambda: self._client.get_file_info(_path(a)))
        except FileNotFoundError:
            return None

    def _ask(self, a: Address, call: Callable[[], T]) -> T:
        try:
            return call()
        except FileNotFoundError:
            raise told(a, 404) from None
        except PermissionError:
            raise told(a, 403) from None
        except (OSError, RuntimeError) as error:
            name = re.search(r"(\w+Exception)", str(error))
            if "GSSAPI" in str(error) or "No Kerberos credentials" in str(error):
                raise PermissionError(errno.EACCES, NO_TICKET, str(a)) from None
            if re.search(r"AccessControlException|AuthorizationException", str(error)):
                raise told(a, 403) from None
            what = name[1] if name else type(error).__name__
            raise OSError(errno.EIO, f"HDFS answered {what}", str(a)) from None


def _tokens_own(authority: str, options: Mapping[str, Any]) -> str:
    """The name node as this process's token names it, which may be by its number.

    That is Hadoop's default (hadoop.security.token.service.use_ip); the library looks for a token
    of the name that is asked for, and passes over one that only names the number.
    """
    tokens = os.environ.get("HADOOP_TOKEN_FILE_LOCATION")
    host, _, port = (authority or _default(options)).partition(":")
    if not tokens or not port.isdigit():  # without a port it is a nameservice: kept by its name
        return authority
    try:
        held = Path(tokens).read_bytes()
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError:
        return authority
    numbers = [f"{address[0]}:{port}" for *_, address in found]
    return next((number for number in numbers if number.encode() in held), authority)


def _default(options: Mapping[str, Any]) -> str:
    """The name node of an address that names none; nothing where the settings do not tell."""
    folder = options.get("config_dir") or os.environ.get("HADOOP_CONF_DIR", "")
    try:
        root = xml.parse(Path(folder, "core-site.xml")).getroot()  # noqa: S314 - the administrator's
    except (OSError, xml.ParseError):
        return ""
    named = {each.findtext("name"): each.findtext("value") for each in root.iter("property")}
    return urlsplit(options.get("fs.defaultFS") or named.get("fs.defaultFS") or "").netloc


def _path(a: Address) -> str:
    return f"/{a.key}"


def _stamp(found: Any) -> str:
    return f"{found.modification_time}-{found.length}"
