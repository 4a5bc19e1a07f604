"""A bundle made by hand and patients from elsewhere, judged without Spark: tasks run in-process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from clinloom import evaluate, files, plugins
from clinloom import study as studies
from clinloom.deploy import bundle as bundles
from clinloom.deploy.bundle import Bundle
from clinloom.deploy.scorer import Scorer
from clinloom.evaluate import cells, watch
from clinloom.evaluate.cells import Cells, Kept
from clinloom.evaluate.watch import Reference
from clinloom.features import Feature
from clinloom.learn.preparation import learn
from clinloom.learn.sketch import Sketch
from clinloom.run import elsewhere, external
from clinloom.run.reference import held_out
from clinloom.run.work import Work
from clinloom.spark import sums, workers
from clinloom.store import Part
from clinloom.tables import (
    ACQUIRED,
    COUNTS,
    DATASET,
    DISPLAYS,
    EVENTS,
    EXTENT,
    LEDGER,
    SEEN,
    UNITS,
    conform,
    matrix,
)

STUDY = """
name: outside
title: Something within 30 days
sources: {lab: {type: table, path: lab, patient: pid, time: {static: true}, code: {column: what}}}
cohort:
  index: {at: VISIT, plus: 1h, which: every}
  outcome: {codes: OUTCOME, within: 30d}
  washout: none
  time_at_risk: {follow_up: assumed}
features: {measurements: {codes: "LAB//*", statistics: [last], windows: [all]}}
models: [logistic_regression]
evaluate: {bootstrap: 60}
"""
LABS = 4
LISTED = [Feature.named(f"measurements|LAB//{n}|last|all", modality="records") for n in range(LABS)]
WEIGHTS = np.array([1.2, 0.8, 0.0, 0.4])
DAY = 86_400_000_000
BEGIN = 1_700_000_000_000_000


def drawn(rows: int, *, seed: int, shift: float = 0.0, spread: float = 1.0, slope: float = 1.0,
          level: float = -1.0, each: int = 1) -> dict[str, np.ndarray]:  # fmt: skip
    """Rows (n, LABS) with outcomes, ``each`` a patient; ``level`` and ``slope`` of the truth."""
    rng = np.random.default_rng(seed)
    x = shift + spread * rng.normal(size=(rows, LABS))
    odds = level + slope * (x @ WEIGHTS)
    fate = np.repeat(rng.random(rows // each), each)
    x[rng.random(x.shape) < 0.1] = np.nan
    outcome = fate < 1 / (1 + np.exp(-odds))
    return {"subject": np.repeat(np.arange(rows // each) + 1, each), "x": x, "outcome": outcome}


def publish(folder: Path, *, seed: int = 0, codes: dict[str, list[str]] | None = None) -> Bundle:
    """A bundle of the model that is right for ``drawn``'s defaults."""
    made, held = drawn(4000, seed=seed), drawn(2000, seed=seed + 1)
    statistics = learn(made["x"], lower=0.001, upper=0.999)
    arrays = {"coefficients": np.zeros(statistics.width), "intercept": np.zeros(1)}
    scale = statistics.scale[:LABS] if hasattr(statistics, "scale") else np.ones(LABS)
    arrays["coefficients"][:LABS] = WEIGHTS * scale
    arrays["intercept"][:] = -1.0
    scorer = Scorer("logistic_regression", statistics, arrays, 1.0, 0.0, 0.5)
    dataset = pa.concat_tables([_dataset(made, "train", 0), _dataset(held, "test", 10_000)])
    study = studies.parse(yaml.safe_load(STUDY), rooms=plugins, base=str(folder.parent))
    known = {f"LAB//{n}": [""] for n in range(LABS)} | (codes or {})
    seen = SEEN.rows(
        {"code": code, "unit": unit, "patients": 50}
        for code, units in known.items()
        for unit in (None, *units)
    )
    return bundled(folder, study, LISTED, scorer, dataset, seen, replicates=60)


def bundled(
    folder: Path,
    study: Any,
    listed: list[Feature],
    scorer: Scorer,
    dataset: pa.Table,
    seen: pa.Table,
    *,
    replicates: int,
) -> Bundle:
    """A bundle of a scorer, judged on the dataset's test rows, with their reference."""
    held = dataset.filter(pc.equal(dataset["split"], "test"))
    label = held["boolean_value"].to_numpy(zero_copy_only=False)
    asked = {"threshold": scorer.threshold, "replicates": replicates}
    test = evaluate.evaluate(label, scorer.score(matrix(held)), held["subject_id"], **asked)
    bundles.publish(
        files.address(folder),
        scorer=scorer,
        study=study.portable(),
        features=listed,
        evidence={"evidence": {"test": test}},
        check=lambda: None,
        reference=json.dumps(_reference(listed, dataset, scorer, seen).plain()),
    )
    return Bundle.load(files.address(folder))


