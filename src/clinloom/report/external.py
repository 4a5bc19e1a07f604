"""The page of an external validation: the model on other patients, beside where it was learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clinloom.report import disclosure, names, page, template, validity
from clinloom.report.charts import forest
from clinloom.report.figures import NONE, count, interval, number, percent
from clinloom.report.words import GLOSSARY, METRICS, TRUSTED

Record = Mapping[str, Any]
THERE, HERE = "Where it was learned", "Here"
KINDS = {
    "intercept": "Level",
    "intercept and slope": "Level and spread",
    "chosen": "As the test chooses",
}
CASE_MIX = {
    "observed": ("Share with the outcome", "Prevalence"),
    "predicted": ("Mean predicted risk", "Calibration"),
    "observed_expected": ("O:E ratio", "O:E ratio"),
    "odds_mean": ("Linear predictor, mean", "Linear predictor"),
    "odds_sd": ("Linear predictor, standard deviation", "Linear predictor"),
    "expected_auroc": ("AUROC if the risks were right", "AUROC if the risks were right"),
}
SHARES = ("observed", "predicted")
LEFT_OUT = ("Fold", "Leakage")  # words that this page does not use


def render(record: Record) -> str:
    """The page of an external validation (what ``run.external`` gathers), as HTML text."""
    return template("external.html.j2").render(view(record))


def view(record: Record) -> dict[str, Any]:
    """What the template shows; every text and number ready, charts drawn."""
    base = page.view(_as_run(record))
    panel = base["panels"][0] if record["curves"] else None
    displays = record["displays"]
    return {
        **{name: base[name] for name in ("description", "created", "warnings", "flow", "unit")},
        **{name: base[name] for name in ("sources", "ledger", "rejected", "pictures")},
        "title": record["study"]["title"],
        "tiles": _tiles(record, base["split"]),
        "sentences": [*validity.sentences(record), *base["sentences"]],
        "forest": _forest(record),
        "groups": _groups(record),
        "recalibrated": "chosen" in _judged(record),
        "charts": panel["charts"] if panel else [],
        "casemix": [_mixed(name, one) for name, one in record["casemix"].items()],
        "differing": len(validity.differing(record)),
        "chance": number(record["chance"], 2),
        "characteristics": _characteristics(record, displays),
        "leaning": _leaning(record["leaning"], displays),
        "codes": _codes(record["codes"], displays),
        "recalibration": _recalibration(record),
        "facts": [
            ("Bundle", record["bundle"][:12]),
            ("Model", _titled(record["model"])),
            ("Threshold", percent(record["threshold"])),
            *base["run"]["facts"],
        ],
        "glossary": dict(sorted({**_words(), **validity.WORDS}.items())),
    }


def public(record: Record) -> dict[str, Any]:
    """What may leave as JSON: the numbers of the page, small counts hidden as there."""
    base = page.view(_as_run(record))
    split, hidden = record["split"]["test"], ("curves", "displays", "ledger", "rejected", "split")
    kept = {name: part for name, part in record.items() if name not in hidden}
    return {
        **kept,
        "flow": base["flow"],
        "sources": base["sources"],
        "patients": split["subjects"],
        "moments": split["rows"],
        "outcomes": split["positive"] if base["split"]["together"] else None,
    }


def summary(record: Record) -> dict[str, Any]:
    """What a person should know first, and asks first."""
    auroc = record["metrics"]["auroc"]
    told = {
        **({"warnings": list(record["warnings"])} if record["warnings"] else {}),
        "patients": record["split"]["test"]["subjects"],
        "auroc": _said(auroc["here"]),
        "was": _said(auroc["there"]),
        "expected": _said(record["casemix"]["expected_auroc"]["here"]),
        "o_to_e": _said(record["casemix"]["observed_expected"]["here"], 2),
        "slope": _said(record["metrics"]["calibration_slope"]["here"], 2),
        "absent": f"{percent(record['leaning']['absent_weight'])} of the model's weight",
    }
    if record["recalibration"]:
        told["asked"] = validity.verdict(record["recalibration"])
        told |= {k: v for k, v in record["recalibration"].items() if k == "bundle"}
    return told


def _said(found: Record, digits: int = 3) -> str:
    between = interval(found, digits)
    value = number(found["value"], digits) if found["value"] is not None else "not told"
    return f"{value} ({between})" if between else value


def _as_run(record: Record) -> dict[str, Any]:
    """The record as that of a run whose one model is judged on the patients here."""
    shared = ("study", "created", "versions", "split", "flow", "sources", "rejected", "ledger")
    tests = {"here": {name: one["here"] for name, one in record["metrics"].items()}}
    if "chosen" in (judged := _judged(record)):
        tests["chosen"] = judged["chosen"]
    models = {
        name: {
            "title": {"here": HERE}.get(name, "Recalibrated"),
            "test": test,
            "curves": record["curves"].get(name, {}),
            "threshold": record["threshold"],
        }
        for name, test in tests.items()
    }
    return {
        **{name: record[name] for name in (*shared, "warnings", "displays")},
        "models": models,
        "selected": "here",
    }


def _judged(record: Record) -> Record:
    """The metrics of the risks recalibrated, by kind; none where they were not."""
    judged: Record = (record["recalibration"] or {}).get("judged", {})
    return judged


def _titled(model: str) -> str:
    """A model's name in words."""
    return model.replace("_", " ").capitalize()


