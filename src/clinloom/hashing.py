"""Numbers from identities: the same for the same patient, wherever and in whatever order.

splitmix64 (Steele, Lea and Flood, OOPSLA 2014): one multiply-and-shift hash of 64 bits, so that a
split or a bootstrap weight needs no state and no order of rows. xxHash (Collet, XXH64) where Spark
computes the same itself.
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


P1, P2, P3, P4, P5 = (
    np.uint64(prime)
    for prime in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)


def xxhash64(numbers: npt.NDArray[np.int64], *, seed: int) -> Words:
    """Spark's ``xxhash64(seed, number)`` of each whole number (n,); ``seed``: 64 bits, signed."""
    key = np.array([seed], np.int64).view(np.uint64)
    begin = _xxh64(key, np.array([42], np.uint64))  # Spark's own seed
    return _xxh64(np.ascontiguousarray(numbers, np.int64).view(np.uint64), begin)


def _xxh64(numbers: Words, seed: Words) -> Words:
    """XXH64 of the eight bytes of each number."""
    z: Words = (seed + P5 + np.uint64(8)) ^ (_turned(numbers * P2, 31) * P1)
    z = _turned(z, 27) * P1 + P4
    z = (z ^ (z >> np.uint64(33))) * P2
    z = (z ^ (z >> np.uint64(29))) * P3
    return z ^ (z >> np.uint64(32))


def _turned(numbers: Words, bits: int) -> Words:
    return (numbers << np.uint64(bits)) | (numbers >> np.uint64(64 - bits))


def signed(number: int) -> int:
    """The lowest 64 bits of a whole number, as a signed one."""
    low = number & 0xFFFFFFFFFFFFFFFF
    return low - 2**64 if low >= 2**63 else low
