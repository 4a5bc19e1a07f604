"""The judgement: every model on the test rows, the one selected, and its bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import evaluate as evaluation
from clinloom import files
from clinloom.deploy import bundle as bundles
from clinloom.deploy.scorer import Scorer
from clinloom.features import Feature
from clinloom.learn.preparation import clipped
from clinloom.run.train import Shared
from clinloom.run.work import Tables, Work, plain
from clinloom.spark import saved
from clinloom.store import Part, Pending, Stored
from clinloom.store.stored import stream
from clinloom.study import Study
from clinloom.tables import LEDGER, PREDICTIONS, matrix

if TYPE_CHECKING:
    pass

MODALITIES = {"records": "records", "images": "images"}


def evaluate(
    work: Work,
    study: Study,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
) -> dict[str, Any]:
    """Judge every model on the test rows; select by the folds; compare the modalities."""

    def do(out: Pending) -> None:
        test = _test_rows(dataset)
        label, values = _label(test), matrix(test)
        subject = test.column("subject_id").to_numpy()
        found: dict[str, Any] = {"models": {}}
        curves: dict[str, Any] = {}
        risks = {}
        for name, tables in models.items():
            model = tables[f"models.{name}"]
            scorer = scorer_at(model)
            trained = json.loads(model.text("trained.json"))
            risks[name] = scorer.score(values)
            metrics = evaluation.evaluate(
                label, risks[name], subject, threshold=scorer.threshold, **_how(study)
            )
            found["models"][name] = {**trained, "test": metrics}
            importance = scorer.importance(len(features))
            curves[name] = {
                "curves": evaluation.curves(label, risks[name]),
                "importance": [
                    {"feature": features[at].name, "value": float(importance[at])}
                    for at in np.argsort(-importance, kind="stable")[:25]
                    if importance[at] > 0
                ],
            }
        selected = max(models, key=lambda n: found["models"][n]["fold_auroc"] or 0.0)
        found["selected"] = selected
        found["modalities"] = _modalities(work, study, dataset, features, found, test, out)
        scorer = scorer_at(models[selected][f"models.{selected}"])
        out.write(PREDICTIONS, _predictions(test, risks[selected], scorer.threshold))
        drawn_in = _outliers(dataset, features, scorer)
        out.write(LEDGER, drawn_in, name="preparation_ledger")
        out.put("evaluation", "metrics.json", json.dumps(found, indent=1))
        out.put("evaluation", "curves.json", json.dumps(curves))

    inputs = {f"train/{name}": work.keys[f"train/{name}"] for name in models}
    made = work.step(
        "evaluate",
        do,
        options=[plain(study.evaluate), study.seed],
        inputs=inputs,
        counts="predictions",
    )
    text = made["evaluation"].text("metrics.json")
    work.store.write_text("metrics.json", text)
    return json.loads(text)


def _outliers(dataset: Tables, features: Sequence[Feature], scorer: Scorer) -> pa.Table:
    """How many values of each feature the preparation draws in to its bounds, over all rows."""
    counts = np.zeros(len(features), np.int64)
    for file in dataset["dataset"].files():
        for part in stream(str(file), ["values"], 1 << 14):
            counts += clipped(matrix(part), scorer.statistics)
    found = {"source": "dataset", "rule": "outlier", "action": "clipped"}
    return LEDGER.rows(
        {**found, "code": features[at].name, "count": int(counts[at])}
        for at in np.flatnonzero(counts)
    )


def _how(study: Study) -> dict[str, Any]:
    return {
        "replicates": study.evaluate.bootstrap,
        "confidence": study.evaluate.confidence,
        "seed": study.seed,
    }


def _test_rows(dataset: Tables) -> pa.Table:
    """The test rows, by subject and time: 24 bytes and the features a row, on the driver."""
    rows = dataset["dataset"].read()
    rows = rows.filter(pc.equal(rows.column("split"), "test"))
    return rows.sort_by([("subject_id", "ascending"), ("prediction_time", "ascending")])


def _label(rows: pa.Table) -> np.ndarray:
    return rows.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)


def _predictions(test: pa.Table, risk: np.ndarray, threshold: float) -> pa.Table:
    columns = [test.column(n) for n in ("subject_id", "prediction_time", "boolean_value")]
    return pa.table(
        [*columns, pa.array(risk >= threshold), pa.array(risk)], schema=PREDICTIONS.arrow
    )


def _modalities(
    work: Work,
    study: Study,
    dataset: Tables,
    features: Sequence[Feature],
    found: Mapping[str, Any],
    test: pa.Table,
    out: Pending,
) -> dict[str, Any]:
    """The selected model with records only and with images only, beside both."""
    from clinloom.learn import training

    selected = found["selected"]
    made = {"both": {"auroc": found["models"][selected]["test"]["auroc"]}}
    kinds = {m: [i for i, f in enumerate(features) if f.modality == m] for m in MODALITIES}
    if not study.evaluate.modalities or not all(kinds.values()):
        return made
    label, subject = _label(test), test.column("subject_id").to_numpy()
    for kind, use in kinds.items():
        shared = Shared(work, study, dataset, features)
        try:
            part = shared.folds(use).part(None)
            model = training.fit(
                selected,
                study.models[selected],
                found["models"][selected]["point"],
                part,
                seed=study.seed,
            )
        finally:
            shared.close()
        arrays = training.flattened(selected, model, str(out.scratch("trees")))
        scorer = Scorer(selected, part.preparation.statistics, arrays, 1.0, 0.0, 0.5)
        metrics = evaluation.evaluate(
            label, scorer.score(matrix(test)), subject, threshold=0.5, **_how(study)
        )
        made[kind] = {"auroc": metrics["auroc"]}
    return made


def bundle(
    work: Work,
    study: Study,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
    found: Mapping[str, Any],
) -> None:
    """Write the selected model's bundle; its parity was held when it was trained."""

    selected = found["selected"]
    model = models[selected][f"models.{selected}"]

    def do(out: Pending) -> None:
        bundles.publish(
            out.place("bundle"),
            scorer=scorer_at(model),
            study=study.portable(),
            features=features,
            evidence={
                "selected": selected,
                "study_hash": study.hash,
                "evidence": found["models"][selected],
            },
            spark=partial(saved.copy, model.file("spark")),
        )
        out.took("bundle", [Part(bundles.DOCUMENT, name=bundles.DOCUMENT)])

    work.step("bundle", do, options=study.portable(), inputs={"evaluate": work.keys["evaluate"]})


def scorer_at(model: Stored) -> Scorer:
    """The scorer of a committed model."""
    return Scorer.parse(files.read(model.file("scorer.npz")))