def _words() -> dict[str, str]:
    return {word: said for word, said in GLOSSARY.items() if word not in LEFT_OUT}


def _tile(label: str, value: str, *notes: str) -> dict[str, Any]:
    return {"label": label, "value": value, "notes": [note for note in notes if note]}


def _tiles(record: Record, split: Record) -> list[dict[str, Any]]:
    total, mix, auroc = split["total"], record["casemix"], record["metrics"]["auroc"]
    slope = record["metrics"]["calibration_slope"]
    moments = f"{count(total['rows'])} prediction moments" if split["several"] else ""
    return [
        _tile("Patients here", count(total["subjects"]), moments),
        _tile(
            "With the outcome",
            percent(mix["observed"]["here"]["value"]) if split["together"] else disclosure.HIDDEN,
            f"{percent(mix['observed']['there'])} where it was learned",
        ),
        _tile("AUROC", number(auroc["here"]["value"]), interval(auroc["here"]), _was(auroc)),
        _tile(
            "O:E ratio",
            number(mix["observed_expected"]["here"]["value"], 2),
            interval(mix["observed_expected"]["here"], 2),
            "1 is ideal",
        ),
        _tile(
            "Calibration slope",
            number(slope["here"]["value"], 2),
            interval(slope["here"], 2),
            _was(slope, 2),
        ),
    ]


def _was(found: Record, digits: int = 3) -> str:
    return f"{number(found['there']['value'], digits)} where it was learned"


def _forest(record: Record) -> Any:
    auroc = record["metrics"]["auroc"]
    expected = record["casemix"]["expected_auroc"]["here"]
    rows = [
        (THERE, auroc["there"], False),
        ("Expected here, if the risks were right", expected, False),
        (HERE, auroc["here"], True),
    ]
    return forest([row for row in rows if row[1].get("value") is not None], measure="AUROC")


def _groups(record: Record) -> list[dict[str, Any]]:
    """Every metric there and here, how far it differs, and that of the risks recalibrated."""
    chosen = _judged(record).get("chosen", {})
    return [
        {
            "name": group,
            "rows": [
                {
                    "said": said,
                    "cells": [
                        *(_cell(record["metrics"][key][part]) for part in PARTS),
                        *([_cell(chosen[key])] if key in chosen else []),
                    ],
                }
                for key, said in metrics.items()
                if key in record["metrics"]
            ],
        }
        for group, metrics in METRICS.items()
    ]


PARTS = ("there", "here", "difference")


def _cell(found: Record | None) -> dict[str, str]:
    found = found or {}
    return {"value": number(found.get("value")), "interval": interval(found)}


