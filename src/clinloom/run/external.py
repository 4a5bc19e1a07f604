"""External validation: a bundle on patients from elsewhere, whose outcomes are known.

The same road as scoring's, to the same numbers; but the moments are those of the study's cohort, as
in training: who has no known outcome is left out. docs/external_validation.md says what is told and
how to read it.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clinloom import clean as cleaning
from clinloom import files
from clinloom.deploy.bundle import Bundle
from clinloom.errors import UsageError
from clinloom.evaluate import casemix
from clinloom.files import Address
from clinloom.report import external as page
from clinloom.run import elsewhere, foreign, record
from clinloom.run import recalibrate as recalibrating
from clinloom.run import score as scoring
from clinloom.run.crossfit import KINDS, Changes
from clinloom.run.elsewhere import Found
from clinloom.run.progress import Progress
from clinloom.run.work import Tables, Work
from clinloom.store.layout import MANIFEST, REPORT
from clinloom.study import Study

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DOCUMENT = "external.json"
ENOUGH = 100  # moments with the outcome, and without
WIDE = (
    f"Fewer than {ENOUGH} moments here have, or have not, the outcome, which gives wide intervals"
    " (Collins et al., Stat Med 2016)."
)
SAME = (
    "No source was led elsewhere (--set sources.NAME.path=…): are these other patients than those"
    " whom the model was learned from?"
)


def validate_external(
    bundle: str,
    *,
    out: str,
    overrides: Sequence[str] = (),
    recalibrate: bool = False,
    recalibrated: str | None = None,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Judge a bundle on other patients; write ``report.html`` and ``external.json`` below ``out``.

    ``overrides`` lead the study's sources there (``sources.NAME.path=…``; set to null: left out).
    ``recalibrate``: also learn the calibration anew, judged by cross-fitting; ``recalibrated``:
    where the bundle so changed is written, where these outcomes ask for a change. All places are
    addresses. Who validated what, and when, stays in the folder ``<out>.audit``. Raises StudyError,
    SourceError, DataError, StoreError, UsageError.
    """
    target = files.address(out)
    files.use({**files.settings(), **scoring.storage(overrides)})
    loaded = Bundle.load(bundle)
    _free(target, loaded)
    place = recalibrating.place(recalibrated, loaded, option="--bundle") if recalibrated else None
    if place is not None and place in (target, target.parent / f"{target.name}.audit"):
        raise UsageError("it is where the report goes", where="--bundle", mend="give another")
    loaded.reference  # noqa: B018 - a bundle that keeps none is refused before anything is read
    study = scoring.study_of(loaded.study, overrides)
    asked: dict[str, Any] = {"progress": progress, "spark": spark}
    with scoring.at_work("validate", loaded, study, target, **asked) as work:
        acquired, events, counts = scoring.cleaned(work, loaded, target)
        found = elsewhere.moments(work, loaded, acquired, events)
        learned = elsewhere.recalibration(work, found) if recalibrate or place is not None else None
        changes = learned if isinstance(learned, list) else []
        judged = elsewhere.judgement(work, loaded, found, changes)
        told = _record(work, loaded, found, judged, learned)
        told |= _taken(study, found.counted, acquired, events, counts, overrides)
        if place is not None and changes and changes[-1].chosen.method != "none":
            link = _link(told, found)
            elsewhere.published(work, loaded, found, changes[-1].chosen, place, link)
            told["recalibration"]["bundle"] = str(place)
        files.folder(target)
        files.write(target / DOCUMENT, json.dumps(page.public(told), indent=1).encode())
        files.write(target / REPORT, page.render(told).encode())
        work.store.audit("validated", str(target), found.counted["rows"])
    return {
        **page.summary(told),
        "report": str(target / REPORT),
        "audit": str(scoring.trail(target)),
    }


