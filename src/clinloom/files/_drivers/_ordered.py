"""Keys as object stores list them, put into the order of path components without holding them all.

A store lists by the whole key, so ``a-b`` and ``a.csv`` come before ``a/x``; a folder is read
``a/x``, ``a-b``, ``a.csv``. The two differ only where a name goes on, after the name of a folder,
with a sign that sorts before the slash.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

HELD = 1000  # entries that wait for a folder which may still come, before it is asked for


class Found(NamedTuple):
    """An object: its key, bytes and stamp."""

    key: str
    size: int
    stamp: str


def ordered(prefix: str, find: Callable[[str], Iterable[Found]]) -> Iterator[Found]:
    """What ``find(prefix)`` lists in the order of keys, in the order of path components.

    At most HELD entries wait; where more would, ``find`` is asked whether the folder they wait
    for is there. A store that lists by path components already is passed on as it is.
    """
    waiting: list[tuple[tuple[str, ...], Found]] = []
    told: set[str] = set()  # folders that were asked for, whatever was found
    early: set[str] = set()  # folders that were told before their turn
    last = ""
    found = iter(find(prefix))
    for item in found:
        if item.key < last:  # not by key: by path components, as hierarchical namespaces list
            yield from _drained(waiting)
            yield item
            yield from found
            return
        last = item.key
        if early and any(item.key.startswith(folder) for folder in early):
            continue
        heapq.heappush(waiting, (tuple(item.key.split("/")), item))
        while waiting:
            folders = _folders(waiting[0][1].key, len(prefix))
            ahead = [f for f in folders if (f > last or last.startswith(f)) and f not in told]
            if not ahead:
                yield heapq.heappop(waiting)[1]
            elif len(waiting) > HELD:
                told.add(ahead[0])
                if next(iter(find(ahead[0])), None) is not None:
                    early.add(ahead[0])
                    yield from ordered(ahead[0], find)
            else:
                break
        told = {f for f in told if f > last} if len(told) > HELD else told
    yield from _drained(waiting)


def _folders(key: str, start: int) -> Iterator[str]:
    """The folders that come before ``key`` as a path and after it as a text, shortest first."""
    for at in range(start, len(key)):
        if key[at] < "/":
            yield key[:at] + "/"


def _drained(waiting: list[tuple[tuple[str, ...], Found]]) -> Iterator[Found]:
    while waiting:
        yield heapq.heappop(waiting)[1]
