"""Lists as ``clinloom score --reasons`` writes them, for some patients on some days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clinloom.tables import REASONS, SCORES

TODAY = dt.datetime(2026, 3, 9, 8, tzinfo=dt.UTC)
LIST = pa.schema([*SCORES.arrow, pa.field(REASONS.name, REASONS.type)])
THRESHOLD = 0.4  # of tests.service.made
BIG = 1 << 60  # subjects' numbers, which JSON's numbers do not hold


def reasons(creatinine: float, *, oxygen: float | None = 0.2) -> list[dict[str, object]]:
    """Two reasons, or one."""
    told = [("creatinine", f"Creatinine, last: {creatinine} mg/dL", creatinine - 1)]
    told += [("oxygen", "Oxygen saturation, last: 96%", -oxygen)] if oxygen else []
    return [{"feature": f, "text": t, "contribution": c} for f, t, c in told]


def write(
    folder: Path, risks: Mapping[str, float], *, day: int = 0, creatinine: float = 2.0
) -> Path:
    """The list of a day, today's by default, of patients' risks by their identifiers."""
    moment = TODAY + dt.timedelta(days=day)
    rows = [
        {
            "subject_id": BIG + int(patient.removeprefix("M")),
            "prediction_time": moment,
            "predicted_boolean_value": risk >= THRESHOLD,
            "predicted_boolean_probability": risk,
            "patient": patient,
            "system": "urn:mrn",
            "reasons": reasons(creatinine),
        }
        for patient, risk in risks.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{moment:%Y-%m-%d}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=LIST), file)
    return file
