"""The judgement: every model on the test rows, the one selected, and its bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clinloom import evaluate as evaluation
from clinloom import files
from clinloom.deploy import bundle as bundles
from clinloom.deploy.scorer import Scorer
from clinloom.evaluate import METRICS, Judged, Rows
from clinloom.features import Feature
from clinloom.run import parts, record, sides, train
from clinloom.run.dataset import units
from clinloom.run.predict import predict
from clinloom.run.train import Deployed
from clinloom.run.work import Tables, Work, plain
from clinloom.spark import saved, workers
from clinloom.spark.session import cores
from clinloom.store import Part, Pending, Stored, layout
from clinloom.store.stored import stream
from clinloom.study import Study
from clinloom.tables import RISKS, matrix

ROWS = 1 << 16  # test rows that a worker reads at once
SHOWN = 25  # features that a model's importance names
WITHHELD: dict[str, dict[str, float | None]] = {  # of a handful: it would tell who they are
    name: dict.fromkeys(("value", "low", "high")) for name in METRICS
}


def evaluate(
    work: Work,
    study: Study,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
) -> dict[str, Any]:
    """Judge every model on the rows that it has not seen; select by the folds; compare the
    modalities.

    Where several parts are judged, the metrics are of all their risks together, and flags are those
    of each part's own threshold; beside stands what each part tells alone.
    """
    selected = train.selected(models)
    alone = train.modalities(work, study, dataset, features, models)
    scorers = {name: train.scorers(models, name) for name in models}
    variants = {f"{selected}, {kind} only": each for kind, each in alone.items()}
    every = {**scorers, **variants}
    predicted = predict(work, dataset, features, models, every, selected)
    division = sides.division(study, dataset)

    def do(out: Pending) -> None:
        grouped = predicted["groups"].read()
        judged = {
            name: Judged.of(parts.together(grouped, name), _limit(models, name, each))
            for name, each in every.items()
        }
        flags = {
            parts.flagged(name): Judged.of(parts.flags(grouped, name, each), 0.5)
            for name, each in scorers.items()
            if len(each) > 1
        }
        limits = {n: parts.limits(each) for n, each in enumerate(scorers.values()) if flags}
        tests = _replicated(work, predicted["risks"], {**judged, **flags}, limits, study)
        for name in scorers if flags else ():
            flagged = {metric: tests[parts.flagged(name)][metric] for metric in parts.FLAGGED}
            tests[name] = {**tests[name], **flagged}
        found: dict[str, Any] = {
            "models": {
                name: {
                    **train.told(models, name),
                    "test": tests[name],
                    **parts.told(grouped, name, division),
                }
                for name in models
            },
            "selected": selected,
            "judged": {"method": study.split.method, "parts": division.names},
            "modalities": {"both": {"auroc": tests[selected]["auroc"]}},
        }
        for kind, name in zip(alone, variants, strict=True):
            found["modalities"][kind] = {"auroc": tests[name]["auroc"]}
        curves = {
            name: {
                "curves": evaluation.curves(risks=judged[name].risks),
                "importance": _importance(each, features),
            }
            for name, each in scorers.items()
        }
        out.put("evaluation", "metrics.json", json.dumps(found, indent=1))
        out.put("evaluation", "curves.json", json.dumps(curves))

    made = work.step(
        "evaluate",
        do,
        options=[plain(study.evaluate), study.seed],
        inputs={"predict": work.keys["predict"]},
    )
    text = made["evaluation"].text("metrics.json")
    told = work.store.root / "metrics.json"
    if files.exists(told) and files.read(told) != text.encode():  # a report would tell of others
        work.store.check()
        files.remove(work.store.root / layout.REPORT)
    work.store.write_text("metrics.json", text)
    metrics: dict[str, Any] = json.loads(text)
    return metrics


def _limit(models: Mapping[str, Tables], name: str, scorers: Sequence[Scorer]) -> float:
    """The threshold of a model at work; that of its one scorer where it is only compared."""
    at_work: float = train.told(models, name)["threshold"] if name in models else 0.0
    return at_work if name in models else scorers[0].threshold


def _importance(scorers: Sequence[Scorer], features: Sequence[Feature]) -> list[dict[str, Any]]:
    """The greatest, on average of the models that judge the parts."""
    found = np.mean([scorer.importance(len(features)) for scorer in scorers], axis=0)
    return [
        {"feature": features[at].name, "value": float(found[at])}
        for at in np.argsort(-found, kind="stable")[:SHOWN]
        if found[at] > 0
    ]


def _replicated(
    work: Work,
    risks: Stored,
    judged: Mapping[str, Judged],
    limits: Mapping[int, npt.NDArray[np.float64]],
    study: Study,
) -> dict[str, dict[str, dict[str, float | None]]]:
    """Every model's metrics with their intervals; the replicates are made in the workers."""
    asked = study.evaluate
    total = sum(len(one.risks.score) for one in judged.values())
    blocks = evaluation.blocks(asked.bootstrap, total, least=cores(work.spark))
    kernel = partial(
        replicates,
        files=[str(file) for file in risks.files()],
        judged=list(judged.values()),
        limits=limits,
        blocks=blocks,
        seed=study.seed,
    )
    found = workers.tasks(work.spark, len(blocks), kernel, merges={"drawn": pa.concat_tables})
    rows = found["drawn"].sort_by([("model", "ascending"), ("replicate", "ascending")])
    numbers = matrix(rows).reshape(len(judged), -1, len(METRICS))
    return {
        name: WITHHELD if one.few else evaluation.told(drawn, confidence=asked.confidence)
        for (name, one), drawn in zip(judged.items(), numbers, strict=True)
    }


