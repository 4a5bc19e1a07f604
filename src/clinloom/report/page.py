"""The run's record as what the page shows: every text and number ready, charts drawn."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from clinloom.report import (
    checklists,
    disclosure,
    judged,
    limits,
    names,
    performance,
    subgroups,
    summary,
)
from clinloom.report.baseline import SIZE
from clinloom.report.charts import forest
from clinloom.report.definitions import DEFINITIONS, SIGNS
from clinloom.report.disclosure import cell
from clinloom.report.figures import FEW, NONE, count, moment, percent, seconds
from clinloom.report.words import GLOSSARY, rule, sentence
from clinloom.tables import BEFORE, COMPETING, OUTCOME, STRADDLING

Record = Mapping[str, Any]
TOP_CODES = 3
CLEANING = "clean"  # the stage of whose refusals the ledger tells the sums


def view(record: Record) -> dict[str, Any]:
    """What the template shows, from the record of a run; whatever is absent is None or empty."""
    models = _judged(record)
    shown = any(model.get("test") for model in models.values())
    selected = record.get("selected") or next(iter(models), "")
    model = models.get(selected) or {}
    split = _split(record.get("split") or {})
    study = record.get("study") or {}
    displays = record.get("displays") or {}
    titles = {name: performance.title(name, one) for name, one in models.items()}
    whole = model.get("test") or {}
    found = {
        "title": study.get("title") or study.get("name") or "Clinloom study",
        "description": study.get("description") or "",
        "created": moment(record.get("created")),
        "unit": split["unit"],
        "tiles": summary.tiles(performance.title(selected, model) if model else None, model, split),
        "warnings": [*_alarm(record.get("leakage")), *(record.get("warnings") or [])],
        "sentences": summary.sentences(model, split),
        "pictures": summary.pictures(model, split["unit"]),
        "flow": _flow(record.get("flow") or [], split["total"]),
        "split": split,
        "judged": judged.view(record, model, split["unit"]),
        "comparison": performance.comparison(models, selected) if models else None,
        "paired": subgroups.paired(record.get("paired") or {}, models, titles) if shown else [],
        "chosen": titles.get(selected, ""),
        "panels": performance.panels(models, selected, displays),
        "subgroups": subgroups.subgroups(record.get("subgroups") or [], whole, displays),
        "months": subgroups.months(record.get("months") or [], whole),
        "explanation": subgroups.explanation(record.get("explanation"), displays),
        "demographics": limits.demographics(record),
        "hash": study.get("hash") or "",
        "modalities": _modalities(record.get("modalities") or {}) if shown else None,
        "table1": _table1(record.get("table1") or [], displays),
        "sources": _sources(record.get("sources") or []),
        "ledger": _ledger(record.get("ledger") or [], displays),
        "rejected": _rejected(record.get("rejected") or [], record.get("sources") or []),
        "leakage": _leakage(record.get("leakage")),
        "run": _run(record, model),
        "limits": limits.limits(record, model),
        "glossary": GLOSSARY,
        "definitions": DEFINITIONS,
        "signs": SIGNS,
    }
    return {**found, "checklists": checklists.filled(checklists.facts(found))}


def _judged(record: Record) -> dict[str, Record]:
    """The models; without their results where too few test rows could show any."""
    models: dict[str, Record] = record.get("models") or {}
    test = (record.get("split") or {}).get("test")
    if not test or min(test["positive"], test["rows"] - test["positive"]) >= FEW:
        return models
    return {name: {**model, "test": {}, "curves": {}} for name, model in models.items()}


def _split(parts: Record) -> dict[str, Any]:
    """The training and test patients, and their sum."""
    titles = {"train": "Training", "test": "Test"} if "train" in parts else {"test": "In turn"}
    found = [(title, parts[part]) for part, title in titles.items() if part in parts]
    total = {key: sum(part[key] for _, part in found) for key in ("subjects", "rows", "positive")}
    several = total["rows"] != total["subjects"]
    rows = [*found, ("Together", total)] if len(found) > 1 else found
    outcomes, together = disclosure.divided(dict(found)) if found else (True, True)
    sized = all(disclosure.parts([part["subjects"] for _, part in found]))
    shown = [(sized, outcomes)] * len(found) + [(True, together)]
    return {
        "several": several,
        "unit": "prediction moments" if several else "patients",
        "total": total if found else None,
        "test": parts.get("test"),
        "in_turn": "test" in parts and "train" not in parts,
        "sized": sized,
        "together": together,
        "rows": [
            {
                "name": name,
                "subjects": cell(part["subjects"], of_size),
                "rows": cell(part["rows"], of_size),
                "positive": cell(part["positive"], of_outcome),
                "share": percent(part["positive"] / part["rows"])
                if of_outcome and part["rows"]
                else NONE,
            }
            for (name, part), (of_size, of_outcome) in zip(rows, shown, strict=False)
        ],
    }


def _flow(flow: Sequence[Record], total: Record | None = None) -> dict[str, Any] | None:
    """The cohort's steps with who was left out at each, and how those who are left ended.

    ``total``: the split's patients and rows, of whom the page tells, too.
    """
    if not flow:
        return None
    steps = [step for step in flow if step["name"] not in ENDS]
    last = steps[-1]
    key = "rows" if last["rows"] != last["subjects"] else "subjects"
    shown = disclosure.columns([_counts(step) for step in (*steps, total or last)])
    out = [_step(step, *seen) for step, seen in zip(steps, shown, strict=False)]
    for at in range(1, len(out)):
        seen = [all(two) for two in zip(shown[at - 1], shown[at], strict=True)]
        out[at]["left_out"] = _left_out(steps[at - 1], steps[at], *seen)
    found = {step["name"]: step[key] for step in flow if step["name"] in ENDS}
    ends = _ends(found, last[key], key) if OUTCOME in found and out[-1]["shown"] else []
    return {"steps": out, "ends": ends, "hides": not all(step["shown"] for step in out)}


def _counts(step: Record) -> tuple[int, int]:
    """Patients and moments; where moments are not counted yet, patients alone."""
    return step["subjects"], step["rows"] or step["subjects"]


# They leave nobody out: they are among the last step's.
ENDS = (STRADDLING, BEFORE, COMPETING, OUTCOME)


def _ends(found: Mapping[str, int], of: int, key: str) -> list[dict[str, str]]:
    """Boxes of those with the outcome, with a competing event before it, and with neither."""
    outcome, competing = found[OUTCOME], found.get(COMPETING, 0)
    unsure = found.get(STRADDLING, 0)
    all_but = disclosure.small(outcome - unsure)
    number = f"all but {disclosure.SMALL}" if all_but else disclosure.told(unsure)
    note = f", {number} of them perhaps before" if unsure else ""
    boxes = [(f"With the outcome{note}", "with", outcome)]
    if competing:
        boxes.append(("A competing event, such as death, first", "without", competing))
    taken = found.get(BEFORE, 0)
    some = f"all but {disclosure.SMALL}" if disclosure.small(of - outcome - taken) else ""
    note = f", {some or disclosure.told(taken)} with one taken to lie before" if taken else ""
    boxes.append((f"Without the outcome{note}", "without", of - outcome - competing))
    unit = "prediction moments" if key == "rows" else "patients"
    known = 0 if min(outcome, of - outcome) >= FEW else None  # the split tells of it
    shown = disclosure.parts([n for *_, n in boxes], known=known)
    return [
        {
            "name": name,
            "kind": kind,
            "count": f"{cell(n, seen)} {unit}" if seen or n < FEW else disclosure.HIDDEN,
            "share": percent(n / of) if of and seen else "",
        }
        for (name, kind, n), seen in zip(boxes, shown, strict=True)
    ]


def _step(step: Record, of_patients: bool, of_moments: bool) -> dict[str, Any]:
    name = "All patients" if step["name"] == "patients" else sentence(step["name"])
    rows = step["rows"] if step["rows"] not in (0, step["subjects"]) else None
    moments = f"{count(rows)} prediction moments" if rows and of_moments else ""
    patients = f"{count(step['subjects'])} patients" if of_patients else disclosure.HIDDEN
    shown = of_patients and of_moments
    return {"name": name, "count": patients, "moments": moments, "shown": shown, "left_out": ""}


def _left_out(before: Record, step: Record, of_patients: bool, of_moments: bool) -> str:
    """Whom a step left out; that it was nobody hides and tells nothing."""
    lost = before["subjects"] - step["subjects"]
    moments = before["rows"] - step["rows"] if before["rows"] else 0
    if max(lost, moments) > 0 and not (of_patients and of_moments):
        return "moments left out: hidden" if of_patients else "left out: hidden"
    said = [f"{count(lost)} patients"] if lost > 0 else []
    if moments > 0 and moments != lost:
        said.append(f"{count(moments)} moments")
    return ", ".join(said) + " left out" if said else ""


def _modalities(found: Record) -> Any:
    """The selected model with records, images and both; None where they were not compared."""
    rows = [
        (names.MODELS[kind], found[kind].get("auroc") or {}, kind == "both")
        for kind in ("both", "records", "images")
        if kind in found
    ]
    return forest(rows, measure="AUROC") if len(rows) > 1 else None


def _table1(
    rows: Sequence[Record], displays: names.Displays = names.NO_DISPLAYS
) -> dict[str, Any] | None:
    if not rows:
        return None
    sizes = rows[0] if rows[0].get("name") == SIZE else None
    shown = rows[1:] if sizes else rows
    known = int((sizes or {}).get("known", len(shown)))
    left = f"{len(shown)} of {count(known)} characteristics, those with the fewest missing."
    told = names.features([row["feature"] for row in shown], displays)
    named = [{"difference": "", **row, "name": name} for row, name in zip(shown, told, strict=True)]
    return {"sizes": sizes, "rows": named, "left": left if known > len(shown) else ""}


def _sources(sources: Sequence[Record]) -> list[dict[str, str]]:
    return [
        {
            "name": source["name"],
            "type": source.get("type") or "",
            "events": disclosure.told(source.get("events")),
            "images": disclosure.told(source.get("images")),
        }
        for source in sources
    ]


def _ledger(
    ledger: Sequence[Record], displays: names.Displays = names.NO_DISPLAYS
) -> list[dict[str, str]]:
    """What was changed, by rule and action, with the codes that it befell most."""
    codes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for entry in ledger:
        codes[entry["rule"], entry["action"]][entry.get("code") or ""] += entry["count"]
    rows = sorted(codes.items(), key=lambda kv: (-kv[1].total(), kv[0]))
    return [
        {
            "rule": sentence(rule(name)),
            "key": name,
            "action": sentence(action.replace("_", " ")),
            "count": disclosure.told(found.total()),
            "codes": _most(found, displays),
        }
        for (name, action), found in rows
    ]


def _most(found: Counter[str], displays: names.Displays) -> str:
    """The codes with the most; a last one is left out where the rest of the total were few."""
    told = [(code, n) for code, n in found.most_common() if code]
    top = [(code, n) for code, n in told[:TOP_CODES] if n >= FEW]
    while top and disclosure.small(found.total() - sum(n for _, n in top)):
        top.pop()
    shown = [
        f"{(names.feature if '|' in code else names.code)(code, displays)} {count(n)}"
        for code, n in top
    ]
    rest = len(told) - len(shown)
    more = f"{rest} more" if shown else f"{rest} codes"
    return " · ".join([*shown, more] if rest > 0 else shown)


def _rejected(rejected: Sequence[Record], sources: Sequence[Record]) -> list[dict[str, str]]:
    """What was refused, of which no part is had from a sum that the page tells: a source's, by a
    warning, or in the ledger that of one of the cleaning's reasons."""
    read = {s["name"]: s.get("images") or s.get("events") or 0 for s in sources}
    ordered = sorted(rejected, key=lambda r: -r["count"])
    of: dict[str, list[Record]] = defaultdict(list)
    why: dict[str, list[Record]] = defaultdict(list)
    for entry in ordered:
        of[entry.get("source") or ""].append(entry)
        if entry.get("stage") == CLEANING:
            why[entry["reason"]].append(entry)
    told = [
        (some, disclosure.of_source([e["count"] for e in some], read.get(source, 0)))
        for source, some in of.items()
    ]
    told += [
        (some, disclosure.parts([e["count"] for e in some])) for some in why.values() if some[1:]
    ]
    hidden = {id(e) for some, seen in told for e, s in zip(some, seen, strict=True) if not s}
    return [
        {
            "reason": sentence(rule(entry["reason"])),
            "key": entry["reason"],
            "field": entry.get("field") or "",
            "source": entry.get("source") or "",
            "stage": entry.get("stage") or "",
            "count": disclosure.HIDDEN if id(entry) in hidden else disclosure.told(entry["count"]),
        }
        for entry in ordered
    ]


