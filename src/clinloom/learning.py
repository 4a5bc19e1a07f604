"""The steps from the integrated dataset to an evaluated model and its bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from clinloom import evaluate as evaluation
from clinloom import plugins
from clinloom.cohort.split import FOLDS
from clinloom.deploy import bundle as bundles
from clinloom.deploy.scorer import Scorer, parity
from clinloom.features import Feature
from clinloom.models._preparation import clipped
from clinloom.steps import matrix, plain
from clinloom.store import Pending
from clinloom.study import Study
from clinloom.tables import LEDGER, PREDICTIONS
from clinloom.work import Tables, Work

if TYPE_CHECKING:
    from clinloom.models._training import Folds, Trained

PARITY_ROWS = 5000  # rows on which the scorer is held against Spark
MODALITIES = {"records": "records", "images": "images"}


def train(
    work: Work, study: Study, dataset: Tables, features: Sequence[Feature]
) -> dict[str, Tables]:
    """Tune and fit every model, each a step of its own; refuse one whose scorer disagrees."""
    shared = _Shared(work, study, dataset, features)
    try:
        return {
            name: work.step(
                f"train/{name}",
                lambda out, name=name: _train(work, study, dataset, shared, name, out),
                options=[
                    plain(study.models[name]),
                    plain(study.split),
                    study.seed,
                    study.evaluate.threshold,
                ],
                inputs={"features": work.keys["features"]},
            )
            for name in study.models
        }
    finally:
        shared.close()


class _Shared:
    """The prepared folds, made when the first model needs them."""

    def __init__(self, work: Work, study: Study, dataset: Tables, features: Sequence[Feature]):
        self.work, self.study, self.dataset, self.width = work, study, dataset, len(features)
        self._held: dict[tuple[int, ...], Folds] = {}

    def folds(self, use: Sequence[int] = ()) -> Folds:
        """The folds, of all features or of those that ``use`` numbers."""
        from clinloom.models._training import Folds, training_rows

        key = tuple(use)
        if key not in self._held:
            table = self.dataset["dataset"]
            rows = training_rows(
                with_fold(table.frame(self.work.spark), self.work.spark, table, self.study),
                _column("fold"),
                rows=table.rows or 0,
                width=self.width,
            )
            self._held[key] = Folds(rows, folds=self.study.split.folds, use=use)
        return self._held[key]

    def close(self) -> None:
        """Let go of prepared rows."""
        for folds in self._held.values():
            folds.close()


def _column(name: str) -> Any:
    from pyspark.sql import functions as F

    return F.col(name)


def with_fold(frame: Any, spark: Any, table: Any, study: Study) -> Any:
    """The dataset with each patient's fold: a hash, so the same whatever the others are."""
    from pyspark.sql import functions as F

    buckets = F.pmod(F.xxhash64(F.lit(study.seed ^ FOLDS), F.col("subject_id")), F.lit(2**31))
    return frame.withColumn("fold", F.floor(buckets * study.split.folds / F.lit(2.0**31)))


def _train(
    work: Work, study: Study, dataset: Tables, shared: _Shared, name: str, out: Pending
) -> None:
    from clinloom.models import _training

    trained = _training.tune(
        name, study.models[name], shared.folds(), seed=study.seed, by=study.evaluate.threshold
    )
    scorer = scorer_of(trained)
    place = out.place(f"models.{name}")
    worst = _agree(work, dataset, trained, scorer)
    scorer.save(place / "scorer")
    trained.pipeline.write().overwrite().save(str(place / "spark"))
    found = {
        "title": plugins.load("models", name).TITLE,
        "point": trained.point,
        "fold_auroc": float(np.mean(trained.fold_auroc)) if trained.fold_auroc else None,
        "folds": trained.fold_auroc,
        "threshold": trained.threshold,
        "parity": worst,
    }
    (place / "trained.json").write_text(json.dumps(found))


def scorer_of(trained: Trained) -> Scorer:
    """The scorer of a trained model."""
    return Scorer(
        model=trained.name,
        statistics=trained.pipeline.stages[0].statistics,
        arrays=trained.arrays,
        slope=trained.slope,
        intercept=trained.intercept,
        threshold=trained.threshold,
    )


