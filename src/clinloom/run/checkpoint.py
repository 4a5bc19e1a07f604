"""What Spark's own checkpoint of a stream tells: where it stands, and what a micro-batch brings.

Spark's file source notes the files of a micro-batch before that begins. They are taken from there:
of one that is removed meanwhile Spark's own reader fails, or says nothing at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address
from clinloom.run.feeds import Feed


def stands(spark: Address) -> tuple[int, int]:
    """The last micro-batch that was begun and the last that is done; -1: none."""
    begun, done = (
        max((int(name) for name in _names(spark / room) if name.isdigit()), default=-1)
        for room in ("offsets", "commits")
    )
    return begun, done


def brought(spark: Address, batch: int, feeds: Sequence[Feed]) -> list[tuple[str, str]]:
    """The files of a micro-batch, as names of feeds and URIs. Raises StoreError, OSError."""
    found: list[tuple[str, str]] = []
    folders = [(number, feed.name) for number, feed in enumerate(feeds) if feed.folder is not None]
    if not folders:
        return found
    try:
        before, now = _offsets(spark, batch - 1), _offsets(spark, batch)
        for number, name in folders:
            first = _reached(before[number]) + 1 if before else 0
            for part in range(first, _reached(now[number]) + 1):
                found += [(name, uri) for uri in _noted(spark / f"sources/{number}", part)]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        raise StoreError(
            "Spark's checkpoint does not tell which files a step brings",
            where=str(spark),
            mend="bring it back as it was, or take another --out",
        ) from None
    return found


def _offsets(spark: Address, batch: int) -> list[str]:
    """A line a source, after the format's version and Spark's own settings."""
    if batch < 0:
        return []
    return files.read(spark / f"offsets/{batch}").decode().splitlines()[2:]


def _reached(line: str) -> int:
    """The last part of a file source's list; -1 where nothing came yet."""
    return -1 if line == "-" else int(json.loads(line)["logOffset"])


def _noted(listed: Address, part: int) -> list[str]:
    """The URIs of a part of a file source's list, which each tenth repeats all before."""
    try:
        text = files.read(listed / f"{part}")
    except FileNotFoundError:
        text = files.read(listed / f"{part}.compact")
    rows = map(json.loads, text.splitlines()[1:])
    return [row["path"] for row in rows if row["batchId"] == part]


def _names(room: Address) -> list[str]:
    return [entry.address.name for entry in files.listed(room)]
