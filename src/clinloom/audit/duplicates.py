"""Records or images that stand on both sides of the split, under two patients, by their hash.

A row counts where what it tells is too much to be the same by chance: its columns' bits (minus the
log of the probability that two rows share a value) reach those of all pairs and ten more. A code
counts once, with six bits at most, as its statistics say the same thing several times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from clinloom import hashing
from clinloom.audit import Column, Evidence, Finding
from clinloom.audit._figures import Flags, Floats, few
from clinloom.hashing import Words

TITLE = "rows whose records, or whose image measurements, are the same for patients on both sides"
BLIND = (
    "copies that differ in a value, and records too short to be told from others: a hash finds what"
    " is equal to seven digits"
)
MOST = 6.0  # bits of a code
CELLS = 1 << 22  # numbers that are held at once
MARGIN = 9.0  # bits beyond those of all rows with all rows: of a thousand studies one errs


def find(seen: Evidence) -> Iterator[Finding]:
    """A finding a kind of data of which something is doubled."""
    for kind, patients in seen.doubled.items():
        if patients:
            yield Finding(
                "duplicates",
                kind,
                f"the same {kind} stand on both sides of the split, of {few(patients)} patients",
                "the model is judged on what it has learned from",
                "link the patients' identifiers, or leave the copies out",
            )


class Telling:
    """How much each column (f,) of a sample tells of whose row it is."""

    def __init__(self, values: Floats, features: Sequence[Column]):
        codes, self.group = np.unique([f.code for f in features], return_inverse=True)
        self.codes, self.features = len(codes), features
        self.usual = np.full(len(features), np.nan)
        self.bits = np.zeros(len(features))
        for at in range(len(features)):
            column = values[:, at].astype(np.float32)
            each, count = np.unique(column[column == column], return_counts=True)
            missing = len(column) - int(count.sum())
            if not len(each):
                continue
            if count.max() > missing:
                self.usual[at] = each[count.argmax()]
                count = np.delete(count, count.argmax())
            if count.sum():
                pairs = float((count * (count - 1)).sum() / max(count.sum() - 1, 1))
                self.bits[at] = min(MOST, -math.log2(max(pairs, 1.0) / len(column)))

    def of(self, values: Floats) -> dict[str, Floats]:
        """The bits of rows (n, f) by kind of data (n,)."""
        step = max(1, CELLS // max(self.codes, 1))
        parts = [values[at : at + step] for at in range(0, max(len(values), 1), step)]
        return {
            kind: np.concatenate([self._of(part, kind) for part in parts])
            for kind in dict.fromkeys(f.modality for f in self.features)
        }

    def _of(self, values: Floats, kind: str) -> Floats:
        best = np.zeros((self.codes, len(values)))
        for at, feature in enumerate(self.features):
            if feature.modality == kind and self.bits[at]:
                column = values[:, at].astype(np.float32)
                rare = (column == column) & (column != np.float32(self.usual[at]))
                np.maximum(best[self.group[at]], rare * self.bits[at], out=best[self.group[at]])
        told: Floats = best.sum(axis=0)
        return told


def due(rows: int) -> float:
    """How many bits one of so many rows owes, to be the same as another by no chance."""
    return 2 * math.log2(max(rows, 1)) + MARGIN


def digests(values: Floats, use: Flags) -> Words:
    """A 64-bit hash of each row's numbers in single precision (n,) over the columns ``use``."""
    part = np.ascontiguousarray(values[:, use], np.float32) + np.float32(0.0)
    part[part != part] = np.nan  # one of its many bit patterns
    bits = part.view(np.uint32).astype(np.uint64)
    column = np.arange(bits.shape[1], dtype=np.uint64) << np.uint64(32)
    whole: Words = hashing.mixed(hashing.mixed(bits | column).sum(axis=1, dtype=np.uint64))
    return whole