def _mixed(name: str, one: Record) -> dict[str, str]:
    title, word = CASE_MIX[name]
    here = one["here"]
    if name in SHARES:
        low, high = here["low"], here["high"]
        between = f"{percent(low)}{NONE}{percent(high)}" if low is not None else ""
        told, was = percent(here["value"]), percent(one["there"])
    else:
        told, was, between = number(here["value"]), number(one["there"]), interval(here)
    return {"name": title, "word": word, "there": was, "here": told, "interval": between}


def _characteristics(record: Record, displays: names.Displays) -> list[dict[str, Any]]:
    rows = record["characteristics"]
    said = names.features([row["feature"] for row in rows], displays)
    return [
        {
            "name": name,
            "there": _typical(row["there"], row["above"]),
            "here": _typical(row["here"], row["above"]) if row["here"] else "fewer than 5 known",
            "difference": number(row["difference"], 2),
            "large": row["difference"] is not None and abs(row["difference"]) > validity.LARGE,
            "missing_there": percent(row["missing_there"], 0),
            "missing_here": row["missing_here"],
        }
        for name, row in zip(said, rows, strict=True)
    ]


def _typical(found: Any, above: float | None) -> str:
    """A median (Q1–Q3), where each quartile may be a bound; or a share, above the edge told."""
    if found is None:
        return NONE
    if isinstance(found, (str, float)):
        said = found if isinstance(found, str) else percent(found)
        return said if above is None else f"{said} above {number(above, _digits([above]))}"
    bounds = [one if isinstance(one, (list, tuple)) else ("", one) for one in found]
    digits = _digits([value for _, value in bounds])
    median, low, high = (SIDES[side] + number(value, digits) for side, value in bounds)
    between = NONE if low[0].isdigit() and high[0].isdigit() else " to "
    return f"{median} ({low}{between}{high})"


SIDES = {"<=": "≤\N{NO-BREAK SPACE}", ">": ">\N{NO-BREAK SPACE}", "": ""}


def _digits(values: list[float]) -> int:
    """How many decimals suit numbers that are shown together."""
    most = max(map(abs, values))
    if all(value == round(value) for value in values) or most >= 200:
        return 0
    return 1 if most >= 10 else 2 if most >= 0.1 else 4


def _leaning(found: Record, displays: names.Displays) -> dict[str, Any]:
    listed = [
        (names.code(row["code"], displays), percent(row["weight"])) for row in found["absent_codes"]
    ]
    return {
        "codes": count(found["codes"]),
        "absent": count(found["absent"]),
        "weight": percent(found["absent_weight"]),
        "listed": listed,
        "more": found["absent"] - len(listed),
        "missing_there": percent(found["missing_there"]),
        "missing_here": percent(found["missing_here"]),
    }


def _codes(found: Record, displays: names.Displays) -> dict[str, Any]:
    new = [(names.code(r["code"], displays), count(r["patients"])) for r in found["new_codes"]]
    units = [
        (names.code(row["code"], displays), row["unit"] or "no unit", count(row["patients"]))
        for row in found["units"]
    ]
    return {
        "units": units,
        "new": count(found["new"]),
        "listed": new,
        "more": found["new"] - len(new),
    }


def _recalibration(record: Record) -> dict[str, Any] | None:
    """The calibration as it is, and as others' outcomes would have it."""
    found = record["recalibration"]
    if not found or "refused" in found:
        return {"verdict": validity.verdict(found), "rows": [], "bundle": None} if found else None
    judged = _judged(record)
    kinds = [kind for kind in KINDS if kind in judged]
    return {
        "verdict": validity.verdict(found),
        "columns": ["As it is", *(KINDS[kind] for kind in kinds)],
        "rows": [
            {
                "said": said,
                "cells": [_cell(one["here"]), *(_cell(judged[kind][key]) for kind in kinds)],
            }
            for key, said in METRICS[TRUSTED].items()
            if (one := record["metrics"].get(key))
        ],
        "any": _p(found["any_change_p"]),
        "slope": _p(found["slope_change_p"]),
        "changes": [
            (KINDS[kind], number(one["intercept"], 2), number(one["slope"], 2))
            for kind, one in found["changes"].items()
        ],
        "bundle": found.get("bundle"),
    }


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else number(value)
