"""One pass over the integrated dataset: every model's risks of the test rows, and what is counted.

Workers score with the exported scorers and write what they scored; what comes back are sums: the
groups of equal risk, rows and outcomes of each split, outliers, and what Table 1 needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.deploy.scorer import Scorer
from clinloom.evaluate.subgroups import Group, members
from clinloom.features import Feature
from clinloom.learn import risks as groups
from clinloom.learn.preparation import clipped
from clinloom.learn.risks import Risks
from clinloom.report import baseline
from clinloom.run import explain, subgroups
from clinloom.run.train import keys
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.spark.sums import Merge
from clinloom.store import Pending
from clinloom.study.schema import Evaluate
from clinloom.tables import (
    DATASET,
    GROUPS,
    LEDGER,
    PATIENTS,
    PREDICTIONS,
    RISKS,
    SAMPLED,
    SUBGROUPS,
    matrix,
)

NUMBERS = 4_000_000  # features x rows that the kernel is handed at once, about
KEPT = 1_000_000  # features x rows that are sampled to explain a model by: the driver sees them


def predict(
    work: Work,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
    scorers: Mapping[str, Scorer],
    selected: str,
    asked: Evaluate,
) -> Tables:
    """Score the test rows by every one of ``scorers``; commit what the judgement needs.

    Tables: ``predictions`` of the selected model, ``risks`` of all, their ``groups``, those of
    each of its ``subgroups`` and months with their ``patients``, some rows (``sampled``) to explain
    it by, the ``preparation_ledger``, and ``counted/summary.json`` with the split and Table 1.
    """
    groups = subgroups.groups_of(features, asked)
    sample = min(asked.explain, KEPT // max(1, len(features)))

    def do(out: Pending) -> None:
        shown = characteristics(features)
        kernel = partial(
            scored,
            scorers=list(scorers.values()),
            selected=list(scorers).index(selected),
            shown=shown,
            groups=groups,
            sample=sample,
        )
        found = workers.by_patient(
            work.spark,
            {"dataset": (dataset["dataset"], DATASET)},
            kernel,
            out=out,
            tables={"predictions": PREDICTIONS, "risks": RISKS},
            merges=MERGES | {"sampled": partial(explain.merged, most=sample)},
            chunk=max(1024, NUMBERS // max(1, len(features))),
        )
        out.write(GROUPS, _named(found.get("groups"), list(scorers)))
        for table in (SUBGROUPS, PATIENTS, SAMPLED):
            rows = found.get(table.name)
            out.write(table, table.empty if rows is None else rows.cast(table.arrow))
        out.write(LEDGER, _outliers(found.get("outliers"), features), name="preparation_ledger")
        names = [features[at].name for at in shown]
        told = {
            "split": _split(found["split"]),
            "table1": baseline.told(names, found["baseline"]),
        }
        out.put("counted", "summary.json", json.dumps(told, indent=1))

    more = ("modalities",) if "modalities" in work.keys else ()
    inputs = keys(work, models, "features", *more)
    return work.step(
        "predict",
        do,
        options=[list(scorers), selected, [group.name for group in groups], sample],
        inputs=inputs,
        counts="predictions",
    )


def scored(
    dataset: pa.Table,
    *,
    scorers: Sequence[Scorer],
    selected: int,
    shown: Sequence[int],
    groups: Sequence[Group] = (),
    sample: int = 0,
) -> dict[str, pa.Table]:
    """The kernel: rows of whole patients (DATASET) as risks and sums."""
    values, outcome = matrix(dataset), dataset.column("boolean_value").fill_null(False)
    label = outcome.to_numpy(zero_copy_only=False).astype(bool)
    subject = dataset.column("subject_id").to_numpy()
    inside = pc.fill_null(pc.equal(dataset.column("split"), "test"), False)
    test = inside.to_numpy(zero_copy_only=False).astype(bool)
    found = {
        "split": _counted(dataset),
        "baseline": baseline.summary(values[:, list(shown)], label, subject),
        "outliers": _drawn_in(values, scorers[selected]),
    }
    if not test.any():
        return found
    risk = np.stack([scorer.score(values[test]) for scorer in scorers], axis=1)
    rows, mine = dataset.filter(inside), risk[:, selected]
    member, month = members(values[test], groups), subgroups.month(rows.column("prediction_time"))
    if sample:
        found["sampled"] = explain.sampled(rows, sample)
    predicted = {
        "subject_id": rows.column("subject_id"),
        "prediction_time": rows.column("prediction_time"),
        "boolean_value": rows.column("boolean_value"),
        "predicted_boolean_value": pa.array(mine >= scorers[selected].threshold),
        "predicted_boolean_probability": pa.array(mine),
    }
    return {
        **found,
        "predictions": pa.table(predicted, schema=PREDICTIONS.arrow),
        "risks": _risks(subject[test], label[test], risk, subgroups.bits(member), month),
        **subgroups.sums(subject[test], label[test], mine, member, month),
        "groups": pa.concat_tables(
            keyed(number, Risks.of(label[test], risk[:, number]).compact())
            for number in range(len(scorers))
        ),
    }


def _risks(
    subject: npt.NDArray[np.int64],
    label: npt.NDArray[np.bool_],
    risk: npt.NDArray[np.float64],
    *keys: npt.NDArray[np.int64],
) -> pa.Table:
    offsets = np.arange(len(risk) + 1, dtype=np.int32) * risk.shape[1]
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(risk.ravel()))
    columns = [pa.array(subject), pa.array(label), lists, *map(pa.array, keys)]
    return pa.table(columns, schema=RISKS.arrow)


def keyed(model: int, risks: Risks) -> pa.Table:
    """A model's groups, with its number."""
    table = risks.table()
    return table.append_column("model", pa.array(np.full(table.num_rows, model)))


