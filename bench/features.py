"""Acquire, cluster and clean PhysioNet 2012 × N, then build features beside DuckDB and Polars.

    python bench/features.py --copies 80 --folder /tmp/bench

Prints events per second, peak memory (anonymous pages of all processes, the JVM's too) and the
ratio to each peer. Every contestant reads the same
committed events and index tables and gives count, mean, min, max and last of 37 parameters in three
windows for each patient, written as Parquet; each runs in a process of its own, one after another.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

from memory import watched

ROOT = Path(__file__).parents[1]
ROUNDS = 2  # of our own steps: the quicker of each counts, as the session is warm
WINDOWS = (12, 24, 48)
STATISTICS = ("count", "mean", "min", "max", "last")


def multiply(source: Path, folder: Path, copies: int) -> None:
    """Write ``copies`` of the stays and their outcomes, every patient with a number of its own."""
    zips = folder / "zips"
    zips.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(source / "set-a.zip") as archive:
        members = [i for i in archive.infolist() if i.filename.endswith(".txt")]
        texts = [(i.filename, archive.read(i)) for i in members]
    for file in zips.glob("set-*.zip"):
        if file.name not in {f"set-{copy:03d}.zip" for copy in range(copies)}:
            file.unlink()
    for copy in range(copies):
        target = zips / f"set-{copy:03d}.zip"
        if target.exists():
            continue
        with zipfile.ZipFile(target.with_suffix(".tmp"), "w", zipfile.ZIP_DEFLATED, True, 1) as out:
            for name, text in texts:
                named = name.replace(".txt", f"-{copy:03d}.txt")
                out.writestr(named, re.sub(rb"RecordID,(\d+)", rb"RecordID,\g<1>%03d" % copy, text))
        target.with_suffix(".tmp").rename(target)
    head, *rows = (source / "Outcomes-a.txt").read_text().splitlines()
    parts = [row.split(",", 1) for row in rows if row]
    with open(folder / "Outcomes.csv", "w") as out:
        out.write(f"{head}\n")
        for copy in range(copies):
            out.writelines(f"{patient}{copy:03d},{rest}\n" for patient, rest in parts)


def study(folder: Path):
    """PhysioNet's study with the benchmark's windows and statistics."""
    from clinloom.run import api as run

    os.environ.setdefault("CLINLOOM_DATA", str(ROOT.parent / "shared" / "data"))
    return run.read_study(
        ROOT / "examples" / "physionet2012.yaml",
        overrides=[
            f"sources.stays.path={folder / 'zips'}",
            f"sources.outcomes.path={folder / 'Outcomes.csv'}",
            "features={measurements: {codes: 'PHYSIONET//*', statistics: "
            f"[{', '.join(STATISTICS)}], windows: [{', '.join(f'{w}h' for w in WINDOWS)}]}}}}",
        ],
    )


def begun(folder: Path) -> tuple[Any, Any, float]:
    """A run at work on the study, its session started; its clean events; the seconds they took."""
    from clinloom.run import dataset
    from clinloom.run.acquire import acquire
    from clinloom.run.progress import Progress
    from clinloom.run.work import Work
    from clinloom.store import Store

    work = Work(study(folder), Store(str(folder / "out")), progress=Progress())
    work.spark.range(1).count()
    start = time.monotonic()
    cleaned = dataset.clean(work, work.study, acquire(work, work.study))
    return work, cleaned, time.monotonic() - start


def prepare(folder: Path) -> dict[str, Any]:
    """Acquire, clean and cluster. The committed tables stay for the contestants."""
    from clinloom.run import dataset

    work, cleaned, seconds = begun(folder)
    dataset.build_cohort(work, work.study, cleaned)
    work.close()
    return {"seconds": seconds, "events": cleaned["events"].rows}


def clinloom(folder: Path) -> dict[str, Any]:
    """Our feature step, from the committed events, and what learning its vocabulary adds.

    Codes are counted while the cohort is found: ``vocabulary`` is what the cohort's pass takes
    longer than the same pass without counting.
    """
    from clinloom.run import dataset
    from clinloom.spark import workers
    from clinloom.tables import EVENTS, INDEX

    work, cleaned, _ = begun(folder)
    took: dict[str, list[float]] = {"alone": [], "cohort": [], "features": []}

    def forgotten(stage: str) -> None:
        work.store.manifest["stages"].pop(stage, None)

    for _ in range(ROUNDS):
        start = time.monotonic()
        with work.store.writing("alone", "bench") as out:
            workers.by_patient(
                work.spark,
                {"events": (cleaned["events"], EVENTS)},
                partial(found, study=work.study),
                out=out,
                tables={"found": INDEX},
                columns={"events": dataset.NEEDED},
            )
        took["alone"].append(time.monotonic() - start)
        forgotten("cohort")
        start = time.monotonic()
        cohort = dataset.build_cohort(work, work.study, cleaned)
        took["cohort"].append(time.monotonic() - start)
        listed = dataset.feature_list(cohort)
        forgotten("features")
        start = time.monotonic()
        dataset.build_features(work, work.study, cleaned, cohort, listed)
        took["features"].append(time.monotonic() - start)
    forgotten("alone")
    work.close()
    best = {name: min(times) for name, times in took.items()}
    vocabulary = max(0.0, best["cohort"] - best["alone"])
    return {
        "seconds": best["features"],
        "vocabulary": vocabulary,
        "events": cleaned["events"].rows,
    }


def found(events: Any, *, study: Any) -> dict[str, Any]:
    """The cohort's kernel without the counting of codes."""
    from clinloom.cohort import cohort
    from clinloom.cohort.split import assign

    index = assign(cohort(events, study.cohort)["index"], study.split, seed=study.seed)
    return {"found": index}


