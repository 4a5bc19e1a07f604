"""The steps from the integrated dataset to trained models, and to the one that is put to work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from clinloom import files
from clinloom.cohort.division import Division
from clinloom.cohort.split import fold_seed
from clinloom.deploy.scorer import Scorer, difference, held
from clinloom.features import Feature
from clinloom.files import Address
from clinloom.learn.algorithm import algorithm
from clinloom.learn.search import NOWHERE
from clinloom.run import sides
from clinloom.run.learners import Learner, learners
from clinloom.run.work import Tables, Work, plain
from clinloom.spark import workers
from clinloom.store import Pending, Stored
from clinloom.study import Study
from clinloom.tables import DATASET, TRIALS, matrix

if TYPE_CHECKING:
    from clinloom.learn.training import Folds, Trained

PARITY_ROWS = 5000  # rows on which the scorer is held against Spark
MODALITIES = ("records", "images")


def train(
    work: Work, study: Study, dataset: Tables, features: Sequence[Feature]
) -> dict[str, Tables]:
    """Tune and fit every model, and the rivals beside them, each a step of its own; refuse one
    whose scorer disagrees."""
    shared = Shared(work, study, dataset, features)

    def one(learner: Learner) -> Tables:
        name = learner.name
        given: dict[str, Any] = {
            "inputs": {"features": work.keys["features"]},
            "uses": [("models", learner.algorithm)],
        }
        options = [plain(learner.options), plain(study.split), study.seed, learner.use]
        trials = Trials(work, name, work.key(f"trial/{name}", options=options, **given))
        how = [study.evaluate.threshold, study.calibration, plain(study.tune)]
        made = work.step(
            f"train/{name}",
            lambda out: _train(work, study, dataset, shared, learner, trials, out),
            options=[*options, *how],
            **given,
        )
        trials.close()
        return made

    try:
        return {learner.name: one(learner) for learner in learners(study, features)}
    finally:
        shared.close()


class Trials:
    """What a model's trials told, each committed when it is whole: a killed run goes on there."""

    def __init__(self, work: Work, model: str, key: str):
        self.work, self.key = work, key
        self.table, self.stages = f"trials.{model}", f"trial/{model}/"

    def get(self, trial: str) -> pa.Table | None:
        """TRIALS; None where the trial was not made."""
        if not self.work.store.current(f"{self.stages}{trial}", self.key):
            return None
        return self.work.store.stored(f"{self.stages}{trial}", self.table).read()

    def __setitem__(self, trial: str, told: pa.Table) -> None:
        with self.work.store.writing(f"{self.stages}{trial}", self.key) as out:
            out.write(TRIALS, told, name=self.table)

    def close(self) -> None:
        """They are not needed more, when the model is trained."""
        self.work.store.forget(self.stages)