def regrouped(tables: Sequence[pa.Table]) -> pa.Table:
    """The groups of each model, of rows that are apart."""
    together = pa.concat_tables(tables)
    models = pc.unique(together.column("model")).to_pylist()
    merged = (
        keyed(model, Risks.read(groups.merged([together.filter(pc.field("model") == model)])))
        for model in sorted(models)
    )
    return pa.concat_tables([together.slice(0, 0), *merged])


def _named(found: pa.Table | None, models: Sequence[str]) -> pa.Table:
    """The groups with their model's name."""
    if found is None:
        return GROUPS.empty
    names = pa.array(models).take(found.column("model").combine_chunks())
    columns = {"model": names, **{n: found.column(n) for n in groups.SCHEMA.names}}
    return pa.table(columns, schema=GROUPS.arrow)


def _counted(dataset: pa.Table) -> pa.Table:
    """Rows, patients and outcomes of each split; patients are whole here, so they add up."""
    plain = dataset.select(["subject_id", "split"]).append_column(
        "positive", dataset.column("boolean_value").fill_null(False).cast(pa.int64())
    )
    grouped = plain.group_by("split").aggregate(
        [("positive", "count"), ("subject_id", "count_distinct"), ("positive", "sum")]
    )
    return grouped.select(
        ["split", "positive_count", "subject_id_count_distinct", "positive_sum"]
    ).rename_columns(["split", "rows", "subjects", "positive"])


def _drawn_in(values: npt.NDArray[np.float64], scorer: Scorer) -> pa.Table:
    """How many values of each feature the preparation draws in to its bounds."""
    counts = clipped(values, scorer.statistics)
    at = np.flatnonzero(counts)
    return pa.table({"feature": pa.array(at), "count": pa.array(counts[at])})


def _summed(tables: Sequence[pa.Table], *, by: str) -> pa.Table:
    """Counts of each ``by``, added up."""
    together = pa.concat_tables(tables)
    rest = [name for name in together.column_names if name != by]
    found = together.group_by(by).aggregate([(name, "sum") for name in rest])
    return found.rename_columns({f"{name}_sum": name for name in rest}).sort_by(by)


def _outliers(found: pa.Table | None, features: Sequence[Feature]) -> pa.Table:
    if found is None:
        return LEDGER.empty
    same = {"source": "dataset", "rule": "outlier", "action": "clipped"}
    return LEDGER.rows(
        [
            {**same, "code": features[row["feature"]].name, "count": row["count"]}
            for row in found.to_pylist()
        ]
    )


def _split(found: pa.Table) -> dict[str, dict[str, int]]:
    """Rows, patients and outcomes of the training and test rows."""
    none = {"rows": 0, "subjects": 0, "positive": 0}
    rows = {row.pop("split"): row for row in found.to_pylist()}
    return {part: rows.get(part, none) for part in ("train", "test")}


def characteristics(features: Sequence[Feature]) -> list[int]:
    """One column for each characteristic: demographics, codes, and the latest measurement."""
    best: dict[tuple[str, str], tuple[int, int]] = {}
    for at, feature in enumerate(features):
        if feature.family == "imaging":
            continue
        rank = {"last": 0, "present": 0, "mean": 1}.get(feature.statistic, 2)
        key = (feature.family, feature.code if feature.family != "demographics" else feature.name)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, at)
    return [at for _, at in best.values()]


MERGES: dict[str, Merge] = {
    **subgroups.MERGES,
    "groups": regrouped,
    "baseline": baseline.merged,
    "split": partial(_summed, by="split"),
    "outliers": partial(_summed, by="feature"),
}