def _alarm(leakage: Record | None) -> list[str]:
    """A failed leakage audit makes every number here worthless, so it comes first."""
    differing = (leakage or {}).get("rows_differing")
    if not differing:
        excused = len((leakage or {}).get("allowed") or ())
        leaks = "a finding" if excused == 1 else f"{excused} findings"
        return [f"The leakage audit has {leaks} that the study excuses: see there."][: excused > 0]
    rows = "row" if differing == 1 else "rows"
    return [
        f"The leakage audit failed on {count(differing)} {rows}: a feature knows the future, and"
        " no number here can be trusted."
    ]


def _leakage(found: Record | None) -> dict[str, Any] | None:
    if not found:
        return None
    checked, differing = found.get("rows_checked") or 0, found.get("rows_differing") or 0
    sampled = found.get("sampled") or {}
    told = {key: list(found.get(key) or ()) for key in ("looked", "findings", "allowed", "idle")}
    by_check = Counter(one["check"] for key in ("findings", "allowed") for one in told[key])
    for check in told["looked"]:
        check["found"] = count(by_check[check["check"]]) if by_check[check["check"]] else "nothing"
    return {
        "passed": checked > 0 and not differing and not told["findings"],
        "checked": count(checked),
        "differing": count(differing),
        "sampled": disclosure.told(sum(sampled.values())) if sampled else None,
        **told,
    }


def _run(record: Record, model: Record) -> dict[str, Any]:
    study, stages = record.get("study") or {}, record.get("stages") or []
    parity = model.get("parity")
    facts = [
        ("Study", study.get("name")),
        ("Study hash", study.get("hash")),
        ("Seed", study.get("seed")),
        ("Intervals", study.get("intervals")),
        ("Scorer against Spark", f"within {parity:.1e}" if parity is not None else None),
        *((name, version) for name, version in (record.get("versions") or {}).items()),
    ]
    return {
        "facts": [(name, str(value)) for name, value in facts if value not in (None, "")],
        "stages": [
            {
                "name": stage["name"].replace("_", " ").replace("/", ": "),
                "rows": disclosure.told(stage.get("rows")),
                "seconds": seconds(stage.get("seconds")),
                "reused": bool(stage.get("reused")),
            }
            for stage in stages
        ],
        "total": seconds(sum(s.get("seconds") or 0 for s in stages)) if stages else "",
    }
