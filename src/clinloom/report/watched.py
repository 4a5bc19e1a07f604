"""The page of a model at work: which alarms there are, and what was seen by period."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clinloom.report import names, template
from clinloom.report.charts import Plot
from clinloom.report.figures import NONE, count, moment, number, percent

Record = Mapping[str, Any]
KINDS = {
    "inputs": "A feature's values are distributed unlike the training data's",
    "missing": "A feature is missing more, or less, often",
    "codes": "A code or unit that the training data did not have",
    "predictions": "The risks are distributed otherwise",
    "flagged": "Another share is flagged",
    "calibration": "The risks of a period are too high, too low, too extreme or too timid",
    "running": "Outcomes have run away from what was expected",
    "discrimination": "Patients are told apart less well",
    "subgroups": "The risks of a subgroup no longer hold",
}
MOST = 200  # alarms that the page lists


def render(verdict: Record) -> str:
    """The page of a verdict (what ``evaluate.alarms.judge`` gives, with what it was made from)."""
    return template("monitor.html.j2").render(view(verdict))


def view(verdict: Record) -> dict[str, Any]:
    """What the template shows; every text and number ready, charts drawn."""
    alarms, periods = verdict["alarms"], verdict["periods"]
    return {
        "title": f"{verdict['study']}: the model at work",
        "created": moment(verdict["created"]),
        "alarmed": bool(alarms),
        "tiles": _tiles(verdict),
        "alarms": [_alarm(one) for one in alarms[:MOST]],
        "more": max(0, len(alarms) - MOST),
        "charts": [chart for chart in _charts(verdict) if chart],
        "periods": [_period(one) for one in periods],
        "hidden": verdict["hidden"],
        "features": [_feature(one) for one in verdict["features"]],
        "groups": [_group(one) for one in verdict["groups"]],
        "feedback": _feedback(verdict["feedback"]),
        "kinds": [
            (KINDS[kind], percent(told["level"], 2), count(told["tests"]))
            for kind, told in verdict["kinds"].items()
        ],
        "level": _level(verdict),
        "facts": [
            ("Model", verdict["model"]),
            ("Bundle", verdict["bundle"][:12]),
            ("Threshold", percent(verdict["threshold"])),
            ("Periods", verdict["by"]),
            ("Outcomes count of moments until", verdict["outcomes_until"] or "none is known"),
        ],
    }


def _level(verdict: Record) -> str:
    return f"{100 * verdict['level']:.2g}%"


def _tiles(verdict: Record) -> list[dict[str, str]]:
    alarms, periods = verdict["alarms"], verdict["periods"]
    kinds = {one["kind"] for one in alarms}
    said = f"by chance alone in at most {_level(verdict)} of such reports"
    span = f"{periods[0]['period']} to {periods[-1]['period']}" if periods else ""
    was = verdict["reference"]
    last: Record = next((p for p in periods[::-1] if p.get("auroc")), {})
    return [
        {"label": "Alarms", "value": count(len(alarms)), "note": said},
        {
            "label": "Kinds of alarm",
            "value": f"{len(kinds)} of {len(verdict['kinds'])}",
            "note": "kinds that these data can raise",
        },
        {"label": "Periods", "value": count(len(periods)), "note": span},
        {
            "label": "Latest AUROC",
            "value": number(last.get("auroc")),
            "note": str(last.get("period", "no outcomes yet")),
        },
        {
            "label": "Latest intercept",
            "value": number(last.get("intercept"), 2),
            "note": f"was {number(was['intercept'], 2)} when it was trained",
        },
    ]


def _alarm(one: Record) -> dict[str, str]:
    what = names.feature(one["what"]) if "|" in one["what"] else one["what"]
    of = f" ({one['of']})" if one.get("of") else ""
    found, was = one["found"], one["expected"]
    if isinstance(found, Mapping):
        found, was = f"PSI {number(found['psi'], 2)}, KS {number(found['ks'], 2)}", "0"
    return {
        "kind": KINDS[one["kind"]],
        "what": f"{what}{of}",
        "period": one["period"] or "all",
        "found": _said(found, one["kind"]),
        "was": _said(was, one["kind"]),
    }


def lines(alarms: Sequence[Record]) -> Iterator[str]:
    """A line for each alarm, in words."""
    for one in map(_alarm, alarms):
        when = "" if one["period"] == "all" else f" in {one['period']}"
        found = "not told, of few" if one["found"] == NONE else one["found"]
        was = f", was {one['was']}" if one["was"] != NONE else ""
        yield f"{one['kind']}: {one['what']}{when}: {found}{was}"


def _said(value: Any, kind: str) -> str:
    if value is None:
        return NONE
    if kind in ("missing", "flagged"):
        return percent(value)
    return number(value) if isinstance(value, float) else str(value)


def _period(one: Record) -> dict[str, str]:
    return {
        "period": one["period"],
        "rows": count(one["rows"]),
        "flagged": percent(one["flagged"]),
        "psi": number(one["psi"], 2),
        "observed": percent(one.get("observed")),
        "predicted": percent(one.get("predicted")),
        "intercept": number(one.get("intercept"), 2),
        "slope": number(one.get("slope"), 2),
        "auroc": number(one.get("auroc")),
    }


def _feature(one: Record) -> dict[str, str]:
    def most(values: Sequence[float | None]) -> float | None:
        return max((v for v in values if v is not None), default=None)

    missing = [v for v in one["missing"] if v is not None]
    return {
        "name": names.feature(one["feature"]),
        "psi": number(most(one["psi"]), 2),
        "ks": number(most(one["ks"]), 2),
        "missing": f"{percent(min(missing))} to {percent(max(missing))}" if missing else NONE,
        "was": percent(one["was_missing"]),
        "p": f"{one['p']:.1g}",
    }


def _group(one: Record) -> dict[str, str]:
    return {
        "name": one["group"],
        "known": count(one["known"]),
        "observed": percent(one["observed"]),
        "predicted": percent(one["predicted"]),
        "intercept": number(one["intercept"], 2),
        "auroc": number(one["auroc"]),
    }


def _feedback(found: Record | None) -> dict[str, Any] | None:
    if found is None:
        return None
    rows = [
        {
            "period": one["period"],
            "cards": count(one["cards"]) if one["cards"] is not None else "<5",
            "overridden": percent(one["overridden"]),
            "between": f"{percent(one['low'])} to {percent(one['high'])}" if one["cards"] else "",
        }
        for one in found["periods"]
    ]
    return {"rows": rows, "reasons": found["reasons"], "unreadable": found["unreadable"]}


def _charts(verdict: Record) -> list[dict[str, Any] | None]:
    periods = [one for one in verdict["periods"] if one.get("observed") is not None]
    return [
        _outcomes(periods),
        _running(verdict),
        _area(periods, verdict["reference"]),
        _calibration(verdict["calibration"]),
    ]


def _axis(periods: Sequence[Record]) -> str:
    return f"Period, from {periods[0]['period']} (1) to {periods[-1]['period']}"


def _plot(title: str, periods: Sequence[Record], y: tuple[float, float], what: str) -> Plot:
    low, high = y
    wide = max(high - low, 0.02)
    return Plot(
        title,
        x=(0.5, len(periods) + 0.5),
        y=(max(0.0, low - 0.1 * wide), high + 0.1 * wide),
        percent="",
        xlabel=_axis(periods),
        ylabel=what,
    )


def _outcomes(periods: Sequence[Record]) -> dict[str, Any] | None:
    if not periods:
        return None
    observed = [one["observed"] for one in periods]
    predicted = [one["predicted"] for one in periods]
    values = [*observed, *predicted]
    plot = _plot("Outcomes by period", periods, (0.0, max(values)), "Share with the outcome")
    plot.line([*enumerate(predicted, 1)], "rival")
    plot.line([*enumerate(observed, 1)], "main")
    for at, value in enumerate(observed, 1):
        plot.dot(at, value, note=f"{periods[at - 1]['period']}: {percent(value)}")
    return {
        "title": "Outcomes that came, and those predicted",
        "svg": plot.svg(),
        "caption": "Blue: the share that had the outcome. Orange, dashed: the mean predicted risk."
        " Periods in which fewer than 5 patients had, or had not, the outcome are left out.",
    }


def _running(verdict: Record) -> dict[str, Any] | None:
    periods = [one for one in verdict["periods"] if one.get("up") is not None]
    limit = verdict["limit"]
    if not periods or limit is None:
        return None
    paths = [[one[way] for one in periods] for way in ("up", "down")]
    most = max([limit, *paths[0], *paths[1]])
    plot = _plot("Running sums by period", periods, (0.0, most), "Running sum")
    plot.line([(0.5, limit), (len(periods) + 0.5, limit)], "mark")
    plot.line([*enumerate(paths[1], 1)], "rival")
    plot.line([*enumerate(paths[0], 1)], "main")
    return {
        "title": "Running sum of outcomes less those expected",
        "svg": plot.svg(),
        "caption": "Blue rises while more outcomes come than expected, orange (dashed) while fewer"
        " do. Above the dotted line is an alarm.",
    }


def _area(periods: Sequence[Record], was: Record) -> dict[str, Any] | None:
    found = [one for one in periods if one["auroc"] is not None]
    if not found:
        return None
    values = [one["auroc"] for one in found]
    spans = [1.96 * (one.get("auroc_error") or 0.0) for one in found]
    low = min([0.5, *(v - s for v, s in zip(values, spans, strict=True))])
    plot = _plot("AUROC by period", found, (max(0.0, low), 1.0), "AUROC")
    if was.get("auroc") is not None:
        plot.line([(0.5, was["auroc"]), (len(found) + 0.5, was["auroc"])], "mark")
    for at, (value, span) in enumerate(zip(values, spans, strict=True), 1):
        plot.interval(at, max(plot.y[0], value - span), min(1.0, value + span))
        plot.dot(at, value, note=f"{found[at - 1]['period']}: {number(value)}")
    return {
        "title": "Telling patients apart",
        "svg": plot.svg(),
        "caption": "AUROC with its 95% interval. The dotted line is that of the test patients when"
        " the model was trained; the lower bound of a single period is no alarm.",
    }


def _calibration(tenths: Sequence[Record]) -> dict[str, Any] | None:
    if not tenths:
        return None
    end = min(1.0, 1.1 * max(max(t["predicted"], t["high"]) for t in tenths))
    plot = Plot(
        "Calibration of all periods",
        x=(0, end),
        y=(0, end),
        xlabel="Predicted risk",
        ylabel="Observed share with the outcome",
    )
    plot.line([(0, 0), (end, end)], "chance")
    for t in tenths:
        plot.interval(t["predicted"], t["low"], min(t["high"], end))
        note = f"predicted {percent(t['predicted'])}, observed {percent(t['observed'])}"
        plot.dot(t["predicted"], t["observed"], note=note)
    return {
        "title": "Calibration",
        "svg": plot.svg(),
        "caption": "Each dot is a tenth of the moments by risk; above the dashed diagonal the risk"
        " is told too low.",
    }