class Shared:
    """The prepared folds, made when the first model needs them.

    The rows are read and spread once a repeat, for every fold and every choice of features: Spark
    holds them on its own disks.
    """

    def __init__(self, work: Work, study: Study, dataset: Tables, features: Sequence[Feature]):
        self.work, self.study, self.dataset, self.width = work, study, dataset, len(features)
        self.division = sides.division(study, dataset)
        self._rows: dict[int, tuple[Any, int]] = {}
        self._held: dict[tuple[int, tuple[int, ...]], Folds] = {}

    def folds(self, repeat: int = 0, use: Sequence[int] = ()) -> Folds:
        """The folds of a repeat, of all features or of those that ``use`` numbers."""
        from clinloom.learn.training import Folds

        key = repeat, tuple(use)
        if key not in self._held:
            rows, parts = self._spread(repeat)
            folds, crossed = self.division.folds, self.division.crossed
            self._held[key] = Folds(rows, folds=folds, use=use, parts=parts, crossed=crossed)
        return self._held[key]

    def of(self, part: int, use: Sequence[int] = (), *, missing: bool) -> Any:
        """The rows that the model that judges a part is learned from."""
        return self.folds(part // self.division.each, use).part(None, part, missing=missing)

    def _spread(self, repeat: int) -> tuple[Any, int]:
        """The rows, a DataFrame, and in how many partitions they lie."""
        from clinloom.learn.training import spread, training_rows
        from clinloom.spark.session import cores
        from clinloom.spark.shuffle import ON_DISK

        if repeat not in self._rows:
            table, spark = self.dataset["dataset"], self.work.spark
            parts = spread((table.rows or 0) * self.width * 8, cores(spark))
            frame = with_division(workers.read(spark, table, DATASET), self.division, repeat)
            fold, part = _column("fold"), _column("part")
            rows = training_rows(frame, fold, parts=parts, part=part).persist(ON_DISK)
            self._rows[repeat] = rows, parts
        return self._rows[repeat]

    def close(self) -> None:
        """Let go of the rows, prepared and not."""
        for folds in self._held.values():
            folds.close()
        for rows, _ in self._rows.values():
            rows.unpersist()
        self._held, self._rows = {}, {}


def _column(name: str) -> Any:
    from pyspark.sql import functions as F

    return F.col(name)


def with_division(frame: Any, division: Division, repeat: int) -> Any:
    """The dataset with each patient's fold, as ``cohort.split.fold`` has it, and each row's part,
    as :class:`Division` has it."""
    from pyspark.sql import functions as F

    seed = F.lit(fold_seed(division.seed, division.salts[repeat])).cast("long")
    buckets = F.pmod(F.xxhash64(seed, F.col("subject_id")), F.lit(2**31))
    fold = F.floor(buckets * division.folds / F.lit(2.0**31))
    if division.crossed:
        inside = F.col("split").isNotNull()
        part = F.when(inside, fold + repeat * division.folds).otherwise(NOWHERE)
    else:
        part = F.lit(NOWHERE)
        for number, name in enumerate(division.parts):
            part = F.when(F.col("split") == name, number).otherwise(part)
    return frame.withColumns({"fold": fold.cast("long"), "part": part.cast("long")})


def _train(
    work: Work,
    study: Study,
    dataset: Tables,
    shared: Shared,
    learner: Learner,
    trials: Trials,
    out: Pending,
) -> None:
    from clinloom.learn import training

    model, division = f"models.{learner.name}", shared.division
    settled, failed = training.settle(
        learner.algorithm,
        learner.options,
        [shared.folds(repeat, learner.use) for repeat in range(division.repeats)],
        division.fits(),
        seed=study.seed,
        by=study.evaluate.threshold,
        method=study.calibration,
        how=study.tune,
        kept=trials,
        note=lambda line: work.progress.note(f"{learner.name}: {line}"),
    )
    worst, alone = 0.0, len(division.names) == 1
    for part in range(len(division.names)):
        trained = training.trained(
            learner.algorithm,
            learner.options,
            settled[part],
            shared.of(part, learner.use, missing=algorithm(learner.algorithm).MISSING),
            seed=study.seed,
            place=str(out.folder(model, "spark") if alone else out.scratch(str(part)) / "spark"),
        )
        scorer = scorer_of(trained)
        worst = max(worst, _agree(work, dataset, trained, scorer))
        out.put(model, f"scorer-{part}.npz", scorer.dump())
    whole = settled[None]
    found = {
        "title": learner.title,
        "rival": learner.rival,
        "point": whole.point,
        "fold_auroc": float(np.mean(whole.fold_auroc)) if whole.fold_auroc else None,
        "folds": whole.fold_auroc,
        "threshold": whole.threshold,
        "parity": worst,
        "failed": failed,
    }
    out.put(model, "trained.json", json.dumps(found))
    every = [settled[part].plain() for part in (*range(len(division.names)), None)]
    out.put(model, "settled.json", json.dumps(every))


class Deployed(NamedTuple):
    """The model that is put to work: its scorer, its saved pipeline, and how far they differ."""

    scorer: Scorer
    spark: Address
    parity: float


def deployed(
    work: Work,
    study: Study,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
    name: str,
) -> Deployed:
    """The model that is put to work: ``name``, fitted once more, on all rows, as it was tuned.

    Its calibration and threshold are those that the folds gave: no row that a fit has seen tells of
    its risks. Without ``deploy.refit`` it is the model that was judged.
    """
    if not study.deploy.refit:
        kept = model_of(models, name)
        return Deployed(scorers(models, name)[0], kept.file("spark"), told(models, name)["parity"])

    def do(out: Pending) -> None:
        from clinloom.learn import training

        settled = training.Settled.parse(
            json.loads(model_of(models, name).text("settled.json"))[-1]
        )
        shared = Shared(work, study, dataset, features)
        try:
            whole = shared.folds().part(None, missing=algorithm(name).MISSING)
            place = str(out.folder("models.deployed", "spark"))
            options = study.models[name]
            trained = training.trained(name, options, settled, whole, seed=study.seed, place=place)
            scorer = scorer_of(trained)
            worst = _agree(work, dataset, trained, scorer)
        finally:
            shared.close()
        out.put("models.deployed", "scorer.npz", scorer.dump())
        out.put("models.deployed", "refitted.json", json.dumps({"parity": worst}))

    options = [plain(study.models[name]), study.seed]
    made = work.step("refit", do, options=options, inputs=keys(work, models, "features"))
    kept = made["models.deployed"]
    parity = json.loads(kept.text("refitted.json"))["parity"]
    return Deployed(_scorer(kept, "scorer.npz"), kept.file("spark"), parity)


def selected(models: Mapping[str, Tables]) -> str:
    """The model that the folds say is best; no rival."""
    areas = {name: found["fold_auroc"] or 0.0 for name in models
             if not (found := told(models, name))["rival"]}  # fmt: skip
    return max(areas, key=areas.__getitem__)


def told(models: Mapping[str, Tables], name: str) -> dict[str, Any]:
    """What the folds said of a model: its point, threshold and areas."""
    found: dict[str, Any] = json.loads(model_of(models, name).text("trained.json"))
    return found


def scorers(models: Mapping[str, Tables], name: str) -> list[Scorer]:
    """A model's scorers, one a part that is judged."""
    kept = model_of(models, name)
    parts = json.loads(kept.text("settled.json"))[:-1]
    return [_scorer(kept, f"scorer-{part}.npz") for part in range(len(parts))]


def model_of(models: Mapping[str, Tables], name: str) -> Stored:
    """A trained model as it was committed."""
    return models[name][f"models.{name}"]


def _scorer(stored: Stored, name: str) -> Scorer:
    return Scorer.parse(files.read(stored.file(name)))


def modalities(
    work: Work,
    study: Study,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
) -> dict[str, list[Scorer]]:
    """The selected model fitted on records only and on images only, where there are both.

    They are raw: neither recalibrated nor held against a threshold of their own.
    """
    use = {m: [i for i, f in enumerate(features) if f.modality == m] for m in MODALITIES}
    if not study.evaluate.modalities or not all(use.values()):
        return {}
    name = selected(models)
    settled = json.loads(model_of(models, name).text("settled.json"))[:-1]

    def do(out: Pending) -> None:
        from clinloom.learn import training

        place, missing = out.scratch("trees"), algorithm(name).MISSING
        shared = Shared(work, study, dataset, features)
        try:
            for kind in MODALITIES:
                for number, one in enumerate(settled):
                    part, point = shared.of(number, use[kind], missing=missing), one["point"]
                    model = training.fit(name, study.models[name], point, part, seed=study.seed)
                    arrays = training.flattened(name, model, str(place / f"{kind}-{number}"))
                    made = Scorer(name, part.preparation.statistics, arrays, 1.0, 0.0, 0.5)
                    out.put("modalities", f"{kind}-{number}.npz", made.dump())
        finally:
            shared.close()

    options = [plain(study.models[name]), study.seed]
    made = work.step("modalities", do, options=options, inputs=keys(work, models, "features"))
    return {
        kind: [_scorer(made["modalities"], f"{kind}-{n}.npz") for n in range(len(settled))]
        for kind in MODALITIES
    }


def keys(work: Work, models: Mapping[str, Tables], *more: str) -> dict[str, str]:
    """What depends on every model depends on these steps."""
    return {step: work.keys[step] for step in (*more, *(f"train/{name}" for name in models))}


def scorer_of(trained: Trained) -> Scorer:
    """The scorer of a trained model."""
    return Scorer(
        model=trained.name,
        statistics=trained.statistics,
        arrays=trained.arrays,
        threshold=trained.settled.threshold,
        **vars(trained.settled.calibrator),
    )


def _agree(work: Work, dataset: Tables, trained: Trained, scorer: Scorer) -> float:
    """The parity gate: the scorer against ``PipelineModel.transform``, in workers."""
    from clinloom.learn.stages import raw_risk

    frame = workers.read(work.spark, dataset["dataset"], DATASET).limit(PARITY_ROWS)
    raw = raw_risk(algorithm(scorer.model).MARGIN).alias("raw")
    made = trained.pipeline.transform(frame).select("values", raw, "predicted_boolean_probability")
    found = workers.summed(made, partial(_off, scorer=scorer), _worst, parts=1)
    return held(scorer, found.column("worst")[0].as_py() if found is not None else 0.0)


def _off(tables: Iterable[pa.Table], *, scorer: Scorer) -> pa.Table:
    """How far the scorer's risks of some rows lie from Spark's, at most; NaN where one is."""
    found = [
        difference(
            scorer,
            matrix(rows),
            rows.column("predicted_boolean_probability").to_numpy(),
            raw=rows.column("raw").to_numpy(),
        )
        for rows in tables
    ]
    return pa.table({"worst": [float(np.max([0.0, *found]))]})


def _worst(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.table({"worst": [float(np.max(pa.concat_tables(tables).column("worst").to_numpy()))]})
