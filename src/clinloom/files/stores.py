"""The storages that this process holds open."""

from __future__ import annotations

import os
from typing import Any

from clinloom.files import options, registry
from clinloom.files.address import Address

_open: dict[tuple[Any, ...], registry.Store] = {}


def store(a: Address) -> registry.Store:
    """The open storage of an address: one in each process, never carried through a fork."""
    found = registry.driver(a.scheme)
    given = options.given(found)
    key = (os.getpid(), a.scheme, a.authority, *sorted(given.items()))
    held = _open.get(key)
    if held is None:
        held = found.connect(a.authority, options.resolved(given, a.scheme))
        _open[key] = held
    return held
