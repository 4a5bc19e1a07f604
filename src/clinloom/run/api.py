"""The spine: what a run does, from files to a bundle that scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clinloom import plugins
from clinloom import study as studies
from clinloom.errors import UsageError
from clinloom.run import acquire, dataset, judge, record, train
from clinloom.run import score as scores
from clinloom.run.progress import Progress
from clinloom.run.work import Work
from clinloom.store import Store
from clinloom.study import Study

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def run(
    study: Study | str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> Run:
    """Run a study into the folder ``out``; go on after the last committed stage.

    Raises StudyError, SourceError, DataError, StoreError or ParityError, each with its mend.
    """
    study = study if isinstance(study, Study) else read_study(study, overrides=overrides)
    store = Store(out)
    try:
        work = Work(study, store, progress=progress, spark=spark)
        store.write_text("study.resolved.yaml", yaml.safe_dump(study.resolved(), sort_keys=False))

        acquired = acquire.acquire(work, study)
        events = dataset.clean(work, study, acquired)
        index = dataset.build_cohort(work, study, events)
        features = dataset.learn_features(work, study, events, index)
        rows = dataset.build_features(work, events, index, features)
        models = train.train(work, study, rows, features)
        evaluation = judge.evaluate(work, study, rows, features, models)
        judge.bundle(work, study, rows, features, models, evaluation)
        record.tell(work, study)
    finally:
        store.close()
    return Run(Path(out))


def read_study(path: str | Path, *, overrides: Sequence[str] = ()) -> Study:
    """Read and check a study file. Raises StudyError with every fault."""
    return studies.read(path, rooms=plugins, overrides=overrides)


def render(out: str | Path) -> Path:
    """Write a finished run's report again. Raises UsageError where no run is."""
    folder = Path(out)
    if not (folder / "metrics.json").exists():
        raise UsageError(f"'{out}' holds no finished run", mend="clinloom run STUDY --out DIR")
    return record.render(folder)


def score(
    bundle: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> dict[str, Any]:
    """Score new patients from the same kinds of source; write one Parquet file."""
    return scores.score(bundle, out=out, overrides=overrides, progress=progress, spark=spark)


DEMO = Path(__file__).parents[1] / "synth" / "study.yaml"


def demo(
    out: str | Path,
    *,
    patients: int = 2000,
    seed: int = 7,
    progress: Progress | None = None,
    spark: SparkSession | None = None,
) -> Run:
    """Make a synthetic hospital below ``out`` and run the whole study on it."""
    from clinloom.spark.session import session
    from clinloom.synth import synthesise

    progress = progress or Progress(form="quiet")
    data = Path(out) / "data"
    made = data / "truth.json"
    asked = {"patients": patients, "seed": seed}
    stamp = data / "asked.json"
    if not (made.exists() and stamp.exists() and json.loads(stamp.read_text()) == asked):
        progress.note(f"making {patients:,} patients in {data}")
        synthesise(spark or session(), data, patients=patients, seed=seed, log=progress.note)
        stamp.write_text(json.dumps(asked))
    overrides = [f"sources.ehr.path={data / 'fhir'}", f"sources.cxr.path={data / 'dicom'}"]
    return run(DEMO, out=Path(out), overrides=overrides, progress=progress, spark=spark)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and what lies in it."""

    out: Path

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """``metrics.json``."""
        return json.loads((self.out / "metrics.json").read_text())

    @property
    def report(self) -> Path:
        """The report's file."""
        return self.out / "report.html"

    def summary(self) -> dict[str, Any]:
        """What a person asks first."""
        selected = self.metrics["selected"]
        auroc = self.metrics["models"][selected]["test"]["auroc"]
        return {
            "selected": selected,
            "auroc": f"{auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})",
            "report": str(self.report),
            "bundle": str(self.out / "bundle"),
        }

    def _repr_html_(self) -> str:
        """The report, in a notebook."""
        import html

        page = html.escape(self.report.read_text(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:800px;border:0"></iframe>'