def _agree(work: Work, dataset: Tables, trained: Trained, scorer: Scorer) -> float:
    """The parity gate: the scorer against ``PipelineModel.transform`` on bounded rows."""
    from clinloom.spark import to_arrow

    frame = dataset["dataset"].frame(work.spark).limit(PARITY_ROWS)
    made = to_arrow(
        trained.pipeline.transform(frame).select("values", "predicted_boolean_probability")
    )
    expected = made.column("predicted_boolean_probability").to_numpy()
    return parity(scorer, matrix(made), expected)


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
            place = tables[f"models.{name}"].path
            scorer = Scorer.load(place / "scorer")
            trained = json.loads((place / "trained.json").read_text())
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
        found["modalities"] = _modalities(work, study, dataset, features, found, test)
        scorer = Scorer.load(models[selected][f"models.{selected}"].path / "scorer")
        out.write(PREDICTIONS, _predictions(test, risks[selected], scorer.threshold))
        drawn_in = _outliers(dataset, features, scorer)
        out.write(LEDGER, drawn_in, name="preparation_ledger")
        place = out.place("evaluation")
        (place / "metrics.json").write_text(json.dumps(found, indent=1))
        (place / "curves.json").write_text(json.dumps(curves))

    inputs = {f"train/{name}": work.keys[f"train/{name}"] for name in models}
    made = work.step(
        "evaluate",
        do,
        options=[plain(study.evaluate), study.seed],
        inputs=inputs,
        counts="predictions",
    )
    text = (made["evaluation"].path / "metrics.json").read_text()
    work.store.write_text("metrics.json", text)
    return json.loads(text)


def _outliers(dataset: Tables, features: Sequence[Feature], scorer: Scorer) -> pa.Table:
    """How many values of each feature the preparation draws in to its bounds, over all rows."""
    counts = np.zeros(len(features), np.int64)
    rows = ds.dataset(dataset["dataset"].path, format="parquet")
    for batch in rows.to_batches(columns=["values"], batch_size=1 << 14):
        if batch.num_rows:
            counts += clipped(matrix(pa.Table.from_batches([batch])), scorer.statistics)
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
    rows = ds.dataset(dataset["dataset"].path, format="parquet")
    rows = rows.to_table(filter=ds.field("split") == "test")
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
) -> dict[str, Any]:
    """The selected model with records only and with images only, beside both."""
    from clinloom.models import _training

    selected = found["selected"]
    out = {"both": {"auroc": found["models"][selected]["test"]["auroc"]}}
    kinds = {m: [i for i, f in enumerate(features) if f.modality == m] for m in MODALITIES}
    if not study.evaluate.modalities or not all(kinds.values()):
        return out
    label, subject = _label(test), test.column("subject_id").to_numpy()
    for kind, use in kinds.items():
        shared = _Shared(work, study, dataset, features)
        try:
            part = shared.folds(use).part(None)
            model = _training.fit(
                selected,
                study.models[selected],
                found["models"][selected]["point"],
                part,
                seed=study.seed,
            )
        finally:
            shared.close()
        module = plugins.load("models", selected)
        scorer = Scorer(selected, part.preparation.statistics, module.flatten(model), 1.0, 0.0, 0.5)
        metrics = evaluation.evaluate(
            label, scorer.score(matrix(test)), subject, threshold=0.5, **_how(study)
        )
        out[kind] = {"auroc": metrics["auroc"]}
    return out


def bundle(
    work: Work,
    study: Study,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
    found: Mapping[str, Any],
) -> None:
    """Write the selected model's bundle; its parity was held when it was trained."""

    def do(out: Pending) -> None:
        import shutil

        selected = found["selected"]
        place = models[selected][f"models.{selected}"].path
        bundles.write(
            out.place("bundle"),
            scorer=Scorer.load(place / "scorer"),
            study=study.resolved(),
            features=features,
            evidence={
                "selected": selected,
                "study_hash": study.hash,
                "evidence": found["models"][selected],
            },
        )
        shutil.copytree(place / "spark", out.place("bundle") / "spark")

    work.step("bundle", do, options=study.resolved(), inputs={"evaluate": work.keys["evaluate"]})
