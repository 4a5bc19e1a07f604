"""One record of the run, gathered from what the store committed, and its report."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import platform
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from clinloom import __version__
from clinloom.report import render as page
from clinloom.run.work import Work
from clinloom.study import Study

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
    folder = work.store.root
    old = folder / "run.json"
    if old.exists() and all(stage["reused"] for stage in work.stages):
        kept = json.loads(old.read_text())
        if kept["study"] == record["study"] and (folder / "report.html").exists():
            return  # nothing was done, so there is nothing new to tell
    work.store.write_text("run.json", json.dumps(record, indent=1))
    work.store.write_text("report.html", page(gather(folder)))


def render(folder: Path) -> Path:
    """Render the report of a finished run again."""
    path = folder / "report.html"
    path.write_text(page(gather(folder)), encoding="utf-8")
    return path


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {"clinloom": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def gather(folder: Path) -> dict[str, Any]:
    """The whole record of a finished run, from its folder."""
    tables = folder / "tables"
    record = json.loads((folder / "run.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    curves = json.loads((tables / "evaluation" / "curves.json").read_text())
    for name, model in metrics["models"].items():
        model.update(curves[name])
    counted = json.loads((tables / "counted" / "summary.json").read_text())
    return {
        **record,
        **metrics,
        **counted,
        "sources": sources(tables, record["kinds"]),
        "flow": pq.read_table(tables / "flow").to_pylist(),
        "ledger": _ledger(tables),
        "rejected": rejected(tables),
        "leakage": json.loads((tables / "leakage" / "audit.json").read_text()),
        "warnings": warnings(metrics, counted["split"]["test"]["positive"]),
    }


def _ledger(tables: Path) -> list[dict[str, Any]]:
    parts = ("ledger", "preparation_ledger")
    return [row for part in parts for row in pq.read_table(tables / part).to_pylist()]


def sources(tables: Path, kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Events and images that each source gave."""
    events: Counter[str] = Counter()
    for file in (tables / "events").glob("*.parquet"):
        column = pq.read_table(file, columns=["source"]).column("source")
        for found in column.value_counts().to_pylist():
            events[found["values"]] += found["counts"]
    images = Counter(pq.read_table(tables / "images", columns=["source"])["source"].to_pylist())
    return [
        {"name": name, "type": kind, "events": events[name], "images": images[name]}
        for name, kind in kinds.items()
    ]


def rejected(tables: Path) -> list[dict[str, Any]]:
    """Refusals counted by source, stage and reason."""
    counts: Counter[tuple] = Counter()
    for file in (tables / "rejected").glob("*.parquet"):
        rows = pq.read_table(file, columns=["source", "stage", "reason"])
        counts.update(tuple(row.values()) for row in rows.to_pylist())
    return [
        {"source": s, "stage": stage, "reason": reason, "count": n}
        for (s, stage, reason), n in sorted(counts.items(), key=lambda c: -c[1])
    ]


def warnings(metrics: dict[str, Any], events: int) -> list[str]:
    """What a careful reader should be told first; ``events``: outcomes in the test rows."""
    out = []
    test = metrics["models"][metrics["selected"]]["test"]
    slope, auroc = test["calibration_slope"]["value"], test["auroc"]["value"]
    if slope is not None and not 0.8 <= slope <= 1.25:
        out.append(f"The selected model's calibration slope is {slope:.2f}: risks need care.")
    if auroc > 0.97:
        out.append(
            f"An AUROC of {auroc:.3f} is rare in medicine: is a feature the outcome in disguise?"
        )
    if events < 100:
        out.append(
            f"The test rows hold {events} outcomes; fewer than 100 give wide intervals"
            " (Collins et al., Stat Med 2016)."
        )
    return out
