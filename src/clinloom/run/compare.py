"""A challenger beside the model at work, on moments that both scored and whose outcome counts."""

from __future__ import annotations

import datetime as dt
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.errors import DataError, UsageError
from clinloom.evaluate import FEWEST, rivals
from clinloom.evaluate.rivals import Drawn
from clinloom.events import column, numbers
from clinloom.learn.risks import Risks
from clinloom.report.figures import interval, number
from clinloom.run import moments
from clinloom.run.moments import Given
from clinloom.run.predict import keyed, regrouped
from clinloom.run.progress import Progress
from clinloom.spark import receipts, workers
from clinloom.tables import LABELS, PREDICTIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BOTH = "subject bigint, at bigint, model bigint, risk double, label boolean"
KEPT = pa.schema(
    [
        ("subject", pa.int64()),
        ("at", pa.int64()),
        ("model", pa.int64()),
        ("risk", pa.float64()),
        ("label", pa.bool_()),
    ]
)
ALL = 0  # the part of every row: of a comparison there are none
COUNTED = ("both", "bundle_alone", "challenger_alone", "known")
Floats = npt.NDArray[np.float64]


def compare(
    bundle: str,
    challenger: str,
    *,
    predictions: str,
    challenger_predictions: str,
    outcomes: str | None = None,
    until: str | None = None,
    out: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Hold a challenger's predictions against those of the model at work; ``compare.json`` below
    ``out``.

    Both scored by `clinloom score`; what counts as an outcome: as for
    :func:`clinloom.run.monitor.monitor`. Metrics at a threshold use the bundle's for both. The
    verdict is that of the Brier score: better, worse, or not told apart. Raises StoreError, and
    DataError where fewer than 5 moments have, or have not, the outcome.
    """
    one, other = Bundle.load(bundle), Bundle.load(challenger)
    if one.resolved.cohort.outcome != other.resolved.cohort.outcome:
        raise UsageError(
            "the challenger foretells another outcome, or within another time",
            where=challenger,
            mend="give a bundle for the same question",
        )
    sides = [
        moments.read(predictions, outcomes, None),
        moments.read(challenger_predictions, None, None),
    ]
    limit = moments.last_moment(until, one) if until is not None else None
    with moments.session(progress, spark) as session:
        frame, parts = _together(session, sides)
        known = moments.last_free(frame, limit)
        passed = partial(_passed, frame, known, parts)
        first = passed(_grouped, {"groups": regrouped, "counted": _added})
        counts = first["counted"].to_pylist()[0]
        of = [first["groups"].filter(pc.field("model") == at) for at in (0, 1)]
        risks = [Risks.read(groups).compact(rivals.GROUPS) for groups in of]
        _enough(risks[0])
        kernel = partial(_drawn, risks=risks, threshold=one.scorer.threshold, seed=seed)
        sums = passed(kernel, {"drawn": rivals.merged})["drawn"]
    drawn = Drawn(risks, one.scorer.threshold)
    drawn.take(sums)
    found = rivals.told(drawn.measured())
    better = found["brier"]["better"]
    record = {
        "verdict": "not told apart" if better is None else ("better" if better else "worse"),
        "bundle": one.hash,
        "challenger": other.hash,
        "threshold": one.scorer.threshold,
        "moments": counts,
        "outcomes": int(risks[0].positives),
        "metrics": found,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    told: dict[str, Any] = {"challenger": record["verdict"], "moments": counts}
    told |= {name: _line(one) for name, one in found.items()}
    if out is not None:
        at = files.folder(files.address(out)) / "compare.json"
        files.write(at, json.dumps(record, indent=1).encode())
        told["written"] = str(at)
    return told


def _line(found: dict[str, Any]) -> str:
    """A metric's difference in a line."""
    values = [number(found[key]["value"], 3) for key in ("bundle", "challenger")]
    apart = found["difference"]
    words = {None: "", True: ", better", False: ", worse"}[found["better"]]
    return f"{values[0]} → {values[1]}, {number(apart['value'], 3)} {interval(apart)}{words}"


def _together(session: SparkSession, sides: list[Given]) -> tuple[DataFrame, int]:
    """What is told of each moment by either, a patient's rows together and in order."""
    rows = 0
    frame: DataFrame | None = None
    for model, given in enumerate(sides):
        read = workers.read(session, given.predictions, PREDICTIONS)
        told = workers.by_rows(read, partial(_told, model=model), BOTH)
        frame = told if frame is None else frame.union(told)
        rows += moments.count(given)
        if given.outcomes is not None:
            labels = workers.read(session, given.outcomes, LABELS)
            frame = frame.union(workers.by_rows(labels, partial(_told, model=-1), BOTH))
    assert frame is not None  # noqa: S101 - there are two sides
    parts = max(2, -(-rows // moments.ROWS))
    return frame.repartition(parts, "subject").sortWithinPartitions("subject", "at"), parts


def _told(rows: pa.Table, *, model: int) -> pa.Table:
    table = moments.said(rows) if model >= 0 else moments.came(rows)
    model_ = pa.array(np.full(table.num_rows, model))
    return table.append_column("model", model_).select(KEPT.names).cast(KEPT)


def _passed(
    frame: DataFrame, known: int | None, parts: int, kernel: Any, merges: Any
) -> dict[str, pa.Table]:
    def work(batches: receipts.Batches) -> receipts.Batches:
        told = pa.Table.from_batches(list(batches), schema=KEPT)
        for name, table in kernel(*_paired(told, known)).items():
            yield workers.partial(name, table)

    return workers.settled(
        workers.through(frame, work, receipts.RECEIPT), None, merges, parts=parts
    )


def _paired(
    told: pa.Table, known: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], Floats, dict[str, int]]:
    """Subject, label and both risks of the moments that count, and how many there are of which."""
    subject, at, model = (told.column(name).to_numpy() for name in ("subject", "at", "model"))
    change = (subject[1:] != subject[:-1]) | (at[1:] != at[:-1])
    starts = np.flatnonzero(np.r_[True, change][: len(at)])
    risk = numbers(column(told, "risk"))
    label = told.column("label").cast(pa.int8()).fill_null(-1).to_numpy()
    both = np.full((len(starts), 2), np.nan)
    if starts.size:
        for number_ in (0, 1):
            mine = np.where(model == number_, risk, np.nan)
            both[:, number_] = np.fmax.reduceat(mine, starts)
        label = np.maximum.reduceat(label, starts)
    scored = ~np.isnan(both)
    twice = scored.all(axis=1)
    settled = at[starts] <= known if known is not None else np.zeros(len(starts), bool)
    kept = twice & (label >= 0) & settled
    of = (twice, scored[:, 0] & ~twice, scored[:, 1] & ~twice, kept)
    counted = {name: int(one.sum()) for name, one in zip(COUNTED, of, strict=True)}
    return subject[starts][kept], label[kept] > 0, both[kept], counted


def _grouped(
    subject: Any, label: Any, risk: Floats, counted: dict[str, int]
) -> dict[str, pa.Table]:
    """The kernel of the first pass: each model's groups of equal risk."""
    groups = [keyed(at, ALL, Risks.of(label, risk[:, at]).compact()) for at in (0, 1)]
    return {"groups": pa.concat_tables(groups), "counted": pa.Table.from_pylist([counted])}


def _drawn(
    subject: Any, label: Any, risk: Floats, counted: Any, *, risks: Any, threshold: float, seed: int
) -> dict[str, pa.Table]:
    """The kernel of the second pass: the replicates' sums."""
    drawn = Drawn(risks, threshold)
    drawn.add(subject, label, risk, seed=seed)
    return {"drawn": drawn.table()}


def _added(tables: list[pa.Table]) -> pa.Table:
    found = pa.concat_tables(tables)
    return pa.table({name: [pc.sum(found.column(name))] for name in COUNTED})


def _enough(risks: Risks) -> None:
    having, lacking = risks.positives, risks.rows - risks.positives
    if min(having, lacking) < FEWEST:
        raise DataError(
            f"too few outcomes are known of moments that both scored: fewer than {FEWEST} have it,"
            " or have it not",
            where="outcomes",
            mend="score the same moments by both bundles, and give what came of them",
        )