def _dataset(made: dict[str, np.ndarray], split: str, first: int) -> pa.Table:
    rows = len(made["outcome"])
    at = pa.array(np.full(rows, BEGIN), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    told = {
        "subject_id": made["subject"] + first,
        "prediction_time": at,
        "boolean_value": made["outcome"],
        "split": [split] * rows,
        "values": list(made["x"]),
    }
    return conform(pa.table(told), DATASET)


def _reference(
    listed: list[Feature], dataset: pa.Table, scorer: Scorer, seen: pa.Table
) -> Reference:
    """As ``run.reference`` makes it of training rows and of test rows, without its workers."""
    trained, held = (dataset.filter(pc.equal(dataset["split"], part)) for part in ("train", "test"))
    values, subject = matrix(trained), trained["subject_id"].to_numpy()
    cut = Cells.of(Sketch.of(values, subject))
    found = cut.counts(values, np.zeros(len(subject), np.int64), subject)
    rows, patients = cells.dense(found, [0], len(listed))
    risk, label = scorer.score(matrix(held)), held["boolean_value"].to_numpy(zero_copy_only=False)
    subject, none = held["subject_id"].to_numpy(), np.zeros(len(risk), np.int64)
    risks, member = Cells.of(Sketch.of(risk[:, None], subject)), np.zeros((len(risk), 0), bool)
    known, flagged = np.ones(len(risk), bool), risk >= scorer.threshold
    made = watch.Rows(subject, none, risk, flagged, label, known, member)
    codes: dict[str, list[str]] = {}
    for row in seen.to_pylist():
        codes.setdefault(row["code"], []).extend([] if row["unit"] is None else [row["unit"]])
    return Reference(
        names=tuple(feature.name for feature in listed),
        features=Kept.of(cut, rows[0], patients[0]),
        apart=1.0,
        codes=codes,
        pairs=len(codes),
        **held_out(risks, watch.sums(made, risks, 0.0), []),
    )


def events(made: dict[str, np.ndarray], *, without: tuple[int, ...] = ()) -> pa.Table:
    """EVENTS of rows: a visit, what was measured at it, and what came; visits 100 days apart."""
    rows = []
    seen: dict[int, int] = {}
    for subject, x, outcome in zip(made["subject"], made["x"], made["outcome"], strict=True):
        number = seen[subject] = seen.get(subject, -1) + 1
        at = BEGIN + 100 * DAY * number
        one = [("VISIT", at, None)]
        one += [
            (f"LAB//{n}", at, float(v))
            for n, v in enumerate(x)
            if np.isfinite(v) and n not in without
        ]
        one += [("OUTCOME", at + 10 * DAY, None)] * bool(outcome)
        rows += [(int(subject), time, code, value) for code, time, value in one]
    subject, time, code, value = zip(*rows, strict=True)
    at = pa.array(time, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    told = {"subject_id": subject, "time": at, "code": code, "numeric_value": value}
    told = {k: v if isinstance(v, pa.Array) else pa.array(v) for k, v in told.items()}
    told["source"] = pa.array(["lab"] * len(rows))
    return conform(pa.table(told), EVENTS)


def alone(monkeypatch: Any, given: pa.Table) -> None:
    """Have validations take these events, and their tasks run in this process, without a JVM."""

    def tasks(spark, count, work, *, out=None, merges=None):
        found: dict[str, list[pa.Table]] = {}
        for number in range(count):
            for batch in work(number):
                for row in batch.to_pylist():
                    if row["sum"] is not None:
                        found.setdefault(row["name"], []).append(sums.unpacked(row["sum"]))
                    else:
                        out.took(row["name"], [Part(*json.loads(row["told"]))])
        return {name: merges[name](tables) for name, tables in found.items()}

    def cleaned(work: Work, bundle: Bundle, target: files.Address):
        last = EXTENT.rows([{"last": pc.max(given.column("time")).as_py()}])
        count = COUNTS.rows([{"table": "events", "source": "lab", "rows": given.num_rows}])

        def do(out) -> None:
            out.write(EVENTS, given)
            out.write(ACQUIRED, conform(given, ACQUIRED))
            for table, rows in ((EXTENT, last), (UNITS, UNITS.empty), (LEDGER, LEDGER.empty),
                                (DISPLAYS, DISPLAYS.empty)):  # fmt: skip
                out.write(table, rows)

        made = work.step("clean", do)
        return made, made, count.to_pylist()

    monkeypatch.setattr(workers, "tasks", tasks)
    monkeypatch.setattr(elsewhere, "cores", lambda spark: 2)
    monkeypatch.setattr(external.scoring, "cleaned", cleaned)
    monkeypatch.setattr(Work, "spark", None)


def counts(values: np.ndarray, cut: Cells) -> np.ndarray:
    """The rows (f, 11) of values (n, f) by cell."""
    subject = np.arange(len(values))
    found = cut.counts(values, np.zeros(len(values), np.int64), subject)
    return cells.dense(found, [0], values.shape[1])[0][0]
