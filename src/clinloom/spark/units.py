"""Units of work on their way to workers: written to the store once, read there one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

import msgspec
import numpy as np

from clinloom import files
from clinloom.errors import UsageError
from clinloom.files import Address


class Spool:
    """Any number of units in one file; the driver holds eight bytes of each.

    A unit is plain data in which frozen dataclasses of plain data may stand, of any package: the
    file holds their fields (MessagePack) and names no code; their classes travel with the task.
    """

    def __init__(self, place: Address, units: Iterable[Any]):
        self.place = place
        self.kinds: list[type] = []
        ends = [0]
        with files.building(place) as path, open(path, "wb") as file:
            for unit in units:
                ends.append(ends[-1] + file.write(self._packed(unit)))
        self.ends = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def unit(self, number: int) -> Any:
        """One unit, in a worker."""
        start, stop = (int(self.ends[number + n]) for n in (0, 1))
        return msgspec.msgpack.decode(files.read(self.place, start, stop), ext_hook=self._made)

    def _packed(self, unit: Any) -> bytes:
        try:
            return _encoded(self._plain(unit))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"a unit cannot be handed to workers: {error}",
                mend="let the source plan frozen dataclasses of plain data",
            ) from None

    def _plain(self, part: Any) -> Any:
        if is_dataclass(part):
            kind = type(part)
            if kind not in self.kinds:
                self.kinds.append(kind)
            return msgspec.msgpack.Ext(self.kinds.index(kind), _encoded(part))
        if isinstance(part, Mapping):
            return {name: self._plain(value) for name, value in part.items()}
        return [self._plain(p) for p in part] if isinstance(part, (list, tuple)) else part

    def _made(self, code: int, data: memoryview) -> Any:
        return msgspec.msgpack.decode(data, type=self.kinds[code])


def _encoded(part: Any) -> bytes:
    return msgspec.msgpack.encode(part, enc_hook=_text)


def _text(value: Any) -> str:
    """A text of a kind of its own, such as an address, as the text that it is."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"it holds a {type(value).__name__}")
