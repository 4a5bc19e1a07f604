"""The leakage audit once models are trained: is a preparation that of its training rows alone?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from clinloom import audit as audits
from clinloom.audit import Evidence, preparation
from clinloom.cohort.division import Division
from clinloom.cohort.split import TEST, TRAIN
from clinloom.features import Feature
from clinloom.learn.preparation import Statistics
from clinloom.run import audit, train
from clinloom.run.sides import division
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.store import Pending
from clinloom.study import Study
from clinloom.tables import DATASET, matrix


def prepared(
    work: Work,
    study: Study,
    dataset: Tables,
    listed: Sequence[Feature],
    models: Mapping[str, Tables],
) -> None:
    """Hold every model's preparation against the training rows. Raises DataError."""

    def do(out: Pending) -> None:
        fitted = [
            Fitted(name, part, scorer.statistics)
            for name in models
            for part, scorer in enumerate(train.scorers(models, name))
        ]
        strange = _strange(work, study, dataset, listed, fitted)
        findings = [asdict(finding) for finding in audits.found(Evidence(prepared=strange))]
        out.put("audit_preparation", "audit.json", json.dumps({"findings": findings}))

    made = work.step(
        "audit/preparation",
        do,
        inputs=train.keys(work, models, "features"),
        uses=[("audit", audit.PREPARATION)],
    )
    audit.judge(
        work, study, made["audit_preparation"].text("audit.json"), only=(audit.PREPARATION,)
    )


class Fitted(NamedTuple):
    """A model's preparation, learned to judge a part."""

    model: str
    part: int
    statistics: Statistics

    @property
    def told(self) -> tuple[int, bytes]:
        """What many models share: the part, and what was learned."""
        return self.part, b"".join(a.tobytes() for a in self.statistics.arrays().values())

    @property
    def filled(self) -> bool:
        """Whether it has a centre and a scale: not where missing values are handed on."""
        return not np.isnan(self.statistics.fill).all()


def _strange(
    work: Work,
    study: Study,
    dataset: Tables,
    listed: Sequence[Feature],
    fitted: Sequence[Fitted],
) -> dict[str, list[str]]:
    """Of each model the features whose preparation is not that of its training rows: of all rows
    but those of the part that it judges."""
    several: dict[tuple[int, bytes], Fitted] = {one.told: one for one in fitted if one.filled}
    every = list(several.values())
    names = ["subject_id", "split", "values"]
    frame = workers.read(work.spark, dataset["dataset"], DATASET, columns=names)
    files = len(dataset["dataset"].files())
    kernel = partial(_summed, fitted=every, division=division(study, dataset))
    found = workers.summed(frame, kernel, _sides, parts=files) if every else None
    told = {(row["of"], row["side"]): row for row in found.to_pylist()} if found else {}
    strange: dict[tuple[int, bytes], list[str]] = {}
    for number, one in enumerate(every):
        s = one.statistics
        none = {"rows": 0, "sum": np.zeros(len(s.keep)), "squares": np.zeros(len(s.keep))}
        seen = [
            (row["rows"], np.array(row["sum"]), np.array(row["squares"]))
            for row in (told.get((number, side), none) for side in (TRAIN, TEST))
        ]
        kept = [listed[at] for at in s.keep.tolist()]
        strange[one.told] = preparation.strange(kept, *seen)
    out: dict[str, dict[str, None]] = {one.model: {} for one in fitted}
    for one in fitted:
        out[one.model] |= dict.fromkeys(strange.get(one.told, ()))
    return {model: list(features) for model, features in out.items()}


def _summed(
    tables: Iterable[pa.Table], *, fitted: Sequence[Fitted], division: Division
) -> pa.Table | None:
    """The sums of the rows that each of ``fitted`` may learn from, and of those that it judges."""
    parts = []
    for table in tables:
        values, inside = matrix(table), np.asarray(table.column("split").is_valid())
        repeats = [division.part(table, repeat) for repeat in range(division.repeats)]
        for number, (_, part, s) in enumerate(fitted):
            test = repeats[part // division.each] == part
            held = [a[s.keep] for a in (s.fill, s.lower, s.upper, s.centre, s.scale)]
            for side, rows in ((TRAIN, inside & ~test), (TEST, test)):
                if rows.any():
                    total, squares = preparation.moments(values[rows][:, s.keep], *held)
                    cells: dict[str, Any] = {"of": [number], "side": [side], "rows": [rows.sum()]}
                    parts.append(pa.table({**cells, "sum": [total], "squares": [squares]}))
    return _sides(parts) if parts else None


def _sides(parts: Sequence[pa.Table]) -> pa.Table:
    """The sums of each preparation and side, added up."""
    held: dict[tuple[int, str], dict[str, Any]] = {}
    for row in pa.concat_tables(parts).to_pylist():
        one = held.setdefault((row["of"], row["side"]), {"rows": 0, "sum": 0.0, "squares": 0.0})
        one["rows"] += row["rows"]
        one["sum"] = one["sum"] + np.array(row["sum"])
        one["squares"] = one["squares"] + np.array(row["squares"])
    return pa.table(
        {
            "of": [of for of, _ in held],
            "side": [side for _, side in held],
            "rows": [one["rows"] for one in held.values()],
            "sum": [one["sum"] for one in held.values()],
            "squares": [one["squares"] for one in held.values()],
        }
    )
