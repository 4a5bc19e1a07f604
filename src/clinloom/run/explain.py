"""What the selected model leans on, from some test rows: in workers, by the exported scorer.

The rows are those with the least hashes of patient and moment, the same whatever the parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import hashing
from clinloom.deploy.scorer import Scorer
from clinloom.errors import StoreError
from clinloom.evaluate import FEWEST, importance
from clinloom.features import Feature
from clinloom.learn import preparation
from clinloom.learn.additive import Columns
from clinloom.learn.algorithm import algorithm
from clinloom.run.work import Work
from clinloom.spark import workers
from clinloom.spark.session import cores
from clinloom.store import Stored
from clinloom.store.stored import stream
from clinloom.tables import SAMPLED, matrix

SHOWN = 25  # of a kind that are told
ADDED = 200  # rows whose contributions are added up
BLOCKS = 8  # that they are added up in
SALT = 0x5EED

Floats = npt.NDArray[np.float64]


def sampled(rows: pa.Table, most: int) -> pa.Table:
    """Of test rows (DATASET), those with the least hashes (SAMPLED)."""
    subject = rows.column("subject_id").to_numpy()
    moment = rows.column("prediction_time").cast(pa.int64()).to_numpy()
    drawn = hashing.mixed(hashing.words(subject, seed=SALT) ^ hashing.words(moment))
    kept = np.argsort(drawn, kind="stable")[:most]
    table = pa.table(
        {
            "drawn": drawn[kept],
            "subject_id": subject[kept],
            "boolean_value": rows.column("boolean_value").fill_null(False).take(kept),
            "values": rows.column("values").take(kept),
        }
    )
    return table.cast(SAMPLED.arrow)


def merged(tables: Sequence[pa.Table], *, most: int) -> pa.Table:
    """Samples of rows that are apart, as one."""
    return pa.concat_tables(tables).sort_by("drawn").slice(0, most)


def explanation(
    work: Work,
    sample: Stored,
    scorer: Scorer,
    features: Sequence[Feature],
    *,
    seed: int,
    confidence: float,
) -> dict[str, Any]:
    """``rows``: how many; ``permutation``: by feature, family and code, the loss in AUROC;
    ``contributions``: the mean distance of each feature's from none, with their ``scale``.

    Empty where the sample holds too few of either class.
    """
    table = sample.read()
    positives = int(np.sum(table.column("boolean_value").to_numpy(zero_copy_only=False)))
    if min(positives, table.num_rows - positives) < FEWEST:
        return {}
    listed = list(importance.sets(features))
    parts = max(1, min(cores(work.spark), len(listed)))
    kernel = partial(
        part,
        files=[str(file) for file in sample.files()],
        scorer=scorer,
        sets=[of for *_, of in listed],
        parts=parts,
        seed=seed,
    )
    merges = {"lost": pa.concat_tables, "added": pa.concat_tables}
    found = workers.tasks(work.spark, parts, kernel, merges=merges)
    lost = {row["number"]: np.array(row["values"]) for row in found["lost"].to_pylist()}
    kinds = [(kind, name) for kind, name, _ in listed]
    out: dict[str, Any] = {
        "rows": table.num_rows,
        "permutation": importance.told(kinds, lost, most=SHOWN, confidence=confidence),
    }
    if "added" in found:
        rows = found["added"].sort_by("block").to_pylist()  # sums are the same whatever the parts
        mean = np.sum([row["values"] for row in rows], axis=0) / sum(row["rows"] for row in rows)
        out["contributions"] = {
            "scale": rows[0]["scale"],
            "rows": sum(row["rows"] for row in rows),
            "features": [
                {"name": features[at].name, "value": float(mean[at])}
                for at in np.argsort(-mean, kind="stable")[:SHOWN]
                if mean[at] > 0
            ],
        }
    return out


def part(
    number: int,
    *,
    files: Sequence[str],
    scorer: Scorer,
    sets: Sequence[Sequence[int]],
    parts: int,
    seed: int,
) -> Iterator[pa.RecordBatch]:
    """A part of the shuffles and of the rows' contributions, in a worker."""
    rows = pa.concat_tables(
        block for file in files for block in stream(file, SAMPLED.arrow.names, 1 << 14, coded=False)
    )
    label = rows.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)
    subject, values = rows.column("subject_id").to_numpy(), matrix(rows)
    x = preparation.prepare(values, scorer.statistics)
    made = importance.Shuffled(scored(scorer), x, label, subject, seed=seed)
    of = columns(scorer, values.shape[1])
    mine = range(number, len(sets), parts)
    lost = [made.lost(sorted(c for at in sets[n] for c in of[at])).tolist() for n in mine]
    yield workers.partial("lost", pa.table({"number": list(mine), "values": lost}))
    for block in range(number, BLOCKS, parts):
        added = contributions(scorer, x[:ADDED][block::BLOCKS], values.shape[1])
        if added is not None:
            told = added.append_column("block", pa.array([block]))
            yield workers.partial("added", told)


def scored(scorer: Scorer) -> importance.Score:
    """The risks (n,) of prepared rows (n, w)."""

    def score(x: Floats) -> Floats:
        raw = algorithm(scorer.model).probability(scorer.arrays, x)
        return scorer.calibrator(raw)

    return score


def columns(scorer: Scorer, features: int) -> list[list[int]]:
    """The prepared columns of each feature that the model uses: its value and its missing flag."""
    s = scorer.statistics
    used = algorithm(scorer.model).importance(scorer.arrays, s.width) != 0
    out: list[list[int]] = [[] for _ in range(features)]
    for column, feature in enumerate(np.concatenate([s.keep, s.indicator])):
        if used[column]:
            out[int(feature)].append(column)
    return out


def contributions(scorer: Scorer, x: Floats, features: int) -> pa.Table | None:
    """The sum over prepared rows of each contribution's distance from none; None of none.

    Shapley values of trees and linear models (``models._shapley``, Lundberg et al., Nat. Mach.
    Intell. 2 (2020) 56), integrated gradients of networks.
    """
    if not len(x):
        return None
    try:
        additive = algorithm(scorer.model).additive(
            scorer.arrays, Columns.of(scorer.statistics, features)
        )
    except StoreError:  # a model of an older version: it holds no covers
        return None
    found = np.abs(additive.of(x)).sum(axis=0)
    return pa.table({"values": [found.tolist()], "rows": [len(x)], "scale": [additive.scale]})
