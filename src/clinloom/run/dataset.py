"""The steps from files to the integrated dataset, each committed by the store."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinloom import clean as cleaning
from clinloom import cohort as cohorts
from clinloom import features
from clinloom.cohort import split as splitting
from clinloom.errors import DataError
from clinloom.features import Feature
from clinloom.run.acquire import summed
from clinloom.run.work import Tables, Work, plain
from clinloom.spark import workers
from clinloom.store import Pending
from clinloom.study import Study
from clinloom.tables import DATASET, EVENTS, FLOW, INDEX, LEDGER, REJECTED, VOCABULARY

NEEDED = ["subject_id", "time", "code", "numeric_value"]  # the events' columns that features read


def clean(work: Work, study: Study, acquired: Tables) -> Tables:
    """Clean every patient's events; count each change, keep each refusal."""

    def do(out: Pending) -> None:
        parts = out.scratch("ledger")
        rejected = out.place("rejected")
        workers.by_patient(
            work.spark,
            {"acquired": acquired["acquired"]},
            partial(cleaning.clean, options=study.clean),
            places={"events": out.place("events"), "rejected": rejected, "ledger": parts},
            tables={"events": EVENTS, "rejected": REJECTED, "ledger": LEDGER},
        )
        refused = acquired["acquisition_rejected"].arrow()
        pq.write_table(refused.select(REJECTED.arrow.names), rejected / "acquisition.parquet")
        rows = [acquired["acquisition_ledger"].arrow()]
        rows += [pq.read_table(file) for file in sorted(parts.glob("*.parquet"))]
        out.write(LEDGER, summed(pa.concat_tables([_like(r, LEDGER) for r in rows])))
        if not any(out.place("events").iterdir()):
            raise DataError(
                "cleaning refused every event", where="clean", mend="see tables/acquired"
            )

    key = {"acquire": work.keys["acquire"]}
    return work.step("clean", do, options=plain(study.clean), inputs=key, counts="events")


def build_cohort(work: Work, study: Study, cleaned: Tables) -> Tables:
    """Find each patient's prediction moments, outcome and split."""

    def do(out: Pending) -> None:
        parts = out.scratch("flow")
        workers.by_patient(
            work.spark,
            {"events": cleaned["events"]},
            partial(moments, study=study),
            places={"index": out.place("index"), "flow": parts},
            tables={"index": INDEX, "flow": FLOW},
            columns={"events": NEEDED},
        )
        flow = pa.concat_tables([pq.read_table(file) for file in sorted(parts.glob("*.parquet"))])
        flow = flow.group_by(["step", "name"]).aggregate([("subjects", "sum"), ("rows", "sum")])
        flow = flow.rename_columns(["step", "name", "subjects", "rows"]).sort_by("step")
        out.write(FLOW, _like(flow, FLOW))
        answerable(out.place("index"), flow)

    options = [plain(study.cohort), plain(study.split), study.seed]
    key = {"clean": work.keys["clean"]}
    return work.step("cohort", do, options=options, inputs=key, counts="index")


def moments(events: pa.Table, *, study: Study) -> dict[str, pa.Table]:
    """The cohort kernel and the split, for whole patients."""
    found = cohorts.cohort(events, study.cohort)
    index = splitting.assign(found["index"], study.split, seed=study.seed)
    return {"index": index, "flow": found["flow"]}


def answerable(place: Any, flow: pa.Table) -> None:
    """Raise DataError where the cohort cannot answer the question: nobody, or a single class."""
    files = sorted(place.glob("*.parquet"))
    lost = ", ".join(f"{r['name']} {r['subjects']:,}" for r in flow.to_pylist())
    if not files:
        raise DataError(
            f"nobody is in the cohort; patients left at each step: {lost}",
            where="cohort",
            mend="is `cohort.index.at` a code of the events?",
        )
    index = pa.concat_tables([pq.read_table(f, columns=["boolean_value", "split"]) for f in files])
    positive = int(pc.sum(index.column("boolean_value").cast("int64")).as_py() or 0)
    if positive == 0 or positive == index.num_rows:
        who = "nobody" if positive == 0 else "everybody"
        raise DataError(
            f"{who} of {index.num_rows:,} prediction moments has the outcome",
            where="cohort.outcome",
            mend="are its codes those of the events, and is `within` long enough?",
        )
    for part in ("train", "test"):
        values = index.filter(pc.equal(index.column("split"), part)).column("boolean_value")
        if len(values.unique()) < 2:
            raise DataError(
                f"the {part} rows ({len(values):,}) hold a single class",
                where="split",
                mend="give it more patients, or another seed or cutoff",
            )