def replicates(
    number: int,
    *,
    files: Sequence[str],
    judged: Sequence[Judged],
    limits: Mapping[int, npt.NDArray[np.float64]],
    blocks: Sequence[range],
    seed: int,
) -> Iterator[pa.RecordBatch]:
    """The replicates of a block, in a worker: model, replicate, metrics.

    ``limits``: thresholds by part of the models, by number, whose flags are judged beside.
    """
    found = evaluation.replicated(_rows(files, limits), judged, blocks[number], seed=seed)
    yield workers.partial("drawn", _metrics(found, blocks[number]))


def _rows(files: Sequence[str], limits: Mapping[int, npt.NDArray[np.float64]]) -> Iterator[Rows]:
    """The judged rows in chunks: subject, label, a risk a model, and then their flags.

    The order is that of the models: variants of modalities come before the flags.
    """
    for file in files:
        for rows in stream(file, RISKS.arrow.names, ROWS, coded=False):
            label = rows.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)
            risk, part = matrix(rows), rows.column("part").to_numpy()
            flags = [parts.flag(risk[:, n], limit[part]) for n, limit in limits.items()]
            told = np.column_stack([risk, *flags]) if flags else risk
            yield rows.column("subject_id").to_numpy(), label, told


def _metrics(found: npt.NDArray[np.float64], block: range) -> pa.Table:
    """(models, replicates, metrics) as a row a model and replicate."""
    models, times, width = found.shape
    offsets = np.arange(models * times + 1, dtype=np.int32) * width
    values = pa.ListArray.from_arrays(pa.array(offsets), pa.array(found.ravel()))
    return pa.table(
        {
            "model": np.repeat(np.arange(models), times),
            "replicate": np.tile(np.array(block), models),
            "values": values,
        }
    )


def bundle(
    work: Work,
    study: Study,
    events: Tables,
    features: Sequence[Feature],
    deployed: Deployed,
    found: Mapping[str, Any],
    reference: Tables,
) -> None:
    """Write the bundle of the model that is put to work; its parity was held when it was fitted."""

    selected = found["selected"]

    def do(out: Pending) -> None:
        bundles.publish(
            out.place("bundle"),
            scorer=deployed.scorer,
            study=study.portable(),
            features=features,
            units=units(events),
            reference=reference["reference"].text("reference.json"),
            evidence={
                "selected": selected,
                "study_hash": study.hash,
                "evidence": {**found["models"][selected], "parity": deployed.parity},
                **record.learned_from(
                    work.store.root, (f.code for f in features), dict(found), study
                ),
            },
            check=out.check,
            spark=partial(saved.copy, deployed.spark),
        )
        out.took("bundle", [Part(bundles.DOCUMENT, name=bundles.DOCUMENT)])

    steps = ("evaluate", "reference", *(("refit",) if study.deploy.refit else ()))
    inputs = {name: work.keys[name] for name in steps}
    work.step("bundle", do, options=study.portable(), inputs=inputs)
