"""Identifiers to subjects: 63 bits of xxHash64 (seed 42, as Spark's ``xxhash64``), in NumPy."""

from __future__ import annotations

import operator
from functools import reduce

import numpy as np
import pyarrow as pa

SEED = np.uint64(42)
MASK = np.uint64(0x7FFFFFFFFFFFFFFF)
P1, P2, P3, P4, P5 = (
    np.uint64(p)
    for p in (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )
)

AT_ONCE = 1 << 16  # texts that are hashed at once

Words = np.ndarray  # uint64 (n,)


def subjects(identifiers: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The subject of each identifier, as int64; null for null."""
    if isinstance(identifiers, pa.ChunkedArray):
        identifiers = identifiers.unify_dictionaries().combine_chunks()
    if not isinstance(identifiers, pa.DictionaryArray):
        identifiers = identifiers.dictionary_encode()
    return pa.array(hashed(identifiers.dictionary)).take(identifiers.indices)


def hashed(texts: pa.Array) -> np.ndarray:
    """The subject of each of some texts (n,), none of them null; int64."""
    texts = texts.cast(pa.large_string())
    out = np.empty(len(texts), np.uint64)
    if not len(texts):
        return out.view(np.int64)
    _, offsets, data = texts.buffers()
    begins = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    octets = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    lengths = np.diff(begins)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        for some in np.array_split(rows, len(rows) // AT_ONCE + 1):
            out[some] = _xxhash64(octets[begins[some, None] + np.arange(length)], length)
    return (out & MASK).view(np.int64)


def _xxhash64(octets: np.ndarray, length: int) -> Words:
    """xxHash64 (Y. Collet) of texts of one length: ``octets`` is (n, length)."""
    done = length // 32 * 32
    if done:
        lanes = [np.full(len(octets), s) for s in _seeds()]
        for at in range(0, done, 8):
            lanes[at // 8 % 4] = _round(lanes[at // 8 % 4], _word(octets, at, 8))
        turns = (1, 7, 12, 18)
        turned = (_turned(v, n) for v, n in zip(lanes, turns, strict=True))
        found: Words = reduce(operator.add, turned)
        for lane in lanes:
            found = (found ^ _round(np.zeros_like(lane), lane)) * P1 + P4
    else:
        found = np.full(len(octets), SEED + P5)
    found = found + np.uint64(length)
    while done + 8 <= length:
        word = _round(np.zeros_like(found), _word(octets, done, 8))
        found = _turned(found ^ word, 27) * P1 + P4
        done += 8
    if done + 4 <= length:
        found = _turned(found ^ (_word(octets, done, 4) * P1), 23) * P2 + P3
        done += 4
    for at in range(done, length):
        found = _turned(found ^ (octets[:, at].astype(np.uint64) * P5), 11) * P1
    found = (found ^ (found >> np.uint64(33))) * P2
    found = (found ^ (found >> np.uint64(29))) * P3
    mixed: Words = found ^ (found >> np.uint64(32))
    return mixed


def _seeds() -> list[np.uint64]:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        return [SEED + P1 + P2, SEED + P2, SEED, SEED - P1]


def _word(octets: np.ndarray, at: int, size: int) -> Words:
    return octets[:, at : at + size].copy().view(f"<u{size}")[:, 0].astype(np.uint64)


def _round(lane: Words, word: Words) -> Words:
    return _turned(lane + word * P2, 31) * P1


def _turned(value: Words, bits: int) -> Words:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))
