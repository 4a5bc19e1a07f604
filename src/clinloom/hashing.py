"""Numbers from identities: the same for the same patient, wherever and in whatever order.

splitmix64 (Steele, Lea and Flood, OOPSLA 2014): one multiply-and-shift hash of 64 bits, so that a
split or a bootstrap weight needs no state and no order of rows. xxHash64 (Y. Collet) of texts, and
where Spark computes the same itself.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
CACHED = 1 << 13  # texts at once: what is made of them stays in the cache
READ = 32  # bytes of a text at once, which costs no more than eight


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


ALL = (1 << 64) - 1
SPARK = np.array([42], np.uint64)  # the seed of Spark's ``xxhash64``


def xxhash64(octets: npt.NDArray[np.uint8], *, seed: Words = SPARK) -> Words:
    """xxHash64 of texts of one length: ``octets`` is (n, length), ``seed`` (1,)."""
    length = octets.shape[1]
    done = length // 32 * 32
    found: Words
    if done:
        lanes = [np.repeat(begin, len(octets)) for begin in _begins(seed)]
        for at in range(0, done, 8):
            lanes[at // 8 % 4] = _round(lanes[at // 8 % 4], _word(octets, at, 8))
        turns = (1, 7, 12, 18)
        found = reduce(operator.add, (_turned(v, n) for v, n in zip(lanes, turns, strict=True)))
        for lane in lanes:
            found = (found ^ _round(np.zeros_like(lane), lane)) * P1 + P4
    else:
        found = np.repeat(seed + P5, len(octets))
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
    return found ^ (found >> np.uint64(32))


def xxhash64_one(octets: bytes, *, seed: int = 42) -> int:
    """xxHash64 of one text, as ``xxhash64`` has it: of few, arrays do not pay."""
    p1, p2, p3, p4, p5 = (int(prime) for prime in (P1, P2, P3, P4, P5))

    def turned(number: int, bits: int) -> int:
        return (number << bits | number >> (64 - bits)) & ALL

    def mixed(lane: int, word: int) -> int:
        return turned((lane + word * p2) & ALL, 31) * p1 & ALL

    def word(at: int, size: int) -> int:
        return int.from_bytes(octets[at : at + size], "little")

    length = len(octets)
    done = length // 32 * 32
    found = (seed + p5) & ALL
    if done:
        lanes = [(seed + begin) & ALL for begin in (p1 + p2, p2, 0, -p1)]
        for at in range(0, done, 8):
            lanes[at // 8 % 4] = mixed(lanes[at // 8 % 4], word(at, 8))
        found = sum(turned(v, n) for v, n in zip(lanes, (1, 7, 12, 18), strict=True)) & ALL
        for lane in lanes:
            found = ((found ^ mixed(0, lane)) * p1 + p4) & ALL
    found = (found + length) & ALL
    while done + 8 <= length:
        found = (turned(found ^ mixed(0, word(done, 8)), 27) * p1 + p4) & ALL
        done += 8
    if done + 4 <= length:
        found = (turned(found ^ word(done, 4) * p1 & ALL, 23) * p2 + p3) & ALL
        done += 4
    for octet in octets[done:]:
        found = turned(found ^ octet * p5 & ALL, 11) * p1 & ALL
    found = (found ^ found >> 33) * p2 & ALL
    found = (found ^ found >> 29) * p3 & ALL
    return found ^ found >> 32


def xxhash64_of(numbers: npt.NDArray[np.int64], *, seed: int) -> Words:
    """Spark's ``xxhash64(seed, number)`` of each whole number (n,); ``seed``: 64 bits, signed."""
    return xxhash64(_octets(numbers), seed=xxhash64(_octets(np.array([seed], np.int64))))


def _octets(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(numbers, "<i8").view(np.uint8).reshape(-1, 8)


def _begins(seed: Words) -> list[Words]:
    return [seed + P1 + P2, seed + P2, seed, seed - P1]


def _word(octets: npt.NDArray[np.uint8], at: int, size: int) -> Words:
    return octets[:, at : at + size].copy().view(f"<u{size}")[:, 0].astype(np.uint64)


def _round(lane: Words, word: Words) -> Words:
    return _turned(lane + word * P2, 31) * P1


def _turned(numbers: Words, bits: int) -> Words:
    return (numbers << np.uint64(bits)) | (numbers >> np.uint64(64 - bits))


class Parts(NamedTuple):
    """Texts (n,) as numbers: those of the same head differ in their ends alone, if at all."""

    head: Words  # a hash of the length and of what stands before the last eight bytes
    end: Words  # the last eight bytes, the last one highest; before a shorter text, zeros

    @property
    def whole(self) -> Words:
        """A 64-bit hash of each text."""
        return _stirred(self.head, self.end)


def parts(array: pa.Array) -> Parts:
    """A 64-bit hash of each text (n,), whole and in part; dictionary-encoded or not, null is as the
    empty one.

    That two texts share one is chance: 2^-64 for a pair, so n^2 / 2^65 for any pair of n texts
    (a million: 3e-8). It does not resist who looks for such a pair.
    """
    array = array.cast(pa.string())
    array = array.fill_null("") if array.null_count else array  # nulls may have bytes
    offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset :][: len(array) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)
    made = Parts(np.empty(len(array), np.uint64), np.empty(len(array), np.uint64))
    nothing = np.zeros(READ, np.uint8)
    for first in range(0, len(array), CACHED):
        edges = offsets[first : first + CACHED + 1].astype(np.int64)
        held = np.concatenate([nothing, data[edges[0] : edges[-1]]])
        found = _parted(held, np.diff(edges), edges[1:] - edges[0])
        for whole, part in zip(made, found, strict=True):
            whole[first : first + CACHED] = part
    return made


def _parted(held: npt.NDArray[np.uint8], length: Ints, end: Ints) -> Parts:
    """Texts that end so many bytes after the first ``READ`` ones of ``held``."""
    ending = np.ndarray((len(held) - READ + 1,), f"V{READ}", held, strides=(1,))  # at each byte
    shortest, longest = int(length.min()), int(length.max())
    found = Parts(length.view(np.uint64) * P2, np.zeros(len(end), np.uint64))
    for done in range(0, longest, 8):
        some = slice(None) if shortest > done else np.flatnonzero(length > done)
        if done % READ == 0:
            words = ending[np.maximum(end - done, 0)].view("<u8").reshape(-1, READ // 8)
        word = words[some, -1 - done % READ // 8]
        if shortest < done + 8:  # without what is another text's
            bits = (8 * np.maximum(done + 8 - length[some], 0)).view(np.uint64)
            word = (word >> bits) << bits
        if done:
            found.head[some] = _stirred(found.head[some], word)
        else:
            found.end[some] = word
    return found


def _stirred(found: Words, word: Words) -> Words:
    found = (found ^ word) * P1
    found ^= found >> np.uint64(32)
    return found


def signed(number: int) -> int:
    """The lowest 64 bits of a whole number, as a signed one."""
    low = number & 0xFFFFFFFFFFFFFFFF
    return low - 2**64 if low >= 2**63 else low
