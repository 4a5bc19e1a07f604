"""The headline: a few numbers, and what they mean in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinloom.report import performance
from clinloom.report.charts import hundred
from clinloom.report.disclosure import HIDDEN, cell
from clinloom.report.figures import count, interval, number, of_hundred, percent

Record = Mapping[str, Any]


def tiles(title: str | None, model: Record, split: Record) -> list[dict[str, str]]:
    """The headline numbers."""
    out = []
    total, test = split["total"], split["test"]
    if total:
        note = f"{count(test['subjects'])} of them for the test" if test and split["sized"] else ""
        note = "each judged in turn" if split["in_turn"] else note
        out.append(_tile("Patients", count(total["subjects"]), note))
        shown = split["together"] and total["rows"]
        share = percent(total["positive"] / total["rows"]) if shown else HIDDEN
        having = cell(total["positive"], bool(shown))
        note = f"{having} of {count(total['rows'])} {split['unit']}"
        out.append(_tile("With the outcome", share, note))
    if title:
        folds = model.get("fold_auroc")
        hint = f"AUROC there {number(folds)}" if folds else ""
        tile = _tile("Selected model", title, "by the training folds", hint)
        out.append({**tile, "kind": "words"})
        for name, label, ideal in (
            ("auroc", "AUROC", "1 is perfect, 0.5 chance"),
            ("calibration_slope", "Calibration slope", "1 is ideal"),
        ):
            found = performance.metric(model, name)
            digits = 3 if name == "auroc" else 2
            value = number(found.get("value"), digits)
            out.append(_tile(label, value, interval(found, digits), ideal))
    return out


def _tile(label: str, value: str, note: str, hint: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note, "hint": hint, "kind": ""}


def _values(model: Record, *keys: str) -> list[float | None]:
    return [performance.metric(model, key).get("value") for key in keys]


def sentences(model: Record, split: Record) -> list[str]:
    """What the numbers of the selected model mean, in plain words."""
    out = []
    auroc, precision, recall = _values(model, "auroc", "precision", "recall")
    if auroc is not None:
        out.append(
            "Shown one patient with the outcome and one without, the model gives the higher risk"
            f" to the one with it {of_hundred(auroc)} times out of 100."
        )
    if model.get("threshold") is not None:
        in_turn = bool(model.get("parts"))
        who = "The model in the bundle flags a patient" if in_turn else "A patient is flagged"
        text = f"{who} where the risk is {percent(model['threshold'])} or more."
        test = split["test"]
        if precision and recall is not None and test and test["rows"]:
            flagged = recall * test["positive"] / precision / test["rows"]
            so_many = f"{of_hundred(min(flagged, 1))} of every 100 {split['unit']}"
            text += (
                " When patients were judged in turn, each part had a threshold of its own, which"
                f" together flagged {so_many}."
                if in_turn
                else f" That flags {so_many}."
            )
        out.append(text)
    out += _belief(model)
    return out


MOST_EXTREME, MOST_TIMID = 0.8, 1.25  # slopes beyond these need care


def _belief(model: Record) -> list[str]:
    """Whether the risks can be taken at their word."""
    out = []
    slope = performance.metric(model, "calibration_slope")
    if slope.get("low") is not None and slope.get("high") is not None:
        value = slope["value"]
        if value <= 0:
            out.append("Higher risks did not mean more outcomes: they cannot be used as they are.")
        elif slope["high"] < 1:
            out.append("The risks are too extreme: high ones are told too high, low ones too low.")
        elif slope["low"] > 1:
            out.append("The risks are too timid: high ones are told too low, low ones too high.")
        elif MOST_EXTREME <= value <= MOST_TIMID:
            out.append("The risks are spread about as they should be (slope compatible with 1).")
        else:
            lean = "extreme" if value < 1 else "timid"
            out.append(
                f"The risks look too {lean}, though so few patients cannot rule out that they are"
                f" spread as they should be (slope {number(value, 2)}, {interval(slope, 2)})."
            )
    large = performance.metric(model, "calibration_intercept")
    if large.get("low") is not None and large.get("high") is not None:
        if large["high"] < 0:
            out.append("On average they are too high.")
        elif large["low"] > 0:
            out.append("On average they are too low.")
        else:
            out.append("On average they are about right (intercept compatible with 0).")
    return [" ".join(out)] if out else []


def pictures(model: Record, unit: str) -> list[dict[str, Any]]:
    """Precision and recall as so many of a hundred."""
    precision, recall = _values(model, "precision", "recall")
    out = []
    if precision is not None:
        right = of_hundred(precision)
        text = f"Of 100 {unit} flagged, {right} have the outcome"
        rest = f"{100 - right} are false alarms."
        out.append(_picture(right, text, rest, "main"))
    if recall is not None:
        found = of_hundred(recall)
        text = f"Of 100 {unit} with the outcome, {found} are flagged"
        out.append(_picture(found, text, f"{100 - found} are missed.", "second"))
    return out


def _picture(filled: int, text: str, rest: str, kind: str) -> dict[str, Any]:
    return {"svg": hundred(filled, title=text, kind=kind), "text": f"{text}.", "rest": rest}
