"""A calibration learned anew from other patients, judged on those whom it was not learned from.

Patients are in folds by a hash. For each fold the change of level, and of level and spread, that
fits the others best is learned, and which of them, if any, they ask for (the closed test of
``evaluate.update``); the fold's own risks are changed by that. The last change, of all patients, is
what another bundle gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import hashing
from clinloom.evaluate.update import Update, fullest, shift, update
from clinloom.learn.risks import Risks
from clinloom.tables import INDEX, Column, Table, matrix

FOLDS = 5
SALT = 1_000_003  # of the folds' hash, so that no bootstrap draws by the same
LEVEL = 0.05  # of the tests that the model as it is, and its slope, fit
SCORED = Table(
    "scored",
    "the moments of an external validation: what the bootstrap draws from",
    (
        INDEX.columns[0],
        Column("boolean_value", pa.bool_(), "the outcome in the time at risk", False),
        Column("values", pa.list_(pa.float64()), "risks: as it is, and recalibrated", False),
        Column("member", pa.int64(), "its subgroups, a bit each", False),
    ),
    ("subject_id",),
)
KINDS = ("intercept", "intercept and slope", "chosen")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Changes(NamedTuple):
    """What some patients ask for, by ``KINDS``."""

    intercept: Update
    both: Update
    chosen: Update


def fold_of(subject: Ints, *, seed: int) -> Ints:
    """The fold (n,) of each row's patient: 0 to ``FOLDS`` - 1."""
    words = hashing.words(np.asarray(subject, np.int64), seed=seed + SALT)
    return (hashing.mixed(words) % np.uint64(FOLDS)).astype(np.int64)


def others(folds: Sequence[Risks]) -> list[Risks]:
    """Of each fold the patients who are not in it, and last all."""
    rest = [
        Risks.merge([one for at, one in enumerate(folds) if at != fold])
        for fold in range(len(folds))
    ]
    return [*rest, Risks.merge(folds)]


def learned(sets: Sequence[Risks], spreads: Sequence[float]) -> list[Changes]:
    """What each of some sets of patients asks for.

    ``spreads``: how far sums of each vary, of independent rows'. Raises DataError where one holds
    too few outcomes.
    """
    return [
        Changes(shift(risks), fullest(risks), update(risks, spread=spread, level=LEVEL))
        for risks, spread in zip(sets, spreads, strict=True)
    ]


def residuals(scored: pa.Table, *, changes: Sequence[Update], seed: int) -> Mapping[str, pa.Table]:
    """The kernel of the spread around the changes that fit best (those of :func:`others`).

    ``scored``: SCORED of whole patients. The sum of each patient's residuals, squared, and the
    variance that independent rows would have, of each set.
    """
    subject, label, risks = rows(scored)
    fold, risk = fold_of(subject, seed=seed), risks[:, 0]
    found = []
    for at, change in enumerate(changes):
        inside = fold != at
        expected = change.of(risk[inside])
        starts = np.flatnonzero(np.diff(subject[inside], prepend=-1) != 0)
        each = np.add.reduceat(label[inside] - expected, starts) if starts.size else np.zeros(0)
        variance = float((expected * (1 - expected)).sum())
        found.append({"set": at, "square": float(each @ each), "variance": variance})
    return {"spread": pa.Table.from_pylist(found)}


def spread(tables: Sequence[pa.Table]) -> pa.Table:
    """Parts of :func:`residuals` as one."""
    found = pa.concat_tables(tables).group_by("set").aggregate([(n, "sum") for n in SUMS])
    return found.rename_columns(["set", *SUMS]).sort_by("set")


SUMS = ("square", "variance")


def spreads(found: pa.Table) -> list[float]:
    """How many times as far as independent rows' the sums of each set vary, at least 1."""
    return [
        max(1.0, row["square"] / row["variance"]) if row["variance"] > 0 else 1.0
        for row in found.to_pylist()
    ]


def refitted(scored: pa.Table, *, changes: Sequence[Changes], seed: int) -> dict[str, pa.Table]:
    """The kernel: SCORED with, behind the risk as it is, those changed by what others ask for."""
    subject, label, risks = rows(scored)
    fold, risk = fold_of(subject, seed=seed), risks[:, 0]
    told = np.repeat(risk[:, None], 1 + len(KINDS), axis=1)
    for at, of_others in enumerate(changes[:FOLDS]):
        inside = np.flatnonzero(fold == at)
        for number, change in enumerate(of_others, 1):
            told[inside, number] = change.of(risk[inside])
    return {"refitted": table(subject, label, told, scored.column("member"))}


def groups(folds: Sequence[Risks], changes: Sequence[Changes]) -> list[Risks]:
    """The groups of the risks that :func:`refitted` writes, by ``KINDS``."""
    return [
        Risks.merge(
            risks.mapped(of_others[number].of)
            for risks, of_others in zip(folds, changes, strict=False)
        ).compact()
        for number in range(len(KINDS))
    ]


def rows(scored: pa.Table) -> tuple[Ints, npt.NDArray[np.bool_], Floats]:
    """Subject and outcome (n,), and risks (n, r), of SCORED."""
    label = scored.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)
    return scored.column("subject_id").to_numpy(), label, matrix(scored)


def table(
    subject: Ints, label: npt.NDArray[np.bool_], risks: Floats, member: Ints | pa.ChunkedArray
) -> pa.Table:
    """SCORED of rows: risks (n, r)."""
    offsets = np.arange(len(risks) + 1, dtype=np.int32) * risks.shape[1]
    values = pa.ListArray.from_arrays(pa.array(offsets), pa.array(risks.ravel()))
    return pa.table([subject, label, values, member], schema=SCORED.arrow)