def _link(told: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """What a bundle tells of its new calibration, as ``clinloom recalibrate`` has it."""
    names = ("method", "intercept", "slope", "any_change_p", "slope_change_p")
    of = {name: told["recalibration"][name] for name in names}
    return {**of, "moments": found.counted["rows"], "outcomes": found.counted["positive"]}


def _free(target: Address, bundle: Bundle) -> None:
    """Raise UsageError where a report would take the place of another."""
    what = "the bundle itself" if target == bundle.place else "the output of a run"
    if target == bundle.place or files.exists(target / MANIFEST):
        mend = "give a folder of its own, such as external/HOSPITAL"
        raise UsageError(f"--out is {what}", where="--out", mend=mend)


def _record(
    work: Work,
    bundle: Bundle,
    found: Found,
    judged: Mapping[str, Any],
    learned: Sequence[Changes] | str | None,
) -> dict[str, Any]:
    """What is told of the model here, beside what the bundle tells of it."""
    study, asked = bundle.study, work.study.evaluate
    there = (bundle.document.get("evidence") or {}).get("test") or {}
    counted = {name: found.counted[name] for name in ("rows", "subjects", "positive")}
    absent = dict.fromkeys(("value", "low", "high"))
    return {
        "study": {
            "name": study["name"],
            "title": study.get("title") or study["name"],
            "description": study.get("description") or "",
            "seed": work.study.seed,
            "intervals": f"{asked.confidence:.0%}, {asked.bootstrap} resamples",
            "hash": work.study.hash,
        },
        "bundle": bundle.hash,
        "model": bundle.scorer.model,
        "threshold": bundle.scorer.threshold,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": record.versions(),
        "split": {"test": counted},
        "flow": found.flow,
        "metrics": {
            name: {
                "there": there.get(name, absent),
                "here": here,
                "difference": casemix.change(here, there.get(name, absent)),
            }
            for name, here in judged["here"].items()
        },
        "casemix": {
            name: {"there": bundle.reference.mix.get(name), "here": here}
            for name, here in judged["mix"].items()
        },
        "curves": judged["curves"],
        "characteristics": foreign.characteristics(bundle, found.shown, found.sketch, found.cells),
        "chance": foreign.chance(bundle, found.counted["subjects"]),
        "leaning": foreign.leaning(bundle, found.present, found.cells[0]),
        "codes": foreign.codes(bundle, found.codes),
        "recalibration": _asked(learned, judged["recalibrated"]),
    }


def _asked(
    learned: Sequence[Changes] | str | None, judged: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What the outcomes here ask to change, and how good the risks so changed are."""
    if learned is None or isinstance(learned, str):
        return None if learned is None else {"refused": learned}
    chosen = learned[-1].chosen
    return {
        "method": chosen.method,
        "intercept": chosen.intercept,
        "slope": chosen.slope,
        "any_change_p": chosen.any_change,
        "slope_change_p": chosen.slope_change,
        "folds": [one.chosen.method for one in learned[:-1]],
        "changes": {
            kind: {"intercept": one.intercept, "slope": one.slope}
            for kind, one in zip(KINDS[:2], learned[-1][:2], strict=True)
        },
        "judged": judged,
    }


def _taken(
    study: Study,
    counted: Mapping[str, int],
    acquired: Tables,
    events: Tables,
    counts: record.Rows,
    overrides: Sequence[str],
) -> dict[str, Any]:
    """What the sources gave, what was changed and refused, and what is doubtful of that."""
    given = record.sources(counts, {name: source.type for name, source in study.sources.items()})
    refusals, ledger = record.rejected(counts), events["ledger"].read().to_pylist()
    doubts = [
        *record.doubtful(given, refusals, ledger),
        *cleaning.unconverted(events["units"].read()),
    ]
    if min(counted["positive"], counted["rows"] - counted["positive"]) < ENOUGH:
        doubts.insert(0, WIDE)
    if not any(change.startswith("sources.") for change in overrides):
        doubts.insert(0, SAME)
    told = {"sources": given, "rejected": refusals, "ledger": ledger, "warnings": doubts}
    return {**told, "displays": record.displays(acquired)}
