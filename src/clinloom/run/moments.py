"""What is told of scored moments, from Parquet of any making: risks, outcomes, memberships; summed.

A telling is a row; workers bring a patient's together, one scored moment is made of those of one
time, and sums come back (``evaluate.watch``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.errors import DataError, StoreError, UsageError
from clinloom.evaluate import watch
from clinloom.evaluate.cells import Cells
from clinloom.evaluate.subgroups import Group, bits, members, unpacked
from clinloom.evaluate.watch import Rows
from clinloom.events import column, numbers, times
from clinloom.files import Address
from clinloom.run import periods
from clinloom.run.progress import Progress
from clinloom.run.score import BESIDE, CODES
from clinloom.spark import receipts, workers
from clinloom.store import Part, Stored, stored
from clinloom.tables import FEATURES, LABELS, PREDICTIONS, SEEN, Table, matrix

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = 1_000_000  # scored moments that a worker holds at once, about
MOMENT = "subject bigint, at bigint, risk double, flagged boolean, label boolean, member bigint"
KEPT = pa.schema(
    [
        ("subject", pa.int64()),
        ("at", pa.int64()),
        ("risk", pa.float64()),
        ("flagged", pa.bool_()),
        ("label", pa.bool_()),
        ("member", pa.int64()),
    ]
)
Ints = npt.NDArray[np.int64]


class Given(NamedTuple):
    """What is watched: scores, outcomes, features of the same moments, codes and units."""

    predictions: Stored
    outcomes: Stored | None
    features: Stored | None
    codes: pa.Table | None


@contextmanager
def session(progress: Progress | None, spark: SparkSession | None) -> Iterator[SparkSession]:
    """The session, or one that is started, with the settings that it needs; the caller's own are
    the caller's again afterwards."""
    from clinloom.spark import waiting
    from clinloom.spark.session import settled

    note = (progress or Progress(form="quiet")).note
    with waiting.started(note, spark) as started, settled(started, note=note):
        yield started


def read(predictions: str, outcomes: str | None, features: str | None) -> Given:
    """What lies at these addresses; features, where none is given, beside the scores."""
    at = files.address(predictions)
    scored = [file for file in _parquet(at) if f"{BESIDE}/" not in file]
    if features:
        told = _parquet(features)
    else:  # beside the one file of the scores, or of each in the folder
        told = [
            file for file in (*_parquet(f"{at}{BESIDE}"), *_parquet(at)) if f"{BESIDE}/" in file
        ]
    codes = [stored.read(str(file)).cast(SEEN.arrow) for file in told if file.name == CODES]
    moments = [file for file in told if file.name != CODES]
    return Given(
        _stored(scored, at, PREDICTIONS),
        _stored(_parquet(outcomes), outcomes, LABELS) if outcomes else None,
        _stored(moments, features or at, FEATURES) if moments or features else None,
        _most(codes) if codes else None,
    )


def _parquet(place: files.Where) -> list[Address]:
    """The Parquet files at and below an address."""
    found = (entry.address for entry in files.listed(place))
    return [a for a in found if a.name.endswith(".parquet") and not a.name.startswith(".")]


def _stored(found: Sequence[Address], place: files.Where, table: Table) -> Stored:
    """Parquet files as a table. Raises StoreError where there is none, or a column is absent."""
    if not found:
        raise StoreError("no Parquet file is here", where=str(place))
    for file in dict.fromkeys((found[0], found[-1])):
        held = stored.opened(str(file), None, coded=False).schema_arrow.names
        if table is PREDICTIONS and "withdrawn" in held:
            raise StoreError(
                "these are a stream's, of which only the last version of each moment counts",
                where=str(file),
                mend="write those that are not withdrawn to a file without the columns version and"
                " withdrawn",
            )
        for name in table.arrow.names:
            if name not in held:
                wanted = ", ".join(table.arrow.names)
                mend = f"give Parquet with the columns {wanted}"
                raise StoreError(f"column '{name}' is absent", where=str(file), mend=mend)
    root = files.address(place).parent
    parts = tuple(Part(file.relative_to(root)) for file in found)
    return Stored(table.name, root, "", None, parts)


def _most(tables: Sequence[pa.Table]) -> pa.Table:
    """SEEN of several scorings, whose patients may be the same: the most that one of them saw."""
    found = pa.concat_tables(tables).group_by(["code", "unit"]).aggregate([("patients", "max")])
    return found.rename_columns(SEEN.arrow.names).cast(SEEN.arrow)


def last_moment(text: str, loaded: Bundle) -> int:
    """The last moment whose time at risk ends by a date, in microseconds."""
    try:
        end = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--until '{text}' is no date", mend="--until 2026-03-31") from None
    end = end.replace(tzinfo=end.tzinfo or dt.UTC)
    whole = round(end.timestamp() * 1_000_000)
    return whole - int(loaded.resolved.cohort.outcome.within)


