"""Batch scoring: new patients through the same kernels and the exported scorer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from clinloom import cohort as cohorts
from clinloom import features, files, outputs, plugins
from clinloom import study as studies
from clinloom.deploy.bundle import Bundle, present
from clinloom.errors import UsageError
from clinloom.files import Address
from clinloom.report import disclosure
from clinloom.run import dataset
from clinloom.run.acquire import acquire
from clinloom.run.progress import Progress
from clinloom.run.record import rejected, sources
from clinloom.run.reference import seen
from clinloom.run.sums import flowed
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.store import Pending, Store, Stored, attempt
from clinloom.study import PLACES, Cohort, Model, SourceModel, Study
from clinloom.tables import (
    CROSSWALK,
    EVENTS,
    FEATURES,
    FLOW,
    PREDICTIONS,
    REASONS,
    SCORES,
    SEEN,
    Table,
    matrix,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

EXPLAINED = ("parquet", "fhir", "omop")  # the forms that hold reasons
BESIDE, MOMENTS, CODES = ".features", "moments", "codes.parquet"  # of watched scores
RESOURCE = r"(^|/)Patient[/?]"  # a FHIR record or reference, not a number


def score(
    bundle: str,
    *,
    out: str,
    form: str = "parquet",
    options: Sequence[str] = (),
    overrides: Sequence[str] = (),
    watched: bool = False,
    reasons: int = 0,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Score every prediction moment of the sources; leave the scores whole or not at all.

    ``form``: as which of :mod:`clinloom.outputs`, one Parquet file unless told, with its
    ``options`` as ``NAME=VALUE``. Nobody needs an outcome or
    follow-up: ``boolean_value`` is null where the outcome was not seen and, as the study's
    ``follow_up`` has it, may not be known yet. Moments that are still to come are left out. The
    answer's ``patients`` tells how many each step of the cohort left, its ``refused`` how many
    records of each source were refused, by reason.

    ``watched``: the features of each moment, and which codes and units there were, are written to
    the folder ``<out>.features``, for ``clinloom monitor``; it holds a row a moment, as the scores.

    ``reasons``: how many of the features that add the most to each risk are told beside it, in
    clinical words, for a worklist (Parquet's column ``reasons``, FHIR's rationale, OMOP's note).

    Who scored what by which bundle, and when, is kept in the folder ``<out>.audit``, a file each
    time, also where it fails.

    A source set to null (``--set sources.NAME=null``) is left out. ``bundle`` and ``out``
    are addresses.
    """
    settings = outputs.settled(form, options)
    if reasons and form not in EXPLAINED:
        mend = f"--as is one of {', '.join(EXPLAINED)}, or leave --reasons out"
        raise UsageError(f"no reasons are told as {form}", where="--reasons", mend=mend)
    if reasons < 0:
        raise UsageError("reasons are 0 or more", where="--reasons", mend="give 5, or leave it out")
    target = files.address(out)
    files.use({**files.settings(), **storage(overrides)})
    loaded = Bundle.load(bundle)
    study = study_of(loaded.study, overrides)
    with at_work("score", loaded, study, target, progress=progress, spark=spark, form=form) as work:
        acquired, events, counts = cleaned(work, loaded, target)
        more: dict[str, Any] = {"watched": watched, "reasons": reasons}
        scored = predict(work, study, events, acquired, bundle=loaded, **more)
        made = {**acquired, **events, **scored}, _table(study, reasons)
        rows = _write(work, loaded, *made, target, form, settings)
        if watched:
            beside = target.parent / f"{target.name}{BESIDE}"
            files.remove(beside)
            for number, file in enumerate(scored["features"].files()):
                outputs.copied(FEATURES, [file], beside / MOMENTS / f"part-{number:05}.parquet")
            outputs.copied(SEEN, scored["seen"].files(), beside / CODES)
        flow = scored["flow"].read().to_pylist()
        work.store.audit("scored", str(target), rows)
    steps = {step["name"]: step["subjects"] for step in flow}
    told = {"predictions": str(target), "rows": rows, "model": loaded.scorer.model}
    told["audit"] = str(trail(target))
    return {**told, "patients": steps, "refused": refused(counts, study)}


