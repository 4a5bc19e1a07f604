"""What the object stores share: a bucket of keys, reached through an fsspec file system.

fsspec gives each cloud's credentials, connections and event loop; the requests themselves are sent
one by one here, so that each is exact in its bytes, conditional where it must be, and asked again
where a fault may pass.
"""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from clinloom.files.address import Address
from clinloom.files.registry import Entry

from ._aside import aside, told
from ._ordered import Found, ordered
from ._ranges import ranged

T = TypeVar("T")
PAGE = 1000  # objects that are listed at once
MARK = "clinloomput"  # the metadatum by which a put is known again
MIGHT_PASS = {408, 409, 425, 429, 500, 502, 503, 504}


class Head(NamedTuple):
    """What a store says of an object."""

    size: int
    version: str
    token: str | None


class Refused(Exception):
    """A put whose condition did not hold."""


class Objects(ABC):
    """A store of objects; a driver sends the requests."""

    def __init__(self, fs: Any, bucket: str):
        self.fs, self.bucket = fs, bucket

    @abstractmethod
    async def get(self, key: str, start: int, stop: int | None, version: str | None) -> bytes:
        """The bytes in ``[start, stop)``, of that version if one is given."""

    @abstractmethod
    async def head(self, key: str) -> Head:
        """What is known of an object."""

    @abstractmethod
    async def send(self, key: str, data: bytes, *, expected: str | None, token: str | None) -> str:
        """Put a whole object, answer its version.

        ``expected``: only over that version; ``""``: only where nothing is; None: anyhow. Raises
        Refused where that does not hold.
        """

    @abstractmethod
    async def upload(self, built: Path, key: str) -> None:
        """Put a local file, in parts where it is large; nothing is there before the last."""

    @abstractmethod
    async def page(self, prefix: str, after: Any, count: int) -> tuple[list[Found], Any]:
        """The next ``count`` objects whose keys begin with ``prefix``, and where to go on."""

    @abstractmethod
    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; no error for one that is not there."""

    @abstractmethod
    def status(self, error: Exception) -> int | None:
        """The HTTP status of a fault: 0 where none came back; None: no fault of the store."""

    def read(self, a: Address, start: int | None, stop: int | None) -> bytes:
        """One ranged request."""
        if stop is not None and stop <= (start or 0):
            return b""
        return self._ask(a, lambda: self.get(a.key, start or 0, stop, None))

    def write(self, a: Address, data: bytes) -> str:
        """One put."""
        return self._ask(a, lambda: self.send(a.key, data, expected=None, token=None))

    def create(self, a: Address, data: bytes) -> str | None:
        """One put on condition that nothing is there."""
        return self.swap(a, data, "")

    def swap(self, a: Address, data: bytes, expected: str) -> str | None:
        """One put on condition of the version."""
        # A put whose answer was lost is sent again, and refused because it had succeeded: it is
        # known by its token.
        token = uuid.uuid4().hex
        try:
            return self._ask(a, lambda: self.send(a.key, data, expected=expected, token=token))
        except Refused:
            head = self._head(a)
            return head.version if head and head.token == token else None

    def version(self, a: Address) -> str | None:
        """The ETag or generation."""
        head = self._head(a)
        return head.version if head else None

    def exists(self, a: Address) -> bool:
        """Whether the object is there, or any below it."""
        if self._head(a) is not None:
            return True
        try:
            return bool(self._ask(a, lambda: self.page(_folder(a), None, 1))[0] or not a.key)
        except FileNotFoundError:  # no such bucket
            return False

    def entry(self, a: Address) -> Entry:
        """The object."""
        head = self._head(a)
        if head is None:
            raise told(a, 404)
        return Entry(a, head.size, head.version)

    def listed(self, a: Address, deep: bool = True) -> Iterator[Entry]:
        """The object, and those below it page by page."""
        root = f"{a.scheme}://{a.authority}/"
        head = self._head(a)
        if head is not None:
            yield Entry(a, head.size, head.version)
        try:
            for found in ordered(_folder(a), partial(self._found, a)):
                if deep or "/" not in found.key[len(_folder(a)) :]:
                    yield Entry(Address(root + found.key), found.size, found.stamp)
        except FileNotFoundError:  # no such bucket
            return

    def _found(self, a: Address, prefix: str) -> Iterator[Found]:
        after: Any = None
        while True:
            found, after = self._page(a, prefix, after)
            yield from (f for f in found if not f.key.endswith("/"))  # those mark empty folders
            if after is None:
                return

    def _page(self, a: Address, prefix: str, after: Any) -> tuple[list[Found], Any]:
        return self._ask(a, lambda: self.page(prefix, after, PAGE))

    def remove(self, a: Address) -> None:
        """The object and those below it, page by page; a marked folder after what it holds."""
        if a.key:
            self._delete(a, [a.key])
        folders: list[str] = []
        after: Any = None
        try:
            while True:
                found, after = self._page(a, _folder(a), after)
                folders += [f.key for f in found if f.key.endswith("/")]
                self._delete(a, [f.key for f in found if not f.key.endswith("/")])
                if after is None:
                    break
        except FileNotFoundError:  # no such bucket
            return
        for key in reversed(folders):
            self._delete(a, [key])

    def _delete(self, a: Address, keys: list[str]) -> None:
        if keys:
            self._ask(a, lambda: self.delete(keys))

    def folder(self, a: Address) -> None:  # noqa: B027 - there is nothing to override
        """Nothing: a folder is there while something is in it."""

    def place(self, a: Address) -> Path:
        """A file of its own in the worker's temporary folder."""
        return aside(a)

    def put(self, built: Path, a: Address) -> None:
        """The whole file."""
        self._ask(a, lambda: self.upload(built, a.key))

    def random(self, a: Address) -> pa.NativeFile:
        """Ranged requests of the version that is there now."""
        at = self.entry(a)

        def fetch(start: int, stop: int) -> bytes:
            return self._ask(a, lambda: self.get(a.key, start, stop, at.stamp))

        return ranged(fetch, at.size)

    def _head(self, a: Address) -> Head | None:
        if not a.key:
            return None
        try:
            return self._ask(a, lambda: self.head(a.key))
        except FileNotFoundError:
            return None

    def _ask(self, a: Address, request: Callable[[], Awaitable[T]]) -> T:
        from fsspec.asyn import sync

        answer: T = sync(self.fs.loop, self._tried, a, request)
        return answer

    async def _tried(self, a: Address, request: Callable[[], Awaitable[T]]) -> T:
        for pause in (0.2, 1.0, None):
            try:
                return await request()
            except Refused:
                raise
            except Exception as error:
                code = self.status(error)
                if code is None:
                    raise
                if pause is None or (code and code not in MIGHT_PASS):
                    raise told(a, code) from None
            await asyncio.sleep(pause)
        raise AssertionError("the last try answers or raises")


def _folder(a: Address) -> str:
    return f"{a.key}/" if a.key else ""
