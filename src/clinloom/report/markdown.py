"""The page's record as Markdown and as JSON: the same texts, hidden by the same rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from clinloom.report.definitions import DEFINITIONS, SIGNS


def plain(view: Any) -> Any:
    """The view without its drawings: what JSON holds."""
    if isinstance(view, Markup):
        return None
    if isinstance(view, Mapping):
        return {
            str(k): plain(v) for k, v in view.items() if not isinstance(v, Markup) and k != "said"
        }
    if isinstance(view, (list, tuple)):
        return [plain(one) for one in view if not isinstance(one, Markup)]
    return view


def markdown(view: Mapping[str, Any]) -> str:
    """The page as one Markdown text."""
    return "\n".join(_lines(view)) + "\n"


def _lines(view: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {_text(view['title'])}"
    if view["description"]:
        yield from ("", _text(view["description"]))
    yield from ("", f"Clinloom report, {view['created']}")
    tiles = ((t["label"], t["value"], f"{t['note']} {t['hint']}".strip()) for t in view["tiles"])
    pictures = [f"{p['text']} {p['rest']}" for p in view["pictures"]]
    yield from _table("Summary", ("", "", ""), tiles)
    for title, lines in (
        ("Before you read on", view["warnings"]),
        ("In plain words", [*view["sentences"], *pictures]),
        ("Limits", view["limits"]),
    ):
        yield from _listed(title, lines)
    if view["flow"]:
        steps = (
            (s["name"], s["count"], s["moments"], s["left_out"]) for s in view["flow"]["steps"]
        )
        yield from _table("Patients", ("Step", "Patients", "Moments", "Left out"), steps)
    keys = ("name", "subjects", "rows", "positive", "share")
    rows = (tuple(r[key] for key in keys) for r in view["split"]["rows"])
    head: Sequence[str] = ("Part", "Patients", "Rows", "With outcome", "Share")
    yield from _table("Parts", head, rows)
    if view["comparison"]:
        titles = [m["title"] for m in view["comparison"]["models"]]
        metrics = (
            (row["said"].title, *(_both(c) for c in row["cells"]))
            for group in view["comparison"]["groups"]
            for row in group["rows"]
        )
        yield from _table("Metrics on the patients judged", ("Metric", *titles), metrics)
    if view["paired"]:
        rows = ((r["name"], *(_both(c) for c in r["cells"])) for r in view["paired"])
        head = ("Selected less", "AUROC", "AUPRC", "Brier score", "Calibration slope")
        yield from _table("Paired comparison", head, rows)
    for panel in view["panels"]:
        if panel["selected"] and panel["points"]:
            rows = (
                (p["name"], p["threshold"], p["alert_rate"], *(_both(c) for c in p["cells"]))
                for p in panel["points"]
            )
            head = ("Flag where", "Risk", "Flagged", "Recall", "Specificity", "Precision", "NPV")
            head = (*head, "Matthews", "Needed", "Net benefit")
            yield from _table("Flags at other points", head, rows)
    for key, title in (("subgroups", "Subgroups"), ("months", "Over time")):
        if view[key]:
            head = ("Subgroup", "Rows", "With outcome", "AUROC", "Recall", "Precision", "Slope")
            head = (*head, "Observed / expected", "AUROC, difference to the rest")
            rows = (
                (
                    r["name"],
                    r["rows"],
                    r["positive"],
                    *map(_both, r["metrics"]),
                    _both(r["difference"]),
                )
                for r in view[key]["rows"]
            )
            yield from _table(title, head, rows)
    if view["table1"]:
        head = ("Characteristic", "All", "Without", "With", "Standardised difference", "Missing")
        kept = ("name", "overall", "without", "with", "difference", "missing")
        shown = ([r[key] for key in kept] for r in view["table1"]["rows"])
        yield from _table("Table 1", head, shown)
    for one in view["checklists"]:
        answers = ((r["number"], r["asks"], r["known"]) for r in one["rows"])
        yield from _table(f"{one['title']} ({one['source']})", ("Item", "Asks", "Answer"), answers)
    rows = ((d.title, d.formula, d.source) for d in DEFINITIONS.values())
    yield from _table("Definitions", ("Number", "Definition", "Source"), rows)
    yield from ("", SIGNS)


def _both(found: Mapping[str, str]) -> str:
    return f"{found['value']} ({found['interval']})" if found["interval"] else found["value"]


def _listed(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield from ("", f"## {title}", "")
        yield from (f"- {_text(line)}" for line in lines)


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    made = [" | ".join(map(_text, row)) for row in rows]
    if made:
        yield from ("", f"## {title}", "", f"| {' | '.join(head)} |")
        yield "|" + " --- |" * len(head)
        yield from (f"| {row} |" for row in made)


def _text(text: Any) -> str:
    """A text of one line in which no sign of the study's is taken for Markdown's."""
    out = " ".join(str(text).split())
    for sign in "\\|<>[]`*_#":
        out = out.replace(sign, f"\\{sign}")
    return out
