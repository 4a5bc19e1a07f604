"""One record of the run, gathered from what the store committed, and its report."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import platform
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import __version__, files
from clinloom.features import Feature
from clinloom.files import Address
from clinloom.report import render as page
from clinloom.report.baseline import table_one
from clinloom.run.work import Work
from clinloom.store import Stored, finished
from clinloom.study import Study
from clinloom.tables import matrix

LEDGERS = ("ledger", "preparation_ledger")
LIBRARIES = ("pyspark", "pyarrow", "numpy", "pydicom", "scipy")


def tell(work: Work, study: Study) -> None:
    """Write the run's record beside the tables, and the report."""
    record = {
        "study": {
            "name": study.name,
            "title": study.title or study.name,
            "description": study.description,
            "seed": study.seed,
            "intervals": f"{study.evaluate.confidence:.0%}, {study.evaluate.bootstrap} resamples",
            "hash": study.hash,
        },
        "versions": versions(),
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "stages": work.stages,
        "kinds": {name: source.type for name, source in study.sources.items()},  # type: ignore[attr-defined]
    }
    root = work.store.root
    if all(stage["reused"] for stage in work.stages) and files.exists(root / "report.html"):
        kept = json.loads(files.read(root / "run.json"))
        if kept["study"] == record["study"]:
            return  # nothing was done, so there is nothing new to tell
    work.store.write_text("run.json", json.dumps(record, indent=1))
    work.store.write_text("report.html", page(gather(root)))


def render(root: Address) -> Address:
    """Render the report of a finished run again."""
    files.write(root / "report.html", page(gather(root)).encode())
    return root / "report.html"


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {"clinloom": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def gather(root: Address) -> dict[str, Any]:
    """The whole record of a finished run, from its output."""
    tables = finished(root)
    record = json.loads(files.read(root / "run.json"))
    metrics = json.loads(files.read(root / "metrics.json"))
    curves = json.loads(tables["evaluation"].text("curves.json"))
    for name, model in metrics["models"].items():
        model.update(curves[name])
    dataset = tables["dataset"].read()
    rows = dataset.select(["subject_id", "split", "boolean_value"])
    counts = tables["counts"].read().to_pylist()
    return {
        **record,
        **metrics,
        "sources": sources(counts, record["kinds"]),
        "flow": tables["flow"].read().to_pylist(),
        "split": split(rows),
        "ledger": [row for name in LEDGERS for row in tables[name].read().to_pylist()],
        "rejected": rejected(counts),
        "table1": baseline(dataset, tables),
        "leakage": json.loads(tables["leakage"].text("audit.json")),
        "warnings": warnings(metrics, rows),
    }


def sources(counts: list[dict[str, Any]], kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Events and images that each source gave."""
    found: Counter[tuple[str, str | None]] = Counter()
    for row in counts:
        found[row["table"], row["source"]] += row["rows"]
    return [
        {"name": n, "type": kind, "events": found["events", n], "images": found["images", n]}
        for n, kind in kinds.items()
    ]


def split(dataset: pa.Table) -> dict[str, dict[str, int]]:
    """Rows, patients and outcomes of the training and test rows."""
    out = {}
    for part in ("train", "test"):
        rows = dataset.filter(pc.equal(dataset.column("split"), part))
        positive = pc.sum(rows.column("boolean_value").cast("int64")).as_py() or 0
        subjects = len(rows.column("subject_id").unique())
        out[part] = {"rows": rows.num_rows, "subjects": subjects, "positive": positive}
    return out


def rejected(counts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Refusals counted by source, stage and reason, the commonest first."""
    found = [
        {**{k: row[k] for k in ("source", "stage", "reason")}, "count": row["rows"]}
        for row in counts
        if row["table"] == "rejected"
    ]
    return sorted(found, key=lambda row: -row["count"])


def baseline(dataset: pa.Table, tables: dict[str, Stored]) -> list[dict[str, Any]]:
    """Table 1: the characteristics of those with and without the outcome."""
    listed = json.loads(tables["feature_list"].text("features.json"))
    features = [Feature.from_dict(f) for f in listed]
    label = dataset.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)
    values = matrix(dataset)
    shown = _shown(features)
    return table_one([features[i].name for i in shown], values[:, shown], label)


def _shown(features: list[Feature]) -> list[int]:
    """One column for each characteristic: demographics, codes, and the latest measurement."""
    best: dict[tuple[str, str], tuple[int, int]] = {}
    for at, feature in enumerate(features):
        if feature.family == "imaging":
            continue
        rank = {"last": 0, "present": 0, "mean": 1}.get(feature.statistic, 2)
        key = (feature.family, feature.code if feature.family != "demographics" else feature.name)
        if key not in best or rank < best[key][0]:
            best[key] = (rank, at)
    return [at for _, at in best.values()]


def warnings(metrics: dict[str, Any], dataset: pa.Table) -> list[str]:
    """What a careful reader should be told first."""
    out = []
    test = metrics["models"][metrics["selected"]]["test"]
    slope, auroc = test["calibration_slope"]["value"], test["auroc"]["value"]
    if slope is not None and not 0.8 <= slope <= 1.25:
        out.append(f"The selected model's calibration slope is {slope:.2f}: risks need care.")
    if auroc > 0.97:
        out.append(
            f"An AUROC of {auroc:.3f} is rare in medicine: is a feature the outcome in disguise?"
        )
    kept = dataset.filter(pc.equal(dataset.column("split"), "test"))
    events = int(np.sum(kept.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)))
    if events < 100:
        out.append(
            f"The test rows hold {events} outcomes; fewer than 100 give wide intervals"
            " (Collins et al., Stat Med 2016)."
        )
    return out
