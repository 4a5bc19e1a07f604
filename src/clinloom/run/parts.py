"""What is judged part by part: flags at its own threshold, and what each part tells alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.cohort.division import Division
from clinloom.deploy.scorer import Scorer
from clinloom.evaluate import FEWEST
from clinloom.events import Floats
from clinloom.learn.risks import Risks
from clinloom.report import disclosure

FLAGGED = (  # the metrics of flags
    "accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "npv",
    "balanced_accuracy",
    "mcc",
    "number_needed",
    "alert_rate",
)
ON, OFF = 0.75, 0.25  # what stands for a flag, judged at a threshold of a half, and for none


def flagged(name: str) -> str:
    """What a model's flags are called where they are judged beside its risks."""
    return f"{name}, flags"


def limits(scorers: Sequence[Scorer]) -> Floats:
    """The thresholds (parts,) of a model's scorers."""
    return np.array([scorer.threshold for scorer in scorers])


def flag(risk: Floats, limit: Floats | float) -> Floats:
    """The flags (n,) of risks at the thresholds of their parts."""
    return np.where(risk >= limit, ON, OFF)


def of(grouped: pa.Table, model: str) -> dict[int, Risks]:
    """The groups (GROUPS) of a model, by part."""
    mine = grouped.filter(pc.field("model") == model)
    return {
        part: Risks.read(mine.filter(pc.field("part") == part))
        for part in sorted(pc.unique(mine.column("part")).to_pylist())
    }


def together(grouped: pa.Table, model: str) -> Risks:
    """The groups of a model, of all parts."""
    return Risks.merge(of(grouped, model).values()).compact()


def flags(grouped: pa.Table, model: str, scorers: Sequence[Scorer]) -> Risks:
    """The groups of a model's flags, each part's at its own threshold."""
    parts = of(grouped, model).items()
    return Risks.merge(
        each.mapped(partial(flag, limit=scorers[part].threshold)) for part, each in parts
    )


def told(grouped: pa.Table, model: str, division: Division) -> dict[str, Any]:
    """What each part tells alone, where there are several: rows, those with the outcome, AUROC and
    Brier score; and the mean of these two over the parts where they are told.

    Nothing is told of a part in which few rows have, or have not, the outcome; how many have it
    then of none, and how many rows by the rule for small counts.
    """
    if len(division.names) == 1:
        return {}
    rows = []
    for part, risks in of(grouped, model).items():
        row: dict[str, Any] = {"part": division.names[part], "rows": risks.rows}
        enough = min(risks.positives, risks.rows - risks.positives) >= FEWEST
        row["positive"] = risks.positives if enough else None
        row["auroc"] = risks.auroc() if enough else None
        row["brier"] = _brier(risks) if enough else None
        rows.append(row)
    shown = disclosure.parts([row["rows"] for row in rows])
    told = all(row["positive"] is not None for row in rows)  # else the total tells of the one
    for row, seen in zip(rows, shown, strict=True):
        row |= {} if seen else {"rows": None}
        row |= {} if told else {"positive": None}
    return {"parts": rows, "mean": {name: _mean(rows, name) for name in ("auroc", "brier")}}


def _brier(risks: Risks) -> float:
    """The mean squared error; of merged groups that of their mean risks."""
    p, n = risks.score, risks.total
    return float((risks.positive * (1 - p) ** 2 + (n - risks.positive) * p**2).sum() / n.sum())


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(known)) if known else None
