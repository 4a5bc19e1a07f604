"""What only the holder of an output may do: replace a file in it, and take files away.

``check`` raises where the output is another run's by now. It comes right before the step that it
guards; what a process that is frozen between the two may still do is harmless, as told below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from clinloom import files
from clinloom.errors import StoreError
from clinloom.files import Address, Entry
from clinloom.store.lease import BUSY, MEND

Check = Callable[[], None]
BATCH = 500  # files that are listed before the output is asked for once more


def replace(place: Address, data: bytes, check: Check) -> None:
    """Replace the file as it is now, and no later one. Raises StoreError where it changed."""
    seen = files.version(place)
    check()
    if files.swap(place, data, seen) is None:
        raise StoreError(BUSY, where=str(place), mend=MEND)


def sweep(found: Iterable[Entry], check: Check) -> tuple[int, int]:
    """Remove the files; how many they were, and their bytes.

    A batch is listed, then checked, then removed: attempts have names of their own, so what was
    listed while the output was ours is no other run's, whoever holds it when it is removed.
    """
    count = size = 0
    listed = iter(found)
    while batch := list(islice(listed, BATCH)):
        check()
        for entry in batch:
            files.remove(entry.address)
        count, size = count + len(batch), size + sum(entry.size for entry in batch)
    return count, size
