"""Is a model at work still fit? Its scores, features and outcomes by period against its bundle.

Workers add up what each period and subgroup gave (``evaluate.watch``); the driver sees sums and
judges them (``evaluate.alarms``). docs/monitoring.md says what is asked and what the answers mean.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.errors import DataError, StoreError, UsageError
from clinloom.evaluate import alarms, cells, watch
from clinloom.evaluate.cells import Cells
from clinloom.evaluate.watch import Rows
from clinloom.events import column, numbers, subjects, times
from clinloom.files import Address
from clinloom.report import watched as page
from clinloom.run import feedback as answers
from clinloom.run import periods
from clinloom.run.progress import Progress
from clinloom.run.reference import Group, members, subgroups
from clinloom.run.score import BESIDE, CODES
from clinloom.spark import receipts, workers
from clinloom.store import Part, Stored
from clinloom.store.stored import opened, read, stream
from clinloom.tables import FEATURES, LABELS, PREDICTIONS, SEEN, Table, matrix

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MOST = 260  # periods: five years of weeks
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


def monitor(
    bundle: str,
    *,
    predictions: str,
    outcomes: str | None = None,
    features: str | None = None,
    feedback: str | None = None,
    by: str = "month",
    until: str | None = None,
    level: float = 0.05,
    out: str | None = None,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Judge a model at work; write ``monitor.json`` and ``monitor.html`` below ``out``.

    ``predictions``: Parquet as ``clinloom score`` writes it, a file or a folder of such;
    ``outcomes``: LABELS, or a later scoring of the same moments (without: what the predictions
    themselves tell); ``features``: what ``score --features`` wrote (without: the folder beside the
    predictions, where there is one); ``feedback``: CDS Hooks' feedback, a JSON object a line.

    An outcome counts where its time at risk has wholly passed: at moments no later than the last
    one known to be free of it, and where ``until`` (a date or time up to which the data reach, UTC)
    is given, those whose time at risk ends by then. ``level``: the chance that a report raises any
    alarm though nothing changed. Raises StoreError, DataError, UsageError.
    """
    if by not in periods.BY:
        raise UsageError(f"--by is one of {', '.join(periods.BY)}")
    if not 0 < level < 1:
        raise UsageError("--false-alarms lies between 0 and 1")
    loaded = Bundle.load(bundle)
    reference = loaded.reference
    given = _given(predictions, outcomes, features)
    if given.features is not None:
        for file in (given.features.files()[0], given.features.files()[-1]):
            for rows in islice(stream(str(file), ["values"], 1, coded=False), 1):
                _values(rows, len(loaded.features))
    groups = subgroups(loaded.features)
    limit = _until(until, loaded) if until is not None else None
    with ExitStack() as held:
        from clinloom.spark import waiting
        from clinloom.spark.session import settled

        note = (progress or Progress(form="quiet")).note
        session = held.enter_context(waiting.started(note, spark))
        held.enter_context(settled(session, note=note))
        frame = _moments(session, given, len(loaded.features), groups)
        known = _settled(frame, limit)
        found = _summed(frame, given, reference, by=by, known=known, groups=len(groups))
        counts = None
        if given.features is not None:
            counted = partial(_counted, cut=reference.features.cells, by=by)
            rows = workers.read(session, given.features, FEATURES)
            parts = len(given.features.parts)
            counts = workers.summed(rows, counted, cells.merged, parts=parts)
    keys = [key for key in found["counted"].column("key").to_pylist() if key >= 0]
    if len(keys) > MOST:
        raise UsageError(
            f"there are {len(keys):,} periods, and at most {MOST} can be told apart",
            mend="give the predictions of fewer years"
            + (", or --by month" if by == "week" else ""),
        )
    verdict = alarms.judge(
        reference,
        found,
        labels={key: periods.label(key, by) for key in keys},
        groups=[group.name for group in groups],
        features=counts,
        codes=given.codes,
        level=level,
    )
    verdict |= {
        "bundle": loaded.hash,
        "study": loaded.study["name"],
        "model": loaded.scorer.model,
        "threshold": loaded.scorer.threshold,
        "by": by,
        "outcomes_until": _day(known),
        "feedback": answers.counted(files.address(feedback), by) if feedback else None,
        "reference": reference.whole.plain() | {"auroc": reference.whole.auroc},
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    return _shown(verdict, out)


def _shown(verdict: dict[str, Any], out: str | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "verdict": "alarm" if verdict["alarms"] else "no alarm",
        "alarms": list(page.lines(verdict["alarms"])),
    }
    if out is not None:
        at = files.folder(files.address(out))
        files.write(at / "monitor.json", json.dumps(verdict, indent=1).encode())
        files.write(at / "monitor.html", page.render(verdict).encode())
        told["report"] = str(at / "monitor.html")
    return told


def _given(predictions: str, outcomes: str | None, features: str | None) -> Given:
    at = files.address(predictions)
    scored = [file for file in _parquet(at) if f"{BESIDE}/" not in file]
    if features:
        told = _parquet(features)
    else:  # beside the one file of the scores, or of each in the folder
        told = [
            file for file in (*_parquet(f"{at}{BESIDE}"), *_parquet(at)) if f"{BESIDE}/" in file
        ]
    codes = [read(str(file)).cast(SEEN.arrow) for file in told if file.name == CODES]
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
        held = opened(str(file), None, coded=False).schema_arrow.names
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


def _until(text: str, loaded: Bundle) -> int:
    """The last moment whose time at risk ends by a date, in microseconds."""
    try:
        end = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--until '{text}' is no date", mend="--until 2026-03-31") from None
    end = end.replace(tzinfo=end.tzinfo or dt.UTC)
    whole = round(end.timestamp() * 1_000_000)
    return whole - int(loaded.resolved.cohort.outcome.within)


def _moments(session: SparkSession, given: Given, width: int, groups: Sequence[Group]) -> DataFrame:
    """All that is told of each moment, a row a telling, with a patient's rows together."""
    frame = workers.by_rows(workers.read(session, given.predictions, PREDICTIONS), _said, MOMENT)
    if given.outcomes is not None:
        labels = workers.read(session, given.outcomes, LABELS)
        frame = frame.union(workers.by_rows(labels, _came, MOMENT))
    if given.features is not None and groups:
        rows = workers.read(session, given.features, FEATURES)
        kernel = partial(_belongs, groups=list(groups), width=width)
        frame = frame.union(workers.by_rows(rows, kernel, MOMENT))
    return frame


def _said(rows: pa.Table) -> pa.Table:
    """Predictions as tellings."""
    risk, flag = "predicted_boolean_probability", "predicted_boolean_value"
    return _telling(
        rows, risk=rows.column(risk), flagged=rows.column(flag), label=rows.column("boolean_value")
    )


def _came(rows: pa.Table) -> pa.Table:
    """Outcomes as tellings."""
    return _telling(rows, label=rows.column("boolean_value"))


def _belongs(rows: pa.Table, *, groups: Sequence[Group], width: int) -> pa.Table:
    """Memberships of subgroups as tellings, bit by bit."""
    values = _values(rows, width)
    bits = members(values, groups) @ (np.int64(1) << np.arange(len(groups), dtype=np.int64))
    return _telling(rows, member=pa.array(bits))


def _values(rows: pa.Table, width: int) -> npt.NDArray[np.float64]:
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


def _settled(frame: DataFrame, limit: int | None) -> int | None:
    """The last moment whose outcome counts: of those known to be free of it, the last."""
    from pyspark.sql import functions as F

    free = F.max(F.when(~F.col("label"), F.col("at"))).alias("free")
    last: int | None = frame.agg(free).collect()[0]["free"]
    return last if limit is None or last is None else min(last, limit)


def _summed(
    frame: DataFrame,
    given: Given,
    reference: watch.Reference,
    *,
    by: str,
    known: int | None,
    groups: int,
) -> dict[str, pa.Table]:
    """The merged sums of all moments; a patient's are together in one worker."""
    rows = sum(
        opened(str(f), None, coded=False).metadata.num_rows for f in given.predictions.files()
    )
    parts = max(2, -(-rows // ROWS))
    whole = frame.repartition(parts, "subject").sortWithinPartitions("subject", "at")
    cut, intercept = reference.risk.cells, reference.whole.intercept
    intercept = intercept if np.isfinite(intercept) else 0.0

    def work(batches: receipts.Batches) -> receipts.Batches:
        told = pa.Table.from_batches(list(batches), schema=KEPT)
        made = _rows(told, by=by, known=known, groups=groups)
        for name, table in watch.sums(made, cut, intercept).items():
            yield workers.partial(name, table)

    made = workers.through(whole, work, receipts.RECEIPT)
    found = workers.settled(made, None, watch.MERGES, parts=parts)
    if not found["counted"].num_rows:
        raise DataError("there is no prediction", where=str(given.predictions.place))
    return found


def _rows(told: pa.Table, *, by: str, known: int | None, groups: int) -> Rows:
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
    bits = member[:, None] >> np.arange(groups, dtype=np.int64) & 1
    settled = at <= known if known is not None else np.zeros(len(at), bool)
    return Rows(
        subject,
        periods.number(at, by),
        risk,
        flagged[scored] > 0,
        label > 0,
        (label >= 0) & settled,
        bits.astype(bool),
    )


def _counted(tables: Iterable[pa.Table], *, cut: Cells, by: str) -> pa.Table | None:
    """Counts of the features of a partition's moments, by period."""
    parts = [
        cut.counts(
            _values(rows, len(cut.edges)),
            periods.number(times(column(rows, "prediction_time")), by),
            subjects(rows),
        )
        for rows in tables
    ]
    return cells.merged(parts) if parts else None


def _day(at: int | None) -> str | None:
    """A time's day."""
    return None if at is None else str(np.datetime64(at, "us").astype("datetime64[D]"))
