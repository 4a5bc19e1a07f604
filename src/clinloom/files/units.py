"""Units of sources, whatever they are: told apart by a fingerprint and grouped by size."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import Protocol, TypeVar

GROUP = 16 << 20  # bytes that one task reads


class Unit(Protocol):
    """A part of a source that a worker opens by itself: a file, a range of rows, given bytes.

    To travel to workers it is a frozen dataclass of plain data (texts, numbers, bytes, sequences,
    mappings and such dataclasses), typed as it is held, without a secret and without anything open.
    """

    @property
    def name(self) -> str:
        """What refusals and record identifiers call it."""

    @property
    def size(self) -> int:
        """About how many bytes reading it costs."""

    @property
    def stamp(self) -> str:
        """What changes when its content does."""

    def read(self) -> bytes:
        """Its content."""


Kind = TypeVar("Kind", bound=Unit)


def fingerprint(units: Iterable[Unit]) -> str:
    """A hash that changes when a unit is added, removed, renamed or rewritten."""
    digest = hashlib.sha256()
    for unit in units:
        digest.update(f"{unit.name}\0{unit.size}\0{unit.stamp}\n".encode())
    return digest.hexdigest()


def groups(units: Iterable[Kind], *, cores: int, total: int | None = None) -> Iterator[list[Kind]]:
    """Units grouped by bytes, in their order: few enough for a task's memory, enough tasks for
    every core.

    ``total``: the bytes of all units, so that they need not be held; without it a collection is
    summed, and a stream is grouped as if there were much.
    """
    if total is None and isinstance(units, Collection):
        total = sum(unit.size for unit in units)
    limit = GROUP if total is None else max(1 << 16, min(GROUP, total // (4 * cores) + 1))
    group: list[Kind] = []
    held = 0
    for unit in units:
        if held and held + unit.size > limit:
            yield group
            group, held = [], 0
        group.append(unit)
        held += unit.size
    if group:
        yield group
