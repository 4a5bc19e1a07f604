"""How well the models do: their comparison, and the charts of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from clinloom.report import names, subgroups
from clinloom.report.charts import Plot, above, bars, forest
from clinloom.report.figures import interval, number, percent
from clinloom.report.words import METRICS

TOP = 15  # features shown
Model = Mapping[str, Any]


def comparison(models: Mapping[str, Model], selected: str) -> dict[str, Any]:
    """AUROC of every model side by side, and all metrics of all models."""
    rows = [(title(n, m), metric(m, "auroc"), n == selected) for n, m in models.items()]
    groups = [
        {"name": group, "rows": [_row(key, said, models) for key, said in metrics.items()]}
        for group, metrics in METRICS.items()
    ]
    return {
        "forest": forest(rows, measure="AUROC"),
        "groups": groups,
        "models": [{"title": title(n, m), "selected": n == selected} for n, m in models.items()],
        "folds": [number(m.get("fold_auroc")) for m in models.values()],
        "thresholds": [percent(m.get("threshold")) for m in models.values()],
        "settings": [_settings(m.get("point")) for m in models.values()],
    }


def _row(key: str, said: Any, models: Mapping[str, Model]) -> dict[str, Any]:
    found = [metric(model, key) for model in models.values()]
    return {
        "key": key,
        "said": said,
        "cells": [{"value": number(f.get("value")), "interval": interval(f)} for f in found],
    }


def _settings(point: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (point or {}).items()) or "defaults"


def title(name: str, model: Model) -> str:
    """A model's name in words."""
    return model.get("title") or name.replace("_", " ").capitalize()


def metric(model: Model, name: str) -> Mapping[str, Any]:
    """A metric of the test patients: value, low and high, where they are known."""
    return (model.get("test") or {}).get(name) or {}


def panels(
    models: Mapping[str, Model], selected: str, displays: names.Displays
) -> list[dict[str, Any]]:
    """For each model its charts, the others thin behind; and what weighs in it."""
    return [
        {
            "title": title(name, model),
            "selected": name == selected,
            "charts": _charts(name, models),
            "points": subgroups.points(model.get("points") or []),
            "importance": _importance(model, displays),
        }
        for name, model in models.items()
    ]


def _importance(model: Model, displays: names.Displays) -> Any:
    shown = (model.get("importance") or [])[:TOP]
    if not shown:
        return None
    words = names.features([entry["feature"] for entry in shown], displays)
    return bars([(said, entry["value"]) for said, entry in zip(words, shown, strict=True)])


def _charts(name: str, models: Mapping[str, Model]) -> list[dict[str, Any]]:
    made = []
    for build in (_roc, _calibration, _precision, _benefit):
        chart = build(name, models)
        if chart:
            made.append(chart)
    return made


def _curve(model: Model, kind: str) -> Any:
    return (model.get("curves") or {}).get(kind) or []


def _others(name: str, models: Mapping[str, Model], kind: str) -> list[Any]:
    curves = [_curve(model, kind) for other, model in models.items() if other != name]
    return [curve for curve in curves if curve]


def _value(model: Model, key: str) -> float | None:
    return metric(model, key).get("value")


def _roc(name: str, models: Mapping[str, Model]) -> dict[str, Any] | None:
    model = models[name]
    if not _curve(model, "roc"):
        return None
    plot = Plot(
        f"ROC curve of {title(name, model)}",
        xlabel="False alarms: flagged of those without the outcome",
        ylabel="Found: flagged of those with it",
    )
    plot.line([(0, 0), (1, 1)], "chance")
    for curve in _others(name, models, "roc"):
        plot.line(curve, "other")
    plot.line(_curve(model, "roc"), "main")
    specificity, recall = _value(model, "specificity"), _value(model, "recall")
    if specificity is not None and recall is not None:
        plot.dot(1 - specificity, recall, "mark", note="at the model's threshold")
    return {
        "title": "ROC curve",
        "svg": plot.svg(),
        "caption": "Closer to the top left corner is better; on the dashed diagonal a model"
        " guesses. The dot is the model at its threshold.",
    }


