"""Identifiers to subjects: 63 bits of xxHash64 (seed 42, as Spark's ``xxhash64``), in NumPy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from clinloom import hashing

MASK = np.uint64(0x7FFFFFFFFFFFFFFF)
FEW = 4  # texts, up to which steps over arrays do not pay
AT_ONCE = 1 << 16  # texts that are hashed at once


def subjects(identifiers: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The subject of each identifier, as int64; null for null."""
    if isinstance(identifiers, pa.ChunkedArray):
        identifiers = identifiers.unify_dictionaries().combine_chunks()
    if not isinstance(identifiers, pa.DictionaryArray):
        identifiers = identifiers.dictionary_encode()
    return pa.array(hashed(identifiers.dictionary)).take(identifiers.indices)


def hashed(texts: pa.Array) -> np.ndarray:
    """The subject of each of some texts (n,), none of them null; int64."""
    if len(texts) <= FEW:
        found = [hashing.xxhash64_one(text.encode()) for text in texts.to_pylist()]
        return (np.array(found, np.uint64) & MASK).view(np.int64)
    texts = texts.cast(pa.large_string())
    out = np.empty(len(texts), np.uint64)
    _, offsets, data = texts.buffers()
    begins = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    octets = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    lengths = np.diff(begins)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        for some in np.array_split(rows, len(rows) // AT_ONCE + 1):
            out[some] = hashing.xxhash64(octets[begins[some, None] + np.arange(length)])
    return (out & MASK).view(np.int64)