def duckdb(folder: Path) -> dict[str, Any]:
    """The same aggregates in DuckDB, two threads."""
    import duckdb as peer

    tables = folder / "out" / "tables"
    terms = []
    for hours in WINDOWS:
        inside = f"FILTER (time >= prediction_time - INTERVAL {hours} HOUR)"
        terms += [
            f"count(numeric_value) {inside} AS count_{hours}",
            f"avg(numeric_value) {inside} AS mean_{hours}",
            f"min(numeric_value) {inside} AS min_{hours}",
            f"max(numeric_value) {inside} AS max_{hours}",
            f"arg_max(numeric_value, time) {inside} AS last_{hours}",
        ]
    start = time.monotonic()
    connection = peer.connect()
    connection.execute("SET threads = 2")
    connection.execute(  # the names are this file's own
        f"""COPY (SELECT subject_id, code, {", ".join(terms)}
        FROM read_parquet('{tables}/events/*.parquet') e
        JOIN read_parquet('{tables}/index/*.parquet') i USING (subject_id)
        WHERE e.time < i.prediction_time GROUP BY subject_id, code)
        TO '{folder}/duckdb.parquet'"""
    )
    return {"seconds": time.monotonic() - start}


def polars(folder: Path) -> dict[str, Any]:
    """The same aggregates in Polars, two threads."""
    import polars as peer

    tables = folder / "out" / "tables"
    value, moment = peer.col("numeric_value"), peer.col("prediction_time")
    terms = []
    for hours in WINDOWS:
        kept = value.filter(peer.col("time") >= moment - peer.duration(hours=hours))
        terms += [
            kept.count().alias(f"count_{hours}"),
            kept.mean().alias(f"mean_{hours}"),
            kept.min().alias(f"min_{hours}"),
            kept.max().alias(f"max_{hours}"),
            kept.last().alias(f"last_{hours}"),
        ]
    start = time.monotonic()
    events = peer.scan_parquet(f"{tables}/events/*.parquet")
    index = peer.scan_parquet(f"{tables}/index/*.parquet").select("subject_id", "prediction_time")
    frame = events.join(index, on="subject_id").filter(peer.col("time") < moment)
    frame.group_by("subject_id", "code").agg(terms).sink_parquet(f"{folder}/polars.parquet")
    return {"seconds": time.monotonic() - start}


def main() -> None:
    """Run every contestant in a process of its own and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, default=80)
    parser.add_argument("--folder", type=Path, default=Path("bench-out"))
    parser.add_argument("--only", choices=["prepare", "clinloom", "duckdb", "polars"])
    args = parser.parse_args()
    folder = args.folder.absolute()
    if args.only:
        print(json.dumps(globals()[args.only](folder)))
        return
    data = Path(os.environ.get("CLINLOOM_DATA", ROOT.parent / "shared" / "data"))
    multiply(data / "physionet2012", folder, args.copies)
    found = {}
    for name in ("prepare", "clinloom", "duckdb", "polars"):
        command = [sys.executable, __file__, "--only", name, "--folder", str(folder)]
        env = {**os.environ, "POLARS_MAX_THREADS": "2"}
        text, peak = watched(command, env)
        found[name] = json.loads(text.strip().splitlines()[-1])
        took = found[name]["seconds"]
        rate = found["prepare"]["events"] / took / 1e6
        print(f"{name:<10}{took:8.1f} s {rate:8.2f} M events/s  peak {peak:.2f} GB", flush=True)
    ours = found["clinloom"]["seconds"]
    learned = ours + found["clinloom"]["vocabulary"]
    print(f"learning the vocabulary adds {found['clinloom']['vocabulary']:.1f} s")
    for name in ("duckdb", "polars"):
        theirs = found[name]["seconds"]
        print(f"clinloom is {theirs / ours:.2f} times as fast as {name}", end="; ")
        print(f"{theirs / learned:.2f} with its vocabulary learned too")


if __name__ == "__main__":
    main()