def _precision(name: str, models: Mapping[str, Model]) -> dict[str, Any] | None:
    model = models[name]
    if not _curve(model, "pr"):
        return None
    plot = Plot(
        f"Precision–recall curve of {title(name, model)}",
        xlabel="Recall: flagged of those with the outcome",
        ylabel="Precision: outcome of those flagged",
    )
    share = prevalence(model)
    if share is not None:
        plot.line([(0, share), (1, share)], "chance")
    for curve in _others(name, models, "pr"):
        plot.line(curve, "other")
    plot.line(_curve(model, "pr"), "main")
    recall, precision = _value(model, "recall"), _value(model, "precision")
    if recall is not None and precision is not None:
        plot.dot(recall, precision, "mark", note="at the model's threshold")
    return {
        "title": "Precision and recall",
        "svg": plot.svg(),
        "caption": "Higher is better; the dashed line is flagging at random. Reading right: to find"
        " more of those with the outcome, more false alarms are accepted.",
    }


def prevalence(model: Model) -> float | None:
    """The share of test rows with the outcome, from the tenths by risk."""
    tenths = _curve(model, "calibration")
    rows = sum(t.get("n", 0) for t in tenths)
    return sum(t["observed"] * t.get("n", 0) for t in tenths) / rows if rows else None


def _calibration(name: str, models: Mapping[str, Model]) -> dict[str, Any] | None:
    model = models[name]
    tenths = _curve(model, "calibration")
    if not tenths:
        return None
    most = max(max(t["predicted"], t["observed"], t.get("high") or 0) for t in tenths)
    unit = 0.1 if most > 0.1 else 0.02
    end = min(1.0, unit * math.ceil(most / unit - 1e-9)) or unit
    plot = Plot(
        f"Calibration of {title(name, model)}",
        x=(0, end),
        y=(0, end),
        xlabel="Predicted risk",
        ylabel="Observed share with the outcome",
    )
    plot.line([(0, 0), (end, end)], "chance")
    for other in (one for key, one in models.items() if key != name):
        plot.line([p for p in _bent(other) if max(p) <= end], "other")
    plot.line([p for p in _bent(model) if max(p) <= end], "main")
    for t in tenths:
        if t.get("low") is not None and t.get("high") is not None:
            plot.interval(t["predicted"], t["low"], min(t["high"], end))
        note = f"predicted {percent(t['predicted'])}, observed {percent(t['observed'])}"
        plot.dot(t["predicted"], t["observed"], note=note)
    return {
        "title": "Calibration",
        "svg": plot.svg(),
        "caption": "Closer to the dashed diagonal is better. Each dot is a tenth of the test"
        " patients by risk, with its interval; the line is the flexible calibration curve. Above"
        " the diagonal the risk is told too low.",
    }


def _bent(model: Model) -> Any:
    """The flexible calibration curve; where there is none, the tenths joined."""
    tenths = _curve(model, "calibration")
    return _curve(model, "flexible") or [(t["predicted"], t["observed"]) for t in tenths]


def _benefit(name: str, models: Mapping[str, Model]) -> dict[str, Any] | None:
    model = models[name]
    curve = _curve(model, "net_benefit")
    if not curve:
        return None
    most = max([max(p["model"], p["all"]) for p in curve] + [0.01])
    useful = [p["threshold"] for p in curve if p["model"] > 0.12 * most]
    end = min(1.0, math.ceil(max([0.2, *useful]) * 10 + 1e-9) / 10)
    low = -0.2 * most
    plot = Plot(
        f"Decision curve of {title(name, model)}",
        x=(0, end),
        y=(low, 1.05 * most),
        percent="x",
        xlabel="Threshold: risk from which on one would act",
        ylabel="Net benefit",
    )
    kept = [p for p in curve if p["threshold"] <= end + 1e-9]
    for other in _others(name, models, "net_benefit"):
        points = [(p["threshold"], p["model"]) for p in other if p["threshold"] <= end + 1e-9]
        plot.line(above(points, low), "other")
    band = [(p["threshold"], p.get("model_low"), p.get("model_high")) for p in kept]
    drawn = [p for p in band if None not in p]
    plot.band(drawn, low)
    shade = "; the shade is its interval" if drawn else ""
    plot.line([(0, 0), (end, 0)], "none")
    plot.line(above([(p["threshold"], p["all"]) for p in kept], low), "rival")
    plot.line(above([(p["threshold"], p["model"]) for p in kept], low), "main")
    threshold = model.get("threshold")
    if threshold is not None and threshold <= end:
        plot.line([(threshold, low), (threshold, 1.05 * most)], "mark")
    return {
        "title": "Decision curve",
        "svg": plot.svg(),
        "caption": "Higher is better. The model is worth using where it lies above treating"
        f" everybody (orange, dashed) and nobody (zero){shade}. The dotted line is its threshold.",
    }
