"""One pass over the integrated dataset: each model's risks of the judged rows, and what is counted.

A model is as many scorers as there are parts, and a row is scored by that of its part. Workers
write what they scored; what comes back are sums: the groups of equal risk, rows and outcomes of
each split, outliers, and what Table 1 needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.cohort.division import Division
from clinloom.cohort.split import TEST, TRAIN
from clinloom.deploy.scorer import Scorer
from clinloom.evaluate.subgroups import Group, bits, members
from clinloom.events import Flags, Floats, Ints
from clinloom.features import Feature
from clinloom.learn import risks as groups
from clinloom.learn.preparation import clipped
from clinloom.learn.risks import Risks
from clinloom.learn.search import NOWHERE
from clinloom.report import baseline
from clinloom.run import explain, sides, subgroups
from clinloom.run.train import keys
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.spark.sums import Merge
from clinloom.store import Pending
from clinloom.study.schema import Evaluate
from clinloom.tables import (
    DATASET,
    GROUPS,
    JUDGED,
    LEDGER,
    PATIENTS,
    RISKS,
    SAMPLED,
    SUBGROUPS,
    matrix,
)

FINE = 4_096  # groups of equal risk that each of many parts keeps at least
NUMBERS = 4_000_000  # features x rows that the kernel is handed at once, about
KEPT = 1_000_000  # features x rows that are sampled to explain a model by: the driver sees them


def predict(
    work: Work,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
    scorers: Mapping[str, Sequence[Scorer]],
    selected: str,
    asked: Evaluate,
) -> Tables:
    """Score the judged rows by every one of ``scorers``; commit what the judgement needs.

    ``scorers``: of each model one a part. Tables: ``predictions`` of the selected model, ``risks``
    of all, their ``groups``, those of each of its ``subgroups`` and months with their ``patients``,
    some rows of the first part (``sampled``) to explain it by, the ``preparation_ledger``, and
    ``counted/summary.json`` with the split and Table 1.
    """
    groups = subgroups.groups_of(features, asked)
    sample = min(asked.explain, KEPT // max(1, len(features)))

    def do(out: Pending) -> None:
        shown = characteristics(features)
        kernel = partial(
            scored,
            scorers=[list(each) for each in scorers.values()],
            selected=list(scorers).index(selected),
            shown=shown,
            groups=groups,
            sample=sample,
            division=sides.division(work.study, dataset),
        )
        found = workers.by_patient(
            work.spark,
            {"dataset": (dataset["dataset"], DATASET)},
            kernel,
            out=out,
            tables={"predictions": JUDGED, "risks": RISKS},
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


@dataclass(frozen=True)
class Rows:
    """The judged rows of a table, whole patients together: their places (n,), their parts and
    repeats."""

    at: Ints
    part: Ints
    repeat: Ints

    @classmethod
    def of(cls, dataset: pa.Table, division: Division, repeats: int | None = None) -> Rows:
        """Of DATASET, in the first so many ``repeats``; all unless told."""
        parts = [division.part(dataset, n) for n in range(repeats or division.repeats)]
        part = np.stack(parts, axis=1)  # a row's repeats stand together
        at, repeat = np.nonzero(part != NOWHERE)
        return cls(at, part[at, repeat], repeat)

    def risks(self, values: Floats, scorers: Sequence[Scorer]) -> Floats:
        """The risk (n,) of each row, of feature rows ``values``, by the scorer of its part."""
        out = np.empty(len(self.at))
        for part in np.unique(self.part):
            mine = self.part == part
            out[mine] = scorers[part].score(values[self.at[mine]])
        return out


def scored(
    dataset: pa.Table,
    *,
    scorers: Sequence[Sequence[Scorer]],
    selected: int,
    shown: Sequence[int],
    division: Division,
    groups: Sequence[Group] = (),
    sample: int = 0,
) -> dict[str, pa.Table]:
    """The kernel: rows of whole patients (DATASET) as risks and sums."""
    values, outcome = matrix(dataset), dataset.column("boolean_value").fill_null(False)
    label = outcome.to_numpy(zero_copy_only=False).astype(bool)
    subject = dataset.column("subject_id").to_numpy()
    rows, own = Rows.of(dataset, division), scorers[selected]
    found = {
        "split": _counted(dataset),
        "baseline": baseline.summary(values[:, list(shown)], label, subject),
        "outliers": _drawn_in(values, own, division.part(dataset, 0)),
    }
    if not rows.at.size:
        return found
    risk = np.stack([rows.risks(values, each) for each in scorers], axis=1)
    told = dataset.select(["subject_id", "prediction_time", "boolean_value"])
    told, mine = told.take(pa.array(rows.at)), risk[:, selected]
    limits = np.array([scorer.threshold for scorer in own])
    month = subgroups.month(told.column("prediction_time"))
    member = members(values[rows.at], groups)
    if sample:
        first = dataset.take(pa.array(rows.at[rows.part == 0]))
        found["sampled"] = explain.sampled(first, sample)
    predicted = {
        "subject_id": told.column("subject_id"),
        "prediction_time": told.column("prediction_time"),
        "boolean_value": told.column("boolean_value"),
        "predicted_boolean_value": pa.array(mine >= limits[rows.part]),
        "predicted_boolean_probability": pa.array(mine),
        "repeat": pa.array(rows.repeat + 1),
        "part": pa.array(division.names).take(pa.array(rows.part)),
    }
    judged = label[rows.at]
    return {
        **found,
        "predictions": pa.table(predicted, schema=JUDGED.arrow),
        "risks": _risks(subject[rows.at], judged, rows.part, risk, bits(member), month),
        **subgroups.sums(subject[rows.at], judged, mine, member, month),
        "groups": pa.concat_tables(
            keyed(number, Risks.of(judged[mine], risk[mine, number]).compact(), int(part))
            for part in np.unique(rows.part)
            for mine in (rows.part == part,)
            for number in range(len(scorers))
        ),
    }


def _risks(subject: Ints, label: Flags, part: Ints, risk: Floats, *keys: Ints) -> pa.Table:
    offsets = np.arange(len(risk) + 1, dtype=np.int32) * risk.shape[1]
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(risk.ravel()))
    columns = [pa.array(subject), pa.array(label), pa.array(part), lists, *map(pa.array, keys)]
    return pa.table(columns, schema=RISKS.arrow)


def keyed(model: int, risks: Risks, part: int = 0) -> pa.Table:
    """The groups of a model and part, with their numbers."""
    table = risks.table()
    for name, number in (("model", model), ("part", part)):
        table = table.append_column(name, pa.array(np.full(table.num_rows, number, np.int64)))
    return table


def regrouped(tables: Sequence[pa.Table]) -> pa.Table:
    """The groups of each model and part, of rows that are apart."""
    together = pa.concat_tables(tables)
    of = together.group_by(["model", "part"]).aggregate([])
    most = max(FINE, groups.MOST // max(1, len(pc.unique(of.column("part")))))
    merged = (
        keyed(model, Risks.read(groups.merged([_of(together, model, part)])).compact(most), part)
        for model, part in sorted(zip(*(of[n].to_pylist() for n in ("model", "part")), strict=True))
    )
    return pa.concat_tables([together.slice(0, 0), *merged])


def _of(together: pa.Table, model: int, part: int) -> pa.Table:
    return together.filter((pc.field("model") == model) & (pc.field("part") == part))


def _named(found: pa.Table | None, models: Sequence[str]) -> pa.Table:
    """The groups with their model's name."""
    if found is None:
        return GROUPS.empty
    names = pa.array(models).take(found.column("model").combine_chunks())
    columns = {"model": names, "part": found.column("part")}
    columns |= {n: found.column(n) for n in groups.SCHEMA.names}
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


def _drawn_in(values: Floats, scorers: Sequence[Scorer], part: Ints) -> pa.Table:
    """How many values of each feature the preparation draws in to its bounds: that of the model
    which judges the row, of a row that none judges the first."""
    by = np.maximum(part, 0)
    counts = sum(clipped(values[by == n], scorers[n].statistics) for n in np.unique(by))
    at = np.flatnonzero(counts)
    return pa.table({"feature": pa.array(at), "count": pa.array(np.asarray(counts)[at])})


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
    """Rows, patients and outcomes of the training and test rows; of those that are judged in turn,
    whatever their part, as ``test`` alone."""
    none = {"rows": 0, "subjects": 0, "positive": 0}
    rows = {row.pop("split"): row for row in found.to_pylist()}
    if not rows.keys() <= {TRAIN, TEST, None}:
        turns = [row for part, row in rows.items() if part is not None]
        return {TEST: {name: sum(row[name] for row in turns) for name in none}}
    return {part: rows.get(part, none) for part in (TRAIN, TEST)}


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
