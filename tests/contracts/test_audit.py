"""The leakage audit as a step of a run: what is put into a table without times is refused by name,
and passes where the study says why."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from clinloom import files, plugins
from clinloom.errors import DataError
from clinloom.run import acquire, api, audit, dataset
from clinloom.run.record import leakage
from clinloom.run.work import Work
from clinloom.store import Store
from clinloom.store import finished as tables_of
from clinloom.study import parse

PATIENTS = 400


def table(place: Path, **leaks: np.ndarray) -> None:
    """A row a patient: ten laboratory values, one of which tells something, and the outcome."""
    rng = np.random.default_rng(0)
    severity = rng.normal(size=PATIENTS)
    died = severity + 0.6 * rng.normal(size=PATIENTS) > 0.6
    columns = {f"lab{n}": rng.normal(size=PATIENTS).round(4) for n in range(10)}
    columns["lab0"] = (severity + rng.normal(size=PATIENTS)).round(4)
    rows = {"mrn": rng.permutation(PATIENTS) + 5000, **columns, "dead": died.astype(int)}
    for name, make in leaks.items():
        rows[name] = make(rng, died)
    listed = [dict(zip(rows, cells, strict=True)) for cells in zip(*rows.values(), strict=True)]
    if leaks:  # sixty patients come again under other numbers
        listed += [{**row, "mrn": int(row["mrn"]) + 10_000} for row in listed[:60]]
        listed.sort(key=lambda row: row["dead"])
    with place.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)


def study(place: Path, allow: list[dict] | None = None):
    return parse(
        {
            "name": "audited",
            "sources": {
                "rows": {
                    "type": "table",
                    "path": str(place),
                    "patient": "mrn",
                    "time": {"at": "2024-01-01"},
                    "events": [
                        {"code": "VISIT"},
                        {
                            "code": "OUTCOME//DEAD",
                            "when": {"column": "dead", "equals": 1},
                            "time": {"at": "2024-01-05"},
                        },
                    ],
                    "columns": {"prefix": "T//", "without": ["dead", "mrn"]},
                }
            },
            "clean": {"answers": {"codes": "T//*"}},
            "cohort": {
                "index": {"at": "VISIT", "plus": "1d"},
                "outcome": {"codes": "OUTCOME//DEAD", "within": "30d"},
                "time_at_risk": {"follow_up": "assumed"},
            },
            "features": {
                "measurements": {"codes": "T//*", "statistics": ["last"], "windows": ["all"]},
                "codes": {"codes": "T//*", "windows": ["all"]},
            },
            "audit": {"allow": allow or []},
            "models": ["logistic_regression"],
        },
        rooms=plugins,
    )


def audited(place: Path, out: Path, spark, allow: list[dict] | None = None) -> dict:
    """The steps up to the audit; what it committed, as the report is told of it."""
    asked = study(place, allow)
    work = Work(asked, Store(files.address(out)), spark=spark)
    try:
        acquired = acquire.acquire(work, asked)
        events = dataset.clean(work, asked, acquired)
        cohort = dataset.build_cohort(work, asked, events)
        listed = dataset.feature_list(cohort)
        rows = dataset.build_features(work, asked, events, cohort, listed)
        audit.audit(work, asked, acquired, events, cohort, rows, listed)
    finally:
        work.close()
    return leakage(tables_of(files.address(out)), allow or [])


@pytest.mark.core
def test_a_clean_table_passes_and_what_was_looked_at_is_kept(tmp_path, spark):
    table(tmp_path / "clean.csv")
    told = audited(tmp_path / "clean.csv", tmp_path / "out", spark)
    assert told["findings"] == [] == told["allowed"]
    assert told["rows_checked"] == PATIENTS and told["rows_differing"] == 0
    assert min(told["sampled"].values()) > 40 and sum(told["sampled"].values()) < PATIENTS


@pytest.mark.core
def test_every_leak_of_a_table_without_times_is_refused_by_name_until_justified(tmp_path, spark):
    place = tmp_path / "leaky.csv"
    table(
        place,
        length_of_stay=lambda rng, died: rng.integers(1, 30, PATIENTS),
        score=lambda rng, died: (4 * died + rng.normal(size=PATIENTS)).round(4),
        ward=lambda rng, died: np.where(died & (rng.random(PATIENTS) < 0.6), "morgue", "A"),
        late=lambda rng, died: np.where(died, rng.normal(size=PATIENTS).round(4), np.nan),
    )
    with pytest.raises(DataError) as told:
        audited(place, tmp_path / "out", spark)
    said = str(told.value)
    for leak in (
        "written_later: T//length_of_stay",
        "strong_feature: T//score",
        "proxy_codes: T//ward=morgue",
        "missingness: T//late",
        "duplicates: records",
        "shortcuts: record order",
    ):
        assert leak in said, said
    assert "T//lab" not in said and "allow" in said
    committed = tables_of(files.address(tmp_path / "out"))["audit"].text("audit.json")
    checks = {one["check"] for one in json.loads(committed)["findings"]}
    allow = [{"check": c, "of": "*", "because": "It was put here on purpose."} for c in checks]
    found = audited(place, tmp_path / "out", spark, allow)
    assert found["findings"] == [] and {one["check"] for one in found["allowed"]} == checks


def test_the_shared_run_was_audited_before_and_after_it_was_trained(finished):
    run = api.Run(files.address(finished))
    told = leakage(tables_of(run.out), [])
    assert told["findings"] == [] and told["rows_checked"] > 0 == told["rows_differing"]
    stages = [stage["name"] for stage in json.loads(files.read(run.out / "run.json"))["stages"]]
    trains = [at for at, name in enumerate(stages) if name.startswith("train/")]
    assert stages.index("audit") < min(trains) < max(trains) < stages.index("audit/preparation")
    page = files.read(run.report).decode()
    assert 'id="leakage"' in page and "What it looks at, and what it cannot see" in page
