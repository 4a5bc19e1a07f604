"""The spine: what a run does, from files to a bundle that scores."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clinloom import files, plugins
from clinloom import study as studies
from clinloom.errors import MissingDependency, StoreError, UsageError, instead
from clinloom.files import Address
from clinloom.learn.algorithm import algorithm
from clinloom.run import acquire, audit, dataset, fitted, judge, record, reference, train
from clinloom.run import look as looking
from clinloom.run import monitor as monitoring
from clinloom.run import score as scores
from clinloom.run import stream as streaming
from clinloom.run.progress import Progress
from clinloom.run.work import Work
from clinloom.spark.session import remote
from clinloom.store import Store, Stored, finished
from clinloom.study import Study

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run(
    study: Study | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> Run:
    """Run a study into the output ``out``, an address; go on after the last committed stage.

    The study's ``storage`` holds in this process from then on. Raises StudyError, SourceError,
    DataError, MissingDependency, StoreError or ParityError, each with its mend.
    """
    study = study if isinstance(study, Study) else read_study(study, overrides=overrides)
    check(study, spark)
    files.use({**files.settings(), **files.checked(study.storage)})
    store = Store(files.address(out), note=progress.note if progress else None)
    work = Work(study, store, progress=progress, spark=spark)
    try:
        store.write_text("study.resolved.yaml", yaml.safe_dump(study.resolved(), sort_keys=False))

        acquired = acquire.acquire(work, study)
        events = dataset.clean(work, study, acquired)
        cohort = dataset.build_cohort(work, study, events)
        features = dataset.feature_list(cohort)
        rows = dataset.build_features(work, study, events, cohort, features)
        audit.audit(work, study, acquired, events, cohort, rows, features)
        models = train.train(work, study, rows, features)
        fitted.prepared(work, study, rows, features, models)
        evaluation = judge.evaluate(work, study, rows, features, models)
        watched = reference.reference(
            work, acquired, rows, features, models, evaluation["selected"]
        )
        at_work = train.deployed(work, study, rows, features, models, evaluation["selected"])
        judge.bundle(work, study, events, features, at_work, evaluation, watched)
        record.tell(work, study)
    finally:
        work.close()
    return Run(store.root)


def check(study: Study, spark: SparkSession | None = None) -> None:
    """Raise MissingDependency where a plug-in that the study names lacks a library, UsageError
    where a model cannot be fitted over Spark Connect, which is where the study would run."""
    for room, name in named(study):
        plugins.check(room, name)
    if ("connect" in study.platform and spark is None) or remote(spark):
        for name in study.models:
            if not algorithm(name).CONNECT:
                raise UsageError(
                    f"'{name}' cannot be fitted over Spark Connect: its library needs Spark's own"
                    " context",
                    where=f"models.{name}",
                    mend="leave it out there, or run on another platform (`--on local`, `yarn`)",
                )


def lacking(study: Study) -> list[str]:
    """What a run of the study would lack here, a line a plug-in."""
    found = []
    for room, name in named(study):
        try:
            plugins.check(room, name)
        except MissingDependency as error:
            found.append(f"{error.message}: {error.mend}")
    if not found:
        try:
            check(study)
        except UsageError as error:
            found.append(f"{error.message}: {error.mend}")
    return found


def apart(study: Study) -> list[str]:
    """What is plain before the data are read of sources that share no patient, a line each."""
    return acquire.apart(study)


def unzoned(study: Study) -> list[str]:
    """What is plain before the data are read of times whose zone nobody tells, a line each."""
    return list(looking.zoneless(study))


def look(study: Study) -> dict[str, looking.Seen]:
    """What the heads of the sources hold. Raises SourceError where one does not fit the study."""
    files.use({**files.settings(), **files.checked(study.storage)})
    return looking.look(study)


def doubts(study: Study, seen: Mapping[str, looking.Seen]) -> list[str]:
    """Where the study and what was seen do not fit, a line each."""
    return [*looking.notes(seen), *looking.unmatched(study, seen)]


def named(study: Study) -> Iterator[tuple[str, str]]:
    """Every plug-in that the study names, as (room, name)."""
    for kind in dict.fromkeys(o.type for o in study.sources.values()):
        yield "sources", kind
    for room in ("clean", "features", "models"):
        yield from ((room, name) for name in getattr(study, room))


def read_study(path: str | os.PathLike[str], *, overrides: Sequence[str] = ()) -> Study:
    """Read and check a study file, at any address. Raises StudyError with every fault."""
    return studies.read(path, rooms=plugins, overrides=overrides)


def render(out: str | os.PathLike[str]) -> Address:
    """Write a finished run's report again. Raises UsageError where no run is."""
    at = files.address(out)
    if not files.exists(at / "metrics.json"):
        raise UsageError(f"'{out}' holds no finished run", mend="clinloom run STUDY --out DIR")
    return record.render(at)


