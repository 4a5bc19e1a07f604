"""Subgroups, months, other points to flag from, and models against one another, as shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clinloom.report import names
from clinloom.report.charts import forest
from clinloom.report.disclosure import HIDDEN
from clinloom.report.figures import NONE, count, interval, number, percent

Record = Mapping[str, Any]
KINDS = {
    "sex": "Sex",
    "age": "Age",
    "ethnicity": "Ethnicity",
    "site": "Site",
    "scanner": "Scanner",
    "code": "Who has",
    "month": "Month",
}
MEASURED = ("auroc", "recall", "precision", "calibration_slope", "observed_expected")
PAIRED = ("auroc", "auprc", "brier", "calibration_slope")
FIXED = {
    "threshold": "Risk of {} or more",
    "alert_rate": "At most {} flagged",
    "sensitivity": "At least {} found",
}


def subgroups(
    rows: Sequence[Record], whole: Record, displays: names.Displays
) -> dict[str, Any] | None:
    """AUROC of each subgroup beside that of all, every number, and the fairness figures.

    ``whole``: the metrics of all test rows.
    """
    if not rows:
        return None
    told = [(_name(row, displays), row) for row in rows]
    shown = [(name, row["metrics"].get("auroc") or {}, False) for name, row in told if row["shown"]]
    everyone = ("All test rows", whole.get("auroc") or {}, True)
    return {
        "forest": forest([everyone, *shown], measure="AUROC"),
        "rows": [_row(name, row) for name, row in told],
        "hides": not all(row["shown"] for row in rows),
    }


def months(rows: Sequence[Record], whole: Record) -> dict[str, Any] | None:
    """AUROC and every number by month, or by year."""
    told = [row for row in rows if row["shown"]]
    if not told:
        return None
    shown = [(row["name"], row["metrics"].get("auroc") or {}, False) for row in told]
    everyone = ("All test rows", whole.get("auroc") or {}, True)
    return {
        "forest": forest([everyone, *shown], measure="AUROC"),
        "rows": [_row(row["name"], row) for row in rows],
        "hides": len(told) < len(rows),
    }


def _name(row: Record, displays: names.Displays) -> str:
    """The subgroup in words."""
    kind, name = row["kind"], row["name"]
    rest = name.partition(" ")[2]
    if kind == "code":
        return names.code(rest, displays)
    if kind == "age":
        return f"Age {rest.replace(' to ', NONE).replace(' on', ' and over')}"
    return f"{KINDS.get(kind, kind)}: {rest}"


def _row(name: str, row: Record) -> dict[str, Any]:
    metrics, apart, fair = (row.get(key) or {} for key in ("metrics", "difference", "fairness"))
    return {
        "name": name,
        "rows": count(row["rows"]) if row["shown"] else HIDDEN,
        "positive": count(row["positive"]) if row["shown"] else HIDDEN,
        "metrics": [cell(metrics.get(key)) for key in MEASURED],
        "difference": cell(apart.get("auroc"), signed=True),
        "fairness": [cell(found, signed=not key.endswith("ratio")) for key, found in fair.items()]
        or [cell(None)] * 3,
    }


def cell(found: Record | None, *, signed: bool = False, digits: int = 2) -> dict[str, str]:
    """A number and its interval, both texts."""
    found = found or {}
    value = found.get("value")
    plus = "+" if signed and value is not None and value > 0 else ""
    return {"value": plus + number(value, digits), "interval": interval(found, digits)}


def points(found: Sequence[Record]) -> list[dict[str, Any]]:
    """What comes of flags at other points than the threshold."""
    shown = ("recall", "specificity", "precision", "npv", "mcc", "number_needed", "net_benefit")
    out = []
    for one in found:
        rate, risk = one["alert_rate"].get("value"), one["threshold"].get("value")
        hidden = one.get("hidden")
        out.append(
            {
                "name": FIXED[one["fixed"]].format(percent(one["at"], 0)),
                "threshold": HIDDEN if hidden else percent(risk),
                "alert_rate": HIDDEN if hidden else percent(rate),
                "cells": [
                    cell(None if hidden else one[key], digits=3 if key == "net_benefit" else 2)
                    for key in shown
                ],
            }
        )
    return out


def paired(
    found: Mapping[str, Record], models: Mapping[str, Record], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The selected model less each other one."""
    return [
        {
            "name": titles.get(name, name),
            "cells": [cell(one.get(key), signed=True, digits=3) for key in PAIRED],
        }
        for name, one in found.items()
        if name in models
    ]


def explanation(found: Record | None, displays: names.Displays) -> dict[str, Any] | None:
    """What the model leans on: by feature, by family, by code."""
    if not found or not found.get("permutation"):
        return None
    by = found["permutation"]
    out: dict[str, Any] = {"rows": count(found["rows"]), "parts": []}
    for kind, title in (("feature", "One feature"), ("code", "All features of a code")):
        rows = (by.get(kind) or [])[:12]
        if rows:
            words = (
                names.features([row["name"] for row in rows], displays)
                if kind == "feature"
                else [names.code(row["name"], displays) for row in rows]
            )
            drawn = [(word, row, False) for word, row in zip(words, rows, strict=True)]
            out["parts"].append({"title": title, "svg": forest(drawn, measure="loss", zero=True)})
    rows = by.get("family") or []
    if rows:
        drawn = [(row["name"].replace("_", " ").capitalize(), row, False) for row in rows]
        chart = forest(drawn, measure="loss", zero=True)
        out["parts"].insert(0, {"title": "A whole family of features", "svg": chart})
    added = found.get("contributions") or {}
    out["contributions"] = None
    if added.get("features"):
        some = added["features"][:12]
        words = names.features([row["name"] for row in some], displays)
        most = max(row["value"] for row in some)
        rows = [
            (word, {"value": row["value"]}, False) for word, row in zip(words, some, strict=True)
        ]
        out["contributions"] = {
            "svg": forest(rows, measure="mean contribution", zero=True),
            "scale": added["scale"],
            "rows": count(added["rows"]),
            "most": number(most),
        }
    return out
