"""Numbers from identities: the same for the same patient, wherever and in whatever order.

splitmix64 (Steele, Lea and Flood, OOPSLA 2014): one multiply-and-shift hash of 64 bits, so that a
split, a fold or a bootstrap weight needs no state and no order of rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]


def mixed(numbers: Words) -> Words:
    """splitmix64 of uint64 numbers, of any shape."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def words(numbers: npt.NDArray[np.int64], *, seed: int = 0) -> Words:
    """A 64-bit hash of each whole number (n,), another for another seed."""
    key = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
    return mixed(np.ascontiguousarray(numbers, np.int64).view(np.uint64) ^ key)
