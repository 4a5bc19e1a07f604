"""A model at work told what came of its predictions: its calibration, learned anew.

Sums of all moments come back from the workers, as for ``clinloom monitor``; what they ask to change
is decided by ``evaluate.update``. The order of risks stays, so that discrimination does, too.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from clinloom import files
from clinloom.deploy import bundle as bundles
from clinloom.deploy.bundle import Bundle
from clinloom.errors import UsageError
from clinloom.evaluate import watch
from clinloom.evaluate.cells import Cells
from clinloom.evaluate.subgroups import subgroups
from clinloom.evaluate.update import Update, fullest, update
from clinloom.evaluate.watch import Reference, Rows, Seen
from clinloom.files import Address
from clinloom.run import moments
from clinloom.run.progress import Progress
from clinloom.run.reference import held_out

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CHAIN = "recalibrated"  # the document's list of recalibrations, the last one last
OWN = ("format", "parts", "study", "features", "units")  # what publishing writes itself


def recalibrate(
    bundle: str,
    *,
    predictions: str,
    out: str,
    outcomes: str | None = None,
    features: str | None = None,
    until: str | None = None,
    level: float = 0.05,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Learn a model's calibration anew from outcomes; write its bundle, with another one, to
    ``out``, where the outcomes ask for that.

    ``predictions`` of this very bundle, ``outcomes``, ``features`` and ``until``: as for
    :func:`clinloom.run.monitor.monitor`, and the same outcomes count. ``level``: of the tests that
    the model as it is, and its slope, fit. The threshold stays the risk that it was. The new bundle
    is watched by these rows from then on, and holds no saved ``PipelineModel``: Spark scores by it
    as without Spark. Raises StoreError, DataError, UsageError.
    """
    if not 0 < level < 1:
        raise UsageError("--level lies between 0 and 1")
    loaded = Bundle.load(bundle)
    target = place(out, loaded)
    reference, scorer = loaded.reference, loaded.scorer
    given = moments.read(predictions, outcomes, features)
    groups = subgroups(loaded.features)
    limit = moments.last_moment(until, loaded) if until is not None else None
    with moments.session(progress, spark) as session:
        frame = moments.together(session, given, len(loaded.features), groups)
        known = moments.last_free(frame, limit)
        asked: dict[str, Any] = {"by": None, "known": known, "groups": len(groups)}
        cut = reference.risk.cells

        def summed(change: Update | None) -> Mapping[str, pa.Table]:
            if change is None:
                return moments.summed(frame, given, cut, 0.0, **asked)
            shift = partial(changed, change=change, threshold=scorer.threshold)
            return moments.summed(frame, given, moved(cut, change), 0.0, **asked, changed=shift)

        of, found, sums = decided(summed, level=level)
        told: dict[str, Any] = {
            "method": found.method,
            "intercept": found.intercept,
            "slope": found.slope,
            "any_change_p": found.any_change,
            "slope_change_p": found.slope_change,
            "moments": of.known,
            "outcomes": of.positive,
        }
        if found.method == "none":
            return {"verdict": "the model fits as it is: no bundle is written", **told}
        seen = replace(reference, **held_out(moved(cut, found), sums, groups))
    publish(target, loaded, found, seen, told)
    return {"verdict": "recalibrated", **told, "bundle": str(target)}


def place(out: str, bundle: Bundle, *, option: str = "--out") -> Address:
    """Where another bundle may be written. Raises UsageError where it would take away others."""
    target = files.address(out)
    if target == bundle.place:
        raise UsageError(
            f"{option} is the bundle itself",
            where=option,
            mend="give another address, so that the model as it was can be gone back to",
        )
    if not files.exists(target / bundles.DOCUMENT) and any(True for _ in files.listed(target)):
        raise UsageError(
            f"{option} holds other files and no bundle: what is not the bundle's own is taken away",
            where=option,
            mend="give an address where nothing is, or a bundle that may be replaced",
        )
    return target


def publish(
    target: Address, bundle: Bundle, change: Update, seen: Reference, told: Mapping[str, Any]
) -> None:
    """Write the bundle with another calibration. ``seen``: the rows that it was learned from;
    ``told``: what is told of the change."""
    changed = bundle.scorer.calibrator.then(change.slope, change.intercept)
    made = replace(bundle.scorer, **vars(changed))
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    link = {**told, "from": bundle.hash, "created": now}
    kept = {key: value for key, value in bundle.document.items() if key not in OWN}
    bundles.publish(
        target,
        scorer=made,
        study=bundle.study,
        features=bundle.features,
        units=bundle.units,
        reference=json.dumps(seen.plain()),
        evidence={**kept, CHAIN: [*kept.get(CHAIN, ()), link]},
        check=lambda: None,
    )


def decided(
    summed: Callable[[Update | None], Mapping[str, pa.Table]], *, level: float
) -> tuple[Seen, Update, Mapping[str, pa.Table]]:
    """What is known, the change that it asks for, and the sums of the rows so changed.

    ``summed``: the sums of all rows (``watch.sums``), as they are or changed. How much outcomes of
    a patient go together is told around the risks that fit best: around those that do not fit,
    whatever is wrong with the model would look like it, and be left as it is.
    """
    before = watch.seen(summed(None))[0][0]
    full = fullest(before.risks)
    sums = summed(full)
    found = update(before.risks, spread=watch.seen(sums)[1], level=level)
    return before, found, summed(found) if found.method == "intercept" else sums


def moved(cut: Cells, change: Update) -> Cells:
    """Cells of risks, cut where the risks so cut are after a change."""
    return Cells(change.of(cut.edges.ravel()).reshape(cut.edges.shape))


def changed(rows: Rows, *, change: Update, threshold: float) -> Rows:
    """Moments with their risks changed; the threshold stays the risk that it was."""
    risk = change.of(rows.risk)
    return rows._replace(risk=risk, flagged=risk >= threshold)