def together(session: SparkSession, given: Given, width: int, groups: Sequence[Group]) -> DataFrame:
    """All that is told of each moment, a row a telling, with a patient's rows together."""
    frame = workers.by_rows(workers.read(session, given.predictions, PREDICTIONS), said, MOMENT)
    if given.outcomes is not None:
        labels = workers.read(session, given.outcomes, LABELS)
        frame = frame.union(workers.by_rows(labels, came, MOMENT))
    if given.features is not None and groups:
        rows = workers.read(session, given.features, FEATURES)
        kernel = partial(_belongs, groups=list(groups), width=width)
        frame = frame.union(workers.by_rows(rows, kernel, MOMENT))
    return frame


def said(rows: pa.Table) -> pa.Table:
    """Predictions as tellings."""
    risk, flag = "predicted_boolean_probability", "predicted_boolean_value"
    return _telling(
        rows, risk=rows.column(risk), flagged=rows.column(flag), label=rows.column("boolean_value")
    )


def came(rows: pa.Table) -> pa.Table:
    """Outcomes as tellings."""
    return _telling(rows, label=rows.column("boolean_value"))


def _belongs(rows: pa.Table, *, groups: Sequence[Group], width: int) -> pa.Table:
    """Memberships of subgroups as tellings, bit by bit."""
    values = feature_rows(rows, width)
    return _telling(rows, member=pa.array(bits(members(values, groups))))


def feature_rows(rows: pa.Table, width: int) -> npt.NDArray[np.float64]:
    """The features (n, f). Raises DataError where they are not the bundle's."""
    values = matrix(rows)
    if rows.num_rows and values.shape[1] != width:
        raise DataError(
            f"a row has {values.shape[1]:,} features, and the bundle has {width:,}",
            where="features",
            mend="give the features that `clinloom score --features` wrote by this bundle",
        )
    return np.asarray(values, np.float64).reshape(rows.num_rows, width)


def _telling(rows: pa.Table, **told: Any) -> pa.Table:
    at = pa.array(times(column(rows, "prediction_time")))
    told = {"subject": rows.column("subject_id"), "at": at, **told}
    empty = {f.name: pa.nulls(rows.num_rows, f.type) for f in KEPT}
    return pa.table([(empty | told)[name] for name in KEPT.names], names=KEPT.names).cast(KEPT)


def count(given: Given) -> int:
    """How many predictions there are."""
    found = (stored.opened(str(f), None, coded=False) for f in given.predictions.files())
    return sum(one.metadata.num_rows for one in found)


def last_free(frame: DataFrame, limit: int | None) -> int | None:
    """The last moment whose outcome counts: of those known to be free of it, the last."""
    from pyspark.sql import functions as F

    free = F.max(F.when(~F.col("label"), F.col("at"))).alias("free")
    last: int | None = frame.agg(free).collect()[0]["free"]
    return last if limit is None or last is None else min(last, limit)


def summed(
    frame: DataFrame,
    given: Given,
    cut: Cells,
    intercept: float,
    *,
    by: str | None,
    known: int | None,
    groups: int,
    changed: Callable[[Rows], Rows] | None = None,
) -> dict[str, pa.Table]:
    """The merged sums of all moments; a patient's are together in one worker.

    ``by``: their periods, None: all are of one, numbered 0; ``changed``: what is done to a worker's
    moments first.
    """
    parts = max(2, -(-count(given) // ROWS))
    whole = frame.repartition(parts, "subject").sortWithinPartitions("subject", "at")
    start = intercept if np.isfinite(intercept) else 0.0

    def work(batches: receipts.Batches) -> receipts.Batches:
        told = pa.Table.from_batches(list(batches), schema=KEPT)
        made = of_tellings(told, by=by, known=known, groups=groups)
        made = changed(made) if changed is not None else made
        for name, table in watch.sums(made, cut, start).items():
            yield workers.partial(name, table)

    made = workers.through(whole, work, receipts.RECEIPT)
    found = workers.settled(made, None, watch.MERGES, parts=parts)
    if not found["counted"].num_rows:
        raise DataError("there is no prediction", where=str(given.predictions.place))
    return found


def of_tellings(told: pa.Table, *, by: str | None, known: int | None, groups: int) -> Rows:
    """Tellings (KEPT, by subject and time) as scored moments, one each; the highest risk counts."""
    subject, at = (told.column(name).to_numpy() for name in ("subject", "at"))
    starts = np.flatnonzero(
        np.r_[True, (subject[1:] != subject[:-1]) | (at[1:] != at[:-1])][: len(at)]
    )
    risk = numbers(column(told, "risk"))
    flagged, label = (
        told.column(name).cast(pa.int8()).fill_null(-1).to_numpy() for name in ("flagged", "label")
    )
    member = told.column("member").fill_null(0).to_numpy()
    if starts.size:
        risk, label = np.fmax.reduceat(risk, starts), np.maximum.reduceat(label, starts)
        flagged, member = (
            np.maximum.reduceat(flagged, starts),
            np.bitwise_or.reduceat(member, starts),
        )
    scored = np.flatnonzero(~np.isnan(risk))
    subject, at, risk = subject[starts][scored], at[starts][scored], risk[scored]
    label, member = label[scored], member[scored]
    settled = at <= known if known is not None else np.zeros(len(at), bool)
    return Rows(
        subject,
        periods.number(at, by) if by else np.zeros(len(at), np.int64),
        risk,
        flagged[scored] > 0,
        label > 0,
        (label >= 0) & settled,
        unpacked(member, groups),
    )
