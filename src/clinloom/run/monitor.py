"""Is a model at work still fit? Its scores, features and outcomes by period against its bundle.

Workers add up what each period and subgroup gave (``evaluate.watch``); the driver sees sums and
judges them (``evaluate.alarms``). docs/monitoring.md says what is asked and what the answers mean.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.errors import UsageError
from clinloom.evaluate import alarms, cells
from clinloom.evaluate.cells import Cells
from clinloom.evaluate.subgroups import subgroups
from clinloom.events import column, subjects, times
from clinloom.report import watched as page
from clinloom.run import feedback as answers
from clinloom.run import moments, periods
from clinloom.run.progress import Progress
from clinloom.spark import workers
from clinloom.store.stored import stream
from clinloom.tables import FEATURES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MOST = 260  # periods: five years of weeks
Ints = npt.NDArray[np.int64]


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
    given = moments.read(predictions, outcomes, features)
    if given.features is not None:
        for file in (given.features.files()[0], given.features.files()[-1]):
            for rows in islice(stream(str(file), ["values"], 1, coded=False), 1):
                moments.feature_rows(rows, len(loaded.features))
    groups = subgroups(loaded.features)
    limit = moments.last_moment(until, loaded) if until is not None else None
    with moments.session(progress, spark) as session:
        frame = moments.together(session, given, len(loaded.features), groups)
        known = moments.last_free(frame, limit)
        cut, intercept = reference.risk.cells, reference.whole.intercept
        asked: dict[str, Any] = {"by": by, "known": known, "groups": len(groups)}
        found = moments.summed(frame, given, cut, intercept, **asked)
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


def _counted(tables: Iterable[pa.Table], *, cut: Cells, by: str) -> pa.Table | None:
    """Counts of the features of a partition's moments, by period."""
    parts = [
        cut.counts(
            moments.feature_rows(rows, len(cut.edges)),
            periods.number(times(column(rows, "prediction_time")), by),
            subjects(rows),
        )
        for rows in tables
    ]
    return cells.merged(parts) if parts else None


def _day(at: int | None) -> str | None:
    """A time's day."""
    return None if at is None else str(np.datetime64(at, "us").astype("datetime64[D]"))
