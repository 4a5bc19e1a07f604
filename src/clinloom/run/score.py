"""Batch scoring: new patients through the same kernels and the exported scorer."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from clinloom import cohort as cohorts
from clinloom import features, plugins
from clinloom import study as studies
from clinloom.deploy.bundle import Bundle
from clinloom.errors import StoreError
from clinloom.run import dataset
from clinloom.run.acquire import acquire
from clinloom.run.progress import Progress
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.store import Pending, Store
from clinloom.study import Study
from clinloom.tables import PREDICTIONS, matrix

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def score(
    bundle: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Score every prediction moment of the sources; write one Parquet file, whole or not at all.

    ``boolean_value`` is null where the outcome was not seen and the time at risk ends after the
    last event of the whole input. A source set to null (``--set sources.NAME=null``) is left out.
    """
    loaded = Bundle.load(bundle)
    study = _study(loaded.study, overrides)
    target = Path(out)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".scoring-", dir=target.parent))
    except OSError as error:
        raise StoreError(f"cannot be written ({error.strerror})", where=str(out)) from None
    try:
        store = Store(folder)
        work = Work(study, store, progress=progress, spark=spark)
        acquired = acquire(work, study)
        events = dataset.clean(work, study, acquired)
        scored = predict(work, study, events, bundle=str(Path(bundle).absolute()))
        rows = _write(study, acquired, scored, target)
        store.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"predictions": str(target), "rows": rows, "model": loaded.scorer.model}


def _study(resolved: Mapping[str, Any], overrides: Sequence[str]) -> Study:
    document = yaml.safe_load(yaml.safe_dump(dict(resolved)))
    dropped = [o.split("=", 1)[0].split(".")[1] for o in overrides if _drops(o)]
    for name in dropped:
        document["sources"].pop(name, None)
    kept = [o for o in overrides if not _drops(o)]
    return studies.parse(document, rooms=plugins, overrides=kept, where="bundle")


def _drops(override: str) -> bool:
    key, _, value = override.partition("=")
    return key.startswith("sources.") and key.count(".") == 1 and value.strip() in ("null", "~", "")


def predict(work: Work, study: Study, events: Tables, *, bundle: str) -> Tables:
    """The predictions of every patient's moments, by bucket."""
    last = max((_last(file) for file in events["events"].files()), default=0)

    def do(out: Pending) -> None:
        workers.by_patient(
            work.spark,
            {"events": events["events"]},
            partial(scored, bundle=bundle, cohort=study.cohort, last=last),
            places={"predictions": out.place("predictions")},
            tables={"predictions": PREDICTIONS},
            columns={"events": dataset.NEEDED},
        )

    return work.step("score", do, inputs={"clean": work.keys["clean"]}, counts="predictions")


def _last(file: Path) -> int:
    times = pq.read_table(file, columns=["time"]).column("time")
    latest = pc.max(times.cast("int64")).as_py()
    return latest if latest is not None else 0


_loaded: dict[str, Bundle] = {}


def scored(events: pa.Table, *, bundle: str, cohort: Any, last: int) -> dict[str, pa.Table]:
    """The scoring kernel for whole patients; a worker loads the bundle once."""
    if bundle not in _loaded:
        _loaded[bundle] = Bundle.load(bundle)
    held = _loaded[bundle]
    index = cohorts.cohort(events, cohort)["index"]
    if not index.num_rows:
        return {}
    made = features.compute(events, index, held.features)
    risk = held.scorer.score(matrix(made))
    outcome = index.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)
    ends = index.column("prediction_time").cast("int64").to_numpy() + cohort.outcome.within
    unknown = ~outcome & (ends > last)
    columns = {
        "subject_id": index.column("subject_id"),
        "prediction_time": index.column("prediction_time"),
        "boolean_value": pa.array(outcome, mask=unknown),
        "predicted_boolean_value": pa.array(risk >= held.scorer.threshold),
        "predicted_boolean_probability": pa.array(np.asarray(risk)),
    }
    return {"predictions": pa.table(columns, schema=PREDICTIONS.arrow)}


def _write(study: Study, acquired: Tables, scored: Tables, target: Path) -> int:
    """One file, sorted by subject and time, with the source's identifier where the study allows."""
    parts = [pq.read_table(file) for file in scored["predictions"].files()]
    rows = pa.concat_tables(parts) if parts else PREDICTIONS.empty
    rows = rows.select(PREDICTIONS.arrow.names)
    if study.deploy.identifier:
        known = _identifiers(acquired["crosswalk"].arrow())
        rows = rows.join(known, "subject_id")
    rows = rows.sort_by([("subject_id", "ascending"), ("prediction_time", "ascending")])
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        pq.write_table(rows, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return rows.num_rows


def _identifiers(crosswalk: pa.Table) -> pa.Table:
    """One identifier a subject: the least record number, else the least resource id."""
    resource = pc.starts_with(crosswalk.column("identifier"), "Patient/")
    rank = pc.if_else(resource, "1", "0")
    ranked = pc.binary_join_element_wise(rank, crosswalk.column("identifier"), "")
    least = pa.table({"subject_id": crosswalk.column("subject_id"), "patient": ranked})
    least = least.group_by("subject_id").aggregate([("patient", "min")])
    patient = pc.utf8_slice_codeunits(least.column("patient_min"), 1)
    return pa.table({"subject_id": least.column("subject_id"), "patient": patient})
