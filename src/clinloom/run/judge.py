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
from clinloom.evaluate import METRICS, Judged, Rows, points
from clinloom.evaluate.points import Asked
from clinloom.evaluate.subgroups import NUMBERS, Cut, Grouped, unfound
from clinloom.features import Feature
from clinloom.report import disclosure
from clinloom.run import explain, parts, record, sides, subgroups, train
from clinloom.run.dataset import units
from clinloom.run.parts import FLAGGED
from clinloom.run.predict import predict
from clinloom.run.subgroups import Keys
from clinloom.run.train import Deployed
from clinloom.run.work import Tables, Work, plain
from clinloom.spark import saved, workers
from clinloom.spark.session import cores
from clinloom.store import Part, Pending, Stored, layout
from clinloom.store.stored import stream
from clinloom.study import Study
from clinloom.tables import RISKS, matrix

ROWS = 1 << 16  # test rows that a worker reads at once
Floats = npt.NDArray[np.float64]
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
    predicted = predict(work, dataset, features, models, every, selected, study.evaluate)
    division = sides.division(study, dataset)

    def do(out: Pending) -> None:
        grouped, at = predicted["groups"].read(), asked(study)
        judged = {
            name: Judged.of(
                parts.together(grouped, name),
                _limit(models, name, each),
                at,
                repeats=division.repeats,
            )
            for name, each in every.items()
        }
        flags = {
            parts.flagged(name): Judged.of(parts.flags(grouped, name, each), 0.5, at)
            for name, each in scorers.items()
            if len(each) > 1
        }
        limits = {n: parts.limits(each) for n, each in enumerate(scorers.values()) if flags}
        groups = subgroups.groups_of(features, study.evaluate)
        keyed = subgroups.by_key(predicted["subgroups"].read())
        patients = {row.pop("key"): row for row in predicted["patients"].read().to_pylist()}
        keys = _keys(judged, selected, len(groups), patients if study.evaluate.months else {})
        both = {**judged, **flags}
        drawn, of_keys = _replicated(work, predicted["risks"], both, limits, study, keys)
        confidence, of_flags = study.evaluate.confidence, [METRICS.index(m) for m in FLAGGED]
        for name in scorers if flags else ():
            drawn[name] = drawn[name].copy()
            drawn[name][:, of_flags] = drawn[parts.flagged(name)][:, of_flags]
        tests = {name: _told(one, drawn[name], confidence) for name, one in judged.items()}
        found: dict[str, Any] = {
            "models": {
                name: {
                    **train.told(models, name),
                    "test": tests[name]["test"],
                    "points": tests[name]["points"],
                    **parts.told(grouped, name, division),
                }
                for name in models
            },
            "selected": selected,
            "judged": {"method": study.split.method, "parts": division.names},
            "modalities": {"both": {"auroc": tests[selected]["test"]["auroc"]}},
        }
        for kind, name in zip(alone, variants, strict=True):
            found["modalities"][kind] = {"auroc": tests[name]["test"]["auroc"]}
        if not judged[selected].few:
            found |= subgroups.told(
                of_keys,
                keys,
                groups,
                keyed,
                patients,
                repeats=division.repeats,
                threshold=judged[selected].threshold,
                confidence=confidence,
            )
            found["paired"] = {
                name: _apart(tests, selected, name, drawn, confidence)
                for name in judged
                if name != selected
            }
            if study.evaluate.explain:
                found["explanation"] = explain.explanation(
                    work,
                    predicted["sampled"],
                    scorers[selected][0],
                    features,
                    seed=study.seed,
                    confidence=confidence,
                )
        found["unfound"] = unfound(groups, study.evaluate.subgroups)
        curves = {
            name: {"curves": tests[name]["curves"], "importance": _importance(each, features)}
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
        for name in (layout.REPORT, *layout.BESIDE):
            if files.exists(work.store.root / name):
                files.remove(work.store.root / name)
    work.store.write_text("metrics.json", text)
    metrics: dict[str, Any] = json.loads(text)
    return metrics


def _limit(models: Mapping[str, Tables], name: str, scorers: Sequence[Scorer]) -> float:
    """The threshold of a model at work; that of its one scorer where it is only compared."""
    if name not in models:
        return scorers[0].threshold
    at_work: float = train.told(models, name)["threshold"]
    return at_work


def _importance(scorers: Sequence[Scorer], features: Sequence[Feature]) -> list[dict[str, Any]]:
    """The greatest, on average of the models that judge the parts."""
    found = np.mean([scorer.importance(len(features)) for scorer in scorers], axis=0)
    return [
        {"feature": features[at].name, "value": float(found[at])}
        for at in np.argsort(-found, kind="stable")[:SHOWN]
        if found[at] > 0
    ]


def asked(study: Study) -> Asked:
    """Where flags are judged besides the models' own thresholds."""
    told = study.evaluate
    return Asked(
        thresholds=tuple(told.thresholds),
        alert_rates=tuple(told.alert_rates),
        sensitivities=tuple(told.sensitivities),
    )


def _told(judged: Judged, drawn: Floats, confidence: float) -> dict[str, Any]:
    """What is told of a model; of a handful it would tell who they are."""
    found = evaluation.summed_up(drawn, judged, confidence=confidence)
    for point in found["points"]:
        if disclosure.few_flagged(point["alert_rate"]["value"], judged.rows):
            point |= {name: dict.fromkeys(("value", "low", "high")) for name in points.NUMBERS}
            point["hidden"] = True
    if judged.few:
        return {**found, "test": WITHHELD, "points": []}
    return {**found, "test": showable(found["test"], judged.rows)}


def showable(test: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The metrics without those of flags where few of the rows are flagged, or are not."""
    if not disclosure.few_flagged(test["alert_rate"]["value"], rows):
        return dict(test)
    return {**test, **{name: WITHHELD[name] for name in FLAGGED}}


def _apart(
    tests: Mapping[str, Any],
    one: str,
    other: str,
    drawn: Mapping[str, Floats],
    confidence: float,
) -> dict[str, Any]:
    """What sets a model apart from another; nothing of what either may not tell."""
    found = evaluation.paired(drawn[one], drawn[other], confidence=confidence)
    hidden = {
        name
        for name in FLAGGED
        if any(tests[model]["test"][name]["value"] is None for model in (one, other))
    }
    return {k: WITHHELD[k] if k in hidden else v for k, v in found.items()}


def _keys(
    judged: Mapping[str, Judged], selected: str, groups: int, found: Mapping[int, Any]
) -> Keys:
    """What the selected model's replicates are added up by."""
    one = judged[selected]
    periods, step = subgroups.periods(found)
    cut = Cut.of(one.risks, one.threshold)
    return Keys(cut, list(judged).index(selected), groups, periods, step)


def _replicated(
    work: Work,
    risks: Stored,
    judged: Mapping[str, Judged],
    limits: Mapping[int, Floats],
    study: Study,
    keys: Keys,
) -> tuple[dict[str, Floats], Floats]:
    """Every model's replicates, and those by key; they are made in the workers."""
    total = sum(len(one.risks.score) for one in judged.values())
    total += len(keys.cut.score) * (keys.count + 1)
    blocks = evaluation.blocks(study.evaluate.bootstrap, total, least=cores(work.spark))
    kernel = partial(
        replicates,
        files=[str(file) for file in risks.files()],
        judged=list(judged.values()),
        limits=limits,
        blocks=blocks,
        seed=study.seed,
        keys=keys,
    )
    merges = {"drawn": pa.concat_tables, "grouped": pa.concat_tables}
    found = workers.tasks(work.spark, len(blocks), kernel, merges=merges)
    drawn = _sorted(found["drawn"], len(judged), study.evaluate.bootstrap + 1, -1)
    shape = (study.evaluate.bootstrap + 1, keys.count, 2, len(NUMBERS))
    grouped = _sorted(found["grouped"], *shape) if keys.count else np.zeros(shape)
    return dict(zip(judged, drawn, strict=True)), grouped


def _sorted(found: pa.Table, *shape: int) -> Floats:
    """The numbers of all models and replicates, in their order."""
    rows = found.sort_by([("model", "ascending"), ("replicate", "ascending")])
    return matrix(rows).reshape(shape)


def replicates(
    number: int,
    *,
    files: Sequence[str],
    judged: Sequence[Judged],
    limits: Mapping[int, Floats],
    blocks: Sequence[range],
    seed: int,
    keys: Keys,
) -> Iterator[pa.RecordBatch]:
    """The replicates of a block, in a worker: model, replicate, metrics; and those by key.

    ``limits``: thresholds by part of the models, by number, whose flags are judged beside.
    """
    block = blocks[number]
    grouped = Grouped(keys.cut, keys.count, len(block)) if keys.count else None
    found = evaluation.replicated(
        _rows(files, limits, keys), judged, block, seed=seed, grouped=grouped, of=keys.of
    )
    yield workers.partial("drawn", _metrics(found, block))
    if grouped is not None:
        told = grouped.measured().reshape(1, len(block), -1)
        yield workers.partial("grouped", _metrics(told, block))


def _rows(files: Sequence[str], limits: Mapping[int, Floats], keys: Keys) -> Iterator[Rows]:
    """The judged rows in chunks: subject, label, a risk a model, then their flags; and keys.

    The order is that of the models: variants of modalities come before the flags.
    """
    for file in files:
        for rows in stream(file, RISKS.arrow.names, ROWS, coded=False):
            label = rows.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)
            risk, part = matrix(rows), rows.column("part").to_numpy()
            flags = [parts.flag(risk[:, n], limit[part]) for n, limit in limits.items()]
            told = np.column_stack([risk, *flags]) if flags else risk
            pairs = keys.pairs(rows.column("member").to_numpy(), rows.column("month").to_numpy())
            yield rows.column("subject_id").to_numpy(), label, told, pairs


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