@contextmanager
def at_work(
    action: str,
    bundle: Bundle,
    study: Study,
    target: Address,
    *,
    progress: Progress | None,
    spark: SparkSession | None,
    **told: Any,
) -> Iterator[Work]:
    """A work of a bundle on other patients, in a folder beside ``target`` that is gone afterwards.

    Its trail stays in the folder ``<target>.audit``: who did what, also where it failed.
    """
    folder = target.parent / attempt(".scoring")
    store = Store(folder, note=progress.note if progress else None, trail=trail(target))
    work = Work(study, store, progress=progress, spark=spark)
    try:
        given = {name: _given(source) for name, source in study.sources.items()}
        store.audit(action, str(bundle.place), bundle=bundle.hash, sources=given, **told)
        store.keep_trail()
        yield work
    except BaseException as error:
        store.audit("failed", str(target), error=type(error).__name__)
        raise
    finally:
        work.close()
        files.remove(folder)


def trail(target: Address) -> Address:
    """Where the audit trail of what is made at an address is kept."""
    return target.parent / f"{target.name}.audit"


def cleaned(
    work: Work, bundle: Bundle, target: Address
) -> tuple[Tables, Tables, list[dict[str, Any]]]:
    """The sources' tables, the clean events in the bundle's units, and the rows of COUNTS."""
    acquired = acquire(work, work.study)
    events = dataset.clean(work, work.study, acquired, bundle.units)
    counts = events["counts"].read().to_pylist()
    reasons = rejected(counts)
    total = sum(row["count"] for row in reasons)
    work.store.audit("refuse", str(target), total, reasons=reasons)
    return acquired, events, counts


def refused(counts: list[dict[str, Any]], study: Study) -> dict[str, Any]:
    """How many records each source had refused, by reason; small counts are hidden."""
    given = sources(counts, {name: source.type for name, source in study.sources.items()})
    found: dict[str, Counter[str]] = {}
    for row in rejected(counts):
        found.setdefault(row["source"] or "", Counter())[row["reason"]] += row["count"]
    return disclosure.refusals(
        found, {one["name"]: one["images"] or one["events"] for one in given}
    )


def _given(source: SourceModel) -> dict[str, Any]:
    """Which source it is: its kind and places."""
    told = source.model_dump(mode="json")
    return {key: told[key] for key in ("type", "table", *PLACES) if told.get(key)}


def storage(overrides: Sequence[str]) -> dict[str, files.Options]:
    """How storages are opened: the bundle itself may need it, so it is read before the bundle."""
    document: dict[str, Any] = {}
    for change in overrides:
        if change.partition("=")[0].split(".")[0] == "storage":
            studies.override(document, change)
    given = document.get("storage") or {}
    if not isinstance(given, dict) or not all(isinstance(part, dict) for part in given.values()):
        raise UsageError("storage is a mapping from schemes to options", where="storage")
    return files.checked(given)


def study_of(resolved: Mapping[str, Any], overrides: Sequence[str]) -> Study:
    """A bundle's study with overrides; a source that is set to null is left out."""
    document = yaml.safe_load(yaml.safe_dump(dict(resolved)))
    dropped = [o.split("=", 1)[0].split(".")[1] for o in overrides if _drops(o)]
    for name in dropped:
        document["sources"].pop(name, None)
    kept = [o for o in overrides if not _drops(o)]
    return studies.parse(document, rooms=plugins, overrides=kept, where="bundle")


def _drops(override: str) -> bool:
    key, _, value = override.partition("=")
    return key.startswith("sources.") and key.count(".") == 1 and value.strip() in ("null", "~", "")


def predict(
    work: Work,
    study: Study,
    events: Tables,
    acquired: Tables,
    *,
    bundle: Bundle,
    watched: bool = False,
    reasons: int = 0,
) -> Tables:
    """The predictions of every patient's moments, by bucket; where they are watched, more."""
    last = dataset.extent(events)
    tables = {"predictions": _table(study, reasons), **({"features": FEATURES} if watched else {})}
    inputs = {"events": (events["events"], EVENTS)}
    if study.deploy.identifier:
        inputs["known"] = (acquired["crosswalk"], CROSSWALK)

    def do(out: Pending) -> None:
        found = workers.by_patient(
            work.spark,
            inputs,
            partial(
                scored,
                bundle=str(bundle.place),
                mark=bundle.mark,
                cohort=study.cohort,
                last=last,
                now=time.time_ns() // 1000,
                watched=watched,
                reasons=reasons,
            ),
            out=out,
            tables=tables,
            columns={"events": [*features.columns(study.features), "earlier"]},
            merges={"flow": flowed},
        )
        out.write(FLOW, found["flow"])
        if watched:
            out.write(SEEN, seen(work, acquired, out))

    return work.step("score", do, inputs={"clean": work.keys["clean"]}, counts="predictions")


