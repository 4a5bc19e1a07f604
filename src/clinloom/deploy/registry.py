"""MLflow: a finished run is tracked there, its bundle registered, and loaded from there by name.

``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` stands wherever a bundle's address does, on this
machine; the server is MLflow's own setting (``MLFLOW_TRACKING_URI``). What MLflow serves by itself
is loaded by :mod:`clinloom.deploy.flavour`, without a JVM.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from clinloom import __version__, files
from clinloom.deploy.bundle import REGISTRY, Bundle
from clinloom.errors import MissingDependency, StoreError, UsageError
from clinloom.files import Address

BUNDLE = "bundle"  # its folder's name in a registered model
TOLD = ("report.html", "metrics.json", "run.json", "study.resolved.yaml")  # of a run, beside it
HASH = "clinloom.bundle"  # the tag by which a run is known again
MODEL = "clinloom.model"  # and the one that names its bundle there
LONGEST = 500  # characters of a parameter that MLflow's servers keep


def track(
    out: str | os.PathLike[str],
    *,
    uri: str | None = None,
    experiment: str | None = None,
    register: str | None = None,
    alias: str | None = None,
) -> dict[str, Any]:
    """Log a finished run to MLflow: parameters, metrics, report, bundle; once for each bundle.

    ``uri``: the server, by default MLflow's setting; ``experiment``: by default the study's name;
    ``register``: the name under which the bundle is registered, ``alias`` one that then points to
    it. Raises UsageError where ``out`` is no finished run, StoreError where the server refuses.
    """
    root = files.address(out)
    if alias and not register:
        raise UsageError("an alias belongs to a registered name", mend="give --register NAME")
    if not files.exists(root / "metrics.json"):
        raise UsageError(f"'{out}' holds no finished run", mend="clinloom run STUDY --out DIR")
    loaded = Bundle.load(root / BUNDLE)
    mlflow = _mlflow()
    if uri is not None:
        mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    try:
        kept = mlflow.set_experiment(experiment or loaded.study["name"])
        known = client.search_runs([kept.experiment_id], f"tags.`{HASH}` = '{loaded.hash}'")
        run = known[0] if known else _logged(mlflow, root, loaded)
        told = {"run": run.info.run_id, "experiment": kept.name}
        if register:
            version = _registered(mlflow, client, register, run)
            told |= {"model": f"{REGISTRY}{register}/{version}"}
            if alias:
                client.set_registered_model_alias(register, alias, version)
                told["model"] = f"{REGISTRY}{register}@{alias}"
    except mlflow.MlflowException as error:
        mend = "see that the server runs, and that you may write there"
        raise StoreError(f"MLflow refused: {error.error_code}", mend=mend) from None
    return told


def _logged(mlflow: Any, root: Address, loaded: Bundle) -> Any:
    """Everything of a run, whole or ended as failed."""
    metrics = json.loads(files.read(root / "metrics.json"))
    with (
        mlflow.start_run(run_name=loaded.study["name"]) as run,
        tempfile.TemporaryDirectory() as at,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # an example of a patient is not given
        mlflow.log_params(dict(_params(loaded, metrics)))
        mlflow.log_metrics(dict(_metrics(metrics)))
        for name in TOLD:
            if files.exists(root / name):
                (Path(at) / name).write_bytes(files.read(root / name))
        mlflow.log_artifacts(at)
        kept = mlflow.pyfunc.log_model(
            name=BUNDLE,
            loader_module="clinloom.deploy.flavour",
            data_path=str(_copied(loaded.place, Path(at) / BUNDLE)),
            pip_requirements=[f"clinloom=={__version__}"],
            signature=_signature(mlflow),
        )
        mlflow.set_tags({MODEL: kept.model_uri, "clinloom.version": __version__})
        mlflow.set_tag(HASH, loaded.hash)  # last: now it is whole
    return mlflow.get_run(run.info.run_id)


def _copied(place: Address, folder: Path) -> Path:
    """A bundle in a folder of this machine."""
    for entry in files.listed(place):
        target = folder / entry.address.relative_to(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files.read(entry.address))
    return folder


def _params(loaded: Bundle, metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    study = loaded.study
    told = {key: study[key] for key in ("name", "seed", "split", "cohort")}
    told |= {"selected": metrics["selected"], "threshold": loaded.scorer.threshold}
    told["study_hash"] = loaded.document.get("study_hash")
    for name, one in metrics["models"].items():
        told |= {f"{name}.{key}": value for key, value in (one.get("point") or {}).items()}
    for key, value in told.items():
        text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True)
        yield key, text.removesuffix("\n...\n").strip()[:LONGEST]


def _metrics(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Those of the selected model by their names, of every model below its own."""
    for name, one in metrics["models"].items():
        for metric, found in one["test"].items():
            for part, value in found.items():
                if value is not None:
                    key = metric if part == "value" else f"{metric}.{part}"
                    yield f"{name}/{key}", float(value)
                    if name == metrics["selected"]:
                        yield key, float(value)


