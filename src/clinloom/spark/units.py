"""Units of work on their way to workers: written to the store once, read there one by one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from clinloom import files
from clinloom.files import Address


class Spool:
    """Any number of units (plain data) in one file; the driver holds eight bytes of each."""

    def __init__(self, place: Address, units: Iterable[Any]):
        self.place = place
        ends = [0]
        with files.building(place) as path, open(path, "wb") as file:
            for unit in units:
                ends.append(ends[-1] + file.write(json.dumps(unit).encode()))
        self.ends = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def unit(self, number: int) -> Any:
        """One unit, in a worker."""
        start, stop = (int(self.ends[number + n]) for n in (0, 1))
        return json.loads(files.read(self.place, start, stop))