def _table(study: Study, reasons: int) -> Table:
    table = SCORES if study.deploy.identifier else PREDICTIONS
    return replace(table, columns=(*table.columns, REASONS)) if reasons else table


_loaded: dict[str, tuple[str, Bundle]] = {}  # by address, with what marks each publication


def scored(
    events: pa.Table,
    known: pa.Table | None = None,
    *,
    bundle: str,
    mark: str,
    cohort: Cohort,
    last: int | None,
    now: int,
    watched: bool = False,
    reasons: int = 0,
) -> dict[str, pa.Table]:
    """The scoring kernel for whole patients. ``bundle`` and ``mark``: see :func:`published`;
    ``known``: the crosswalk's rows of the same patients, where their identifiers may leave.
    """
    loaded = published(bundle, mark)
    found = cohorts.due(events, cohort, data_end=last, now=present(events, now))
    index, flow = found["index"], found["flow"]
    if not index.num_rows:
        return {"flow": flow}
    more = {"features": features.compute(events, index, loaded.features)} if watched else {}
    values = matrix(more["features"]) if more else loaded.values(events, index)
    made = loaded.scored(index, values)
    at = made.schema.get_field_index("boolean_value")
    made = made.set_column(at, made.schema.field(at), index.column("boolean_value"))
    if reasons:
        made = made.append_column(REASONS.name, _reasons(loaded, values, reasons))
    if known is not None:
        own = _identifiers(known)
        at = pc.index_in(made.column("subject_id"), own.column("subject_id").combine_chunks())
        for name in ("patient", "system"):  # a join takes no lists, such as reasons
            made = made.append_column(name, own.column(name).take(at))
    return {"predictions": made, "flow": flow, **more}


def published(bundle: str, mark: str) -> Bundle:
    """A publication of the bundle at an address, which a worker loads once.

    ``mark`` tells it from others at the same address, that a worker in use may have loaded before.
    """
    if bundle not in _loaded or _loaded[bundle][0] != mark:
        _loaded[bundle] = mark, Bundle.load(bundle)
    return _loaded[bundle][1]


def _reasons(bundle: Bundle, values: NDArray[np.float64], most: int) -> pa.Array:
    """What adds the most to each row's risk."""
    from clinloom.deploy.explain import Explainer

    explainer = Explainer.of(bundle)
    told = [explainer.reasons(row, most=most) for row in values]
    rows = [
        [{"feature": r.feature.name, "text": r.text, "contribution": r.contribution} for r in row]
        for row in told
    ]
    return pa.array(rows, REASONS.type)


def _identifiers(crosswalk: pa.Table) -> pa.Table:
    """One identifier a subject, with its system: the least number, else the least resource id."""
    resource = pc.match_substring_regex(crosswalk.column("identifier"), RESOURCE)
    ranked = crosswalk.append_column("resource", resource.cast(pa.int8()))
    order = [(name, "ascending") for name in ("subject_id", "resource", "identifier", "system")]
    ranked = ranked.sort_by(order)
    subject = ranked.column("subject_id").to_numpy()
    first = ranked.filter(pa.array(np.diff(subject, prepend=-1) != 0))
    found = first.select(["subject_id", "identifier", "system"])
    return found.rename_columns(["subject_id", "patient", "system"])


def _write(
    work: Work,
    bundle: Bundle,
    made: Mapping[str, Stored],
    table: Table,
    target: Address,
    form: str,
    settings: Model,
) -> int:
    """The scores in the form that was asked for; how many there are."""
    known = made["crosswalk"] if work.study.deploy.identifier else None
    rows = 0

    def do(out: Pending) -> None:
        nonlocal rows
        read = made["predictions"], table, made["events"], known
        scores = outputs.Scores(work.spark, bundle, *read, out)
        rows = outputs.load(form).write(scores, target, settings)

    work.step("write", do, options=form, inputs={"score": work.keys["score"]})
    return rows
