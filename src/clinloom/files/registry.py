"""What a storage driver owes, and which driver opens a scheme.

A new scheme is one new file in ``_drivers``: it names its ``SCHEMES`` and ``OPTIONS``, the extra
that ``REQUIRES`` installs, and answers ``connect``. Third-party libraries load when it is called.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from clinloom.errors import MissingDependency, UsageError, instead
from clinloom.files.address import Address


class Entry(NamedTuple):
    """A file in a store: where, how many bytes, and a stamp that changes when it is rewritten."""

    address: Address
    size: int
    stamp: str


class Store(Protocol):
    """One storage, as ``clinloom.files`` uses it; the verbs are explained there."""

    def read(self, a: Address, start: int | None, stop: int | None) -> bytes:
        """The bytes, or those in ``[start, stop)``."""

    def write(self, a: Address, data: bytes) -> str:
        """Replace the file; answers its version."""

    def create(self, a: Address, data: bytes) -> str | None:
        """Write where nothing is there, else None."""

    def swap(self, a: Address, data: bytes, expected: str) -> str | None:
        """Replace the file of that version, else None."""

    def version(self, a: Address) -> str | None:
        """The file's version, or None where there is none."""

    def exists(self, a: Address) -> bool:
        """Whether a file or folder is there."""

    def entry(self, a: Address) -> Entry:
        """The file. Raises FileNotFoundError."""

    def listed(self, a: Address, deep: bool = True) -> Iterator[Entry]:
        """Every file at and below, by path components; not ``deep``: of this folder alone."""

    def remove(self, a: Address) -> None:
        """Remove the file or whole folder."""

    def folder(self, a: Address) -> None:
        """Make the folder where the store has folders."""

    def place(self, a: Address) -> Path:
        """A local path on which to build the file; it does not exist yet."""

    def put(self, built: Path, a: Address) -> None:
        """Bring what was built to its address, whole."""

    def random(self, a: Address) -> pa.NativeFile:
        """The file for random access."""


class Driver(Protocol):
    """A module of ``_drivers``."""

    SCHEMES: tuple[str, ...]
    ALIASES: dict[str, str]  # other names of a scheme
    HADOOP: dict[str, str]  # what Spark calls a scheme, where it differs
    OPTIONS: dict[str, str]  # each with its meaning
    REQUIRES: str | None

    def takes(self, name: str) -> bool:
        """Whether an option that OPTIONS does not list is passed on."""

    def secret(self, name: str) -> bool:
        """Whether the option must be a reference."""

    def connect(self, authority: str, options: dict[str, Any]) -> Store:
        """Open the storage with options whose references are resolved."""


@lru_cache(maxsize=1)
def _drivers() -> dict[str, Any]:
    room = importlib.import_module("clinloom.files._drivers")
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(room.__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{room.__name__}.{info.name}")
            found |= dict.fromkeys(module.SCHEMES, module)
    return found


def driver(scheme: str) -> Driver:
    """The driver of a scheme. Raises UsageError naming the nearest where there is none."""
    found: Driver | None = _drivers().get(names().get(scheme, scheme))
    if found is None:
        raise UsageError(f"there is no storage '{scheme}'", mend=instead(scheme, _drivers()))
    return found


@lru_cache(maxsize=1)
def names() -> dict[str, str]:
    """Every name of a scheme that may be written, and the scheme that it means."""
    out = {scheme: scheme for scheme in _drivers()}
    for module in _drivers().values():
        out |= module.ALIASES
    return out


def library(name: str, *, extra: str) -> Any:
    """A third-party module. Raises MissingDependency that names the extra which installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingDependency(
            f"this storage needs {name}", mend=f"pip install 'clinloom[{extra}]'"
        ) from None