def sweep(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Remove what no commit of an output names: what killed runs and attempts left behind."""
    at = files.address(out)
    if not files.exists(at / "manifest.json"):
        raise UsageError(f"'{out}' is no output of a run", mend="clinloom sweep OUT")
    store = Store(at)
    try:
        return {"out": str(at), **store.sweep()}
    finally:
        store.close()


def score(
    bundle: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    form: str = "parquet",
    options: Sequence[str] = (),
    overrides: Sequence[str] = (),
    watched: bool = False,
    reasons: int = 0,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Score new patients from the same kinds of source; leave the scores at ``out``.

    ``form``: one Parquet file unless told, or another of :mod:`clinloom.outputs`, with ``options``
    as ``NAME=VALUE``. ``watched``: beside it, in ``<out>.features``, what :func:`monitor` reads of
    the features; ``reasons``: how many are told beside each risk, for a worklist.
    """
    asked: dict[str, Any] = {"form": form, "options": options, "overrides": overrides}
    asked |= {"watched": watched, "reasons": reasons}
    return scores.score(
        os.fspath(bundle), out=os.fspath(out), **asked, progress=progress, spark=spark
    )


def compare(
    bundle: str | os.PathLike[str], challenger: str | os.PathLike[str], **asked: Any
) -> dict[str, Any]:
    """Hold a challenger against a model at work: see :func:`clinloom.run.compare.compare`."""
    from clinloom.run import compare as rivals

    return rivals.compare(os.fspath(bundle), os.fspath(challenger), **asked)


def recalibrate(
    bundle: str | os.PathLike[str],
    *,
    predictions: str | os.PathLike[str],
    out: str | os.PathLike[str],
    **asked: Any,
) -> dict[str, Any]:
    """Learn a model's calibration anew: see :func:`clinloom.run.recalibrate.recalibrate`."""
    from clinloom.run import recalibrate as update

    told: dict[str, Any] = {"predictions": os.fspath(predictions), "out": os.fspath(out)}
    return update.recalibrate(os.fspath(bundle), **told, **asked)


def validate_external(
    bundle: str | os.PathLike[str], *, out: str | os.PathLike[str], **asked: Any
) -> dict[str, Any]:
    """Judge a bundle on other patients: see :func:`clinloom.run.external.validate_external`."""
    from clinloom.run import external

    return external.validate_external(os.fspath(bundle), out=os.fspath(out), **asked)


def stream(
    bundle: str | os.PathLike[str], *, out: str | os.PathLike[str], **asked: Any
) -> dict[str, Any]:
    """Score what comes, until it is stopped: see :func:`clinloom.run.stream.stream`."""
    return streaming.stream(os.fspath(bundle), out=os.fspath(out), **asked)


def monitor(
    bundle: str | os.PathLike[str],
    *,
    predictions: str | os.PathLike[str],
    **asked: Any,
) -> dict[str, Any]:
    """Say whether a model at work has grown unfit: see :func:`clinloom.run.monitor.monitor`."""
    return monitoring.monitor(os.fspath(bundle), predictions=os.fspath(predictions), **asked)


def _said(metric: Mapping[str, float | None]) -> str:
    """A metric with its interval, as far as there are any."""
    value, low, high = (metric[name] for name in ("value", "low", "high"))
    if value is None:
        return "not told: too few test rows with or without the outcome"
    between = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
    return f"{value:.3f}{between}"


DEMO = Path(__file__).parents[1] / "synth" / "study.yaml"


def demo(
    out: str | os.PathLike[str],
    *,
    patients: int = 2000,
    seed: int = 7,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> Run:
    """Make a synthetic hospital below ``out``, an address, and run the whole study on it."""
    from clinloom.spark import waiting
    from clinloom.synth import synthesise

    progress = progress or Progress(form="quiet")
    at = files.address(out)
    data = at / "data"
    changes = [f"sources.ehr.path={data / 'fhir'}", f"sources.cxr.path={data / 'dicom'}"]
    study = read_study(DEMO, overrides=[*changes, *overrides])
    files.use({**files.settings(), **files.checked(study.storage)})
    asked = json.dumps({"patients": patients, "seed": seed}).encode()
    stamp = data / "asked.json"
    made = all(files.exists(data / name) for name in ("truth.json", "asked.json"))
    if not made or files.read(stamp) != asked:
        progress.note(f"making {patients:,} patients in {data}")
        with waiting.started(progress.note, spark) as spark:
            synthesise(spark, data, patients=patients, seed=seed, log=progress.note)
        files.write(stamp, asked)
    return run(study, out=at, progress=progress, spark=spark)


@dataclass(frozen=True)
class Run:
    """A finished run: its output's address, and what lies in it."""

    out: Address

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json``."""
        found: dict[str, Any] = json.loads(files.read(self.out / "metrics.json"))
        return found

    @property
    def report(self) -> Address:
        """The report's address."""
        return self.out / "report.html"

    def table(self, name: str) -> Stored:
        """A committed table: ``run.table("events").read()``. Raises StoreError for another name."""
        found = finished(self.out)
        if name not in found:
            mend = instead(name, sorted(found))
            raise StoreError(f"there is no table '{name}'", where=str(self.out), mend=mend)
        return found[name]

    def summary(self) -> dict[str, Any]:
        """What a person should know first (``warnings`` on the sources), and asks first."""
        doubted = record.first(self.out)
        selected = self.metrics["selected"]
        auroc = self.metrics["models"][selected]["test"]["auroc"]
        return {
            **({"warnings": doubted} if doubted else {}),
            "selected": selected,
            "auroc": _said(auroc),
            "report": str(self.report),
            "bundle": str(self.out / "bundle"),
        }

    def _repr_html_(self) -> str:
        """The report, in a notebook."""
        import html

        page = html.escape(files.read(self.report).decode(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:800px;border:0"></iframe>'