def learn_features(work: Work, study: Study, cleaned: Tables, index: Tables) -> list[Feature]:
    """The feature list: codes seen often enough in training rows, before the index time."""

    def do(out: Pending) -> None:
        parts = out.scratch("parts")
        workers.by_patient(
            work.spark,
            {"events": cleaned["events"], "index": index["index"]},
            partial(seen, options=study.features),
            places={"vocabulary": parts},
            tables={"vocabulary": VOCABULARY},
            columns={"events": NEEDED},
        )
        tables = [pq.read_table(file) for file in sorted(parts.glob("*.parquet"))]
        if not tables:
            raise DataError(
                "no event before the index time fits any feature",
                where="features",
                mend="are the codes under `features` those of the events?",
            )
        counts = pa.concat_tables(tables).group_by(["family", "code"])
        counts = counts.aggregate([("rows", "sum")]).rename_columns(["family", "code", "rows"])
        counts = _like(counts.sort_by([("family", "ascending"), ("code", "ascending")]), VOCABULARY)
        out.write(VOCABULARY, counts)
        training = pc.sum(pc.equal(index["index"].arrow(["split"]).column("split"), "train"))
        listed = features.resolve(study.features, counts, training.as_py())
        if not listed:
            raise DataError("no feature is left", where="features", mend="lower `min_rows`")
        text = json.dumps([f.to_dict() for f in listed], indent=1)
        (out.place("feature_list") / "features.json").write_text(text)

    keys = {"clean": work.keys["clean"], "cohort": work.keys["cohort"]}
    made = work.step("vocabulary", do, options=plain(study.features), inputs=keys)
    text = (made["feature_list"].path / "features.json").read_text()
    return [Feature.from_dict(f) for f in json.loads(text)]


def seen(events: pa.Table, index: pa.Table, *, options: Mapping[str, Any]) -> dict[str, pa.Table]:
    """Count codes over training rows only."""
    training = index.filter(pc.equal(index.column("split"), "train"))
    return {"vocabulary": features.vocabulary(events, training, options)}


def build_features(work: Work, cleaned: Tables, index: Tables, listed: Sequence[Feature]) -> Tables:
    """The integrated dataset, a row per patient and moment, and the leakage audit."""

    def do(out: Pending) -> None:
        workers.by_patient(
            work.spark,
            {"events": cleaned["events"], "index": index["index"]},
            partial(integrate, listed=list(listed)),
            places={"dataset": out.place("dataset")},
            tables={"dataset": DATASET},
            columns={"events": NEEDED},
        )
        (out.place("leakage") / "audit.json").write_text(json.dumps(audit(cleaned, index, listed)))

    keys = {n: work.keys[n] for n in ("clean", "cohort", "vocabulary")}
    return work.step("features", do, inputs=keys, counts="dataset")


def integrate(
    events: pa.Table, index: pa.Table, *, listed: Sequence[Feature]
) -> dict[str, pa.Table]:
    """Features beside the outcome and the split."""
    if not index.num_rows:
        return {}
    made = features.compute(events, index, listed)
    for name in ("boolean_value", "split"):
        made = made.append_column(name, index.column(name))
    return {"dataset": made.select(DATASET.arrow.names)}


def audit(cleaned: Tables, index: Tables, listed: Sequence[Feature], rows: int = 2000) -> dict:
    """Recompute some rows without, and with poisoned, events at or after the index time."""
    checked = differing = 0
    paths = {"events": str(cleaned["events"].path), "index": str(index["index"].path)}
    for file in index["index"].files():
        parts = workers.patients(paths, int(file.name[5:10]), {"events": NEEDED}, 1 << 16)
        for part in parts:
            found = features.audit(part["events"], part["index"], listed)
            checked += found["rows_checked"]
            differing += found["rows_differing"]
            if checked >= rows:
                break
        if checked >= rows:
            break
    if differing:
        raise DataError(
            f"{differing:,} of {checked:,} rows change with events after the index time",
            where="features",
            mend="report this: features must not see the future",
        )
    return {"rows_checked": checked, "rows_differing": differing}


def _like(table: pa.Table, declared: Any) -> pa.Table:
    """The table with the declared columns' order and types, dictionaries decoded."""
    columns = [table.column(f.name).cast(f.type) for f in declared.arrow]
    return pa.table(columns, schema=declared.arrow)
