"""One bucket a partition, exactly: keys whose hash falls where it should.

Spark's ``repartition(n, key)`` puts a row on partition ``pmod(murmur3(key), n)`` (Murmur3_x86_32
of the int, seed 42: https://github.com/aappleby/smhasher, public domain). Bare bucket numbers would
share partitions and leave others empty.
"""

from __future__ import annotations

import numpy as np

SEED = 42


def hashed(keys: np.ndarray) -> np.ndarray:
    """Spark's ``hash`` of int32 keys (n,): int32."""
    with np.errstate(over="ignore"):
        k = keys.astype(np.int32).view(np.uint32) * np.uint32(0xCC9E2D51)
        k = (k << np.uint32(15)) | (k >> np.uint32(17))
        k = k * np.uint32(0x1B873593)
        h = np.uint32(SEED) ^ k
        h = (h << np.uint32(13)) | (h >> np.uint32(19))
        h = h * np.uint32(5) + np.uint32(0xE6546B64)
        h = h ^ np.uint32(4)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        return (h ^ (h >> np.uint32(16))).view(np.int32)


def keys(partitions: int) -> list[int]:
    """For each partition, a key that Spark puts there."""
    out = np.full(partitions, -1, np.int64)
    tried = 0
    while (out < 0).any():
        some = np.arange(tried, tried + 16 * partitions + 64)
        place = np.mod(hashed(some), partitions)
        found, first = np.unique(place, return_index=True)
        new = out[found] < 0
        out[found[new]] = some[first[new]]
        tried += len(some)
    return out.tolist()