def _signature(mlflow: Any) -> Any:
    """Events in, predictions out."""
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    timed = AnyType()  # type: ignore[no-untyped-call]  # its own times have no zone

    given = Schema(
        [
            ColSpec("long", "subject_id"),
            ColSpec(timed, "time", required=False),
            ColSpec("string", "code"),
            ColSpec("double", "numeric_value", required=False),
            ColSpec("string", "text_value", required=False),
            ColSpec("string", "unit", required=False),
        ]
    )
    answer = Schema(
        [
            ColSpec("long", "subject_id"),
            ColSpec(timed, "prediction_time"),
            ColSpec("boolean", "predicted_boolean_value"),
            ColSpec("double", "predicted_boolean_probability"),
        ]
    )
    return mlflow.models.ModelSignature(given, answer)


def _registered(mlflow: Any, client: Any, name: str, run: Any) -> str:
    """The version of a run's bundle under a name, made where there is none."""
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.run_id == run.info.run_id:
            return str(version.version)
    return str(mlflow.register_model(run.data.tags[MODEL], name).version)


def version(reference: str) -> str:
    """The version that a name and alias stand for now. Raises StoreError where there is none."""
    name, _, rest = reference.removeprefix(REGISTRY).partition("@")
    if not rest:
        name, _, number = name.rpartition("/")
        return number
    mlflow = _mlflow()
    try:
        return str(mlflow.MlflowClient().get_model_version_by_alias(name, rest).version)
    except mlflow.MlflowException as error:
        mend = "set MLFLOW_TRACKING_URI; `clinloom track OUT --register NAME --alias ALIAS`"
        raise StoreError(
            f"MLflow has no such model ({error.error_code})", where=reference, mend=mend
        ) from None


def local(reference: str) -> Address:
    """Where a registered bundle lies on this machine, fetched once and until this process ends.

    Raises StoreError.
    """
    name = reference.removeprefix(REGISTRY).partition("@")[0]
    number = version(reference)
    server = _mlflow().get_registry_uri()
    return _fetched(server, name.removesuffix(f"/{number}"), number)


@cache
def _fetched(server: str, name: str, number: str) -> Address:
    mlflow = _mlflow()
    folder = tempfile.mkdtemp(prefix="clinloom-model-")
    atexit.register(_removed, folder, os.getpid())
    try:
        at = mlflow.artifacts.download_artifacts(f"{REGISTRY}{name}/{number}", dst_path=folder)
    except (mlflow.MlflowException, OSError) as error:
        _removed(folder, os.getpid())
        told = getattr(error, "error_code", type(error).__name__)
        raise StoreError(
            f"the model cannot be fetched ({told})", where=f"{REGISTRY}{name}/{number}"
        ) from None
    return files.address(Path(at) / "data" / BUNDLE)


def _removed(folder: str, process: int) -> None:
    """Take a fetched model away, in the process that fetched it and in none that it begot."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _mlflow() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of its own types
            import mlflow
            import mlflow.pyfunc
    except ImportError:
        mend = "pip install 'clinloom[mlflow]'"
        raise MissingDependency("MLflow is not installed", mend=mend) from None
    return mlflow
