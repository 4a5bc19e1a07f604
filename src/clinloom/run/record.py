"""One record of the run, gathered from what the store committed, and its report."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from clinloom import __version__, files
from clinloom.audit import Finding, verdict
from clinloom.clean import unconverted
from clinloom.evaluate import FEWEST
from clinloom.events import ANSWER
from clinloom.files import Address
from clinloom.report import card, checklists, disclosure, doubts, markdown, view
from clinloom.report import shown as page
from clinloom.report.summary import MOST_EXTREME, MOST_TIMID
from clinloom.run.work import Work
from clinloom.store import Pending, Stored, finished
from clinloom.store.layout import REPORT
from clinloom.study import Allowed, Study
from clinloom.tables import UNITS, Fault

LEDGERS = ("ledger", "preparation_ledger")
Rows = list[dict[str, Any]]
LIBRARIES = ("pyspark", "pyarrow", "numpy", "pydicom", "scipy")


def tell(work: Work, study: Study) -> None:
    """Write the run's record and the report: a stage, done again where anything before it was."""
    told = {
        "study": {
            "name": study.name,
            "title": study.title or study.name,
            "description": study.description,
            "seed": study.seed,
            "intervals": f"{study.evaluate.confidence:.0%}, {study.evaluate.bootstrap} resamples",
            "hash": study.hash,
        },
        "kinds": {name: source.type for name, source in study.sources.items()},
        "allowed": [one.model_dump() for one in study.audit.allow],
        "learned": learned(study),
    }
    root = work.store.root

    def do(out: Pending) -> None:
        created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        record = {**told, "versions": versions(), "created": created, "stages": work.stages}
        text = json.dumps(record, indent=1)
        out.put("record", "run.json", text)
        work.store.write_text("run.json", text)
        for name, text in written(root).items():
            work.store.write_text(name, text)

    work.step("report", do, options=told, inputs=dict(work.keys))
    if not files.exists(root / REPORT):
        for name, text in written(root).items():
            work.store.write_text(name, text)


def render(root: Address) -> Address:
    """Render the report of a finished run again."""
    for name, text in written(root).items():
        files.write(root / name, text.encode())
    return root / REPORT


def written(root: Address) -> dict[str, str]:
    """The report as a page, as Markdown and as JSON, and the model card as XML, by file name."""
    record = gather(root)
    seen = view(record)
    selected = record["models"][record["selected"]]
    fairness = {
        f"{row['name']}: {name}": found
        for row in record.get("subgroups") or []
        for name, found in row["fairness"].items()
    }
    return {
        "report.json": json.dumps(markdown.plain(seen), indent=1),
        "report.md": markdown.markdown(seen),
        "card.xml": card.card(
            seen, checklists.facts(seen), {**selected["test"], "fairness": fairness}, __version__
        ),
        REPORT: page(seen),
    }


def versions() -> dict[str, str]:
    """What the run was made with."""
    found = {"clinloom": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def gather(root: Address) -> dict[str, Any]:
    """The whole record of a finished run, from its output."""
    tables = finished(root)
    record = json.loads(files.read(root / "run.json"))
    metrics = json.loads(files.read(root / "metrics.json"))
    curves = json.loads(tables["evaluation"].text("curves.json"))
    for name, model in metrics["models"].items():
        model.update(curves[name])
    counted = json.loads(tables["counted"].text("summary.json"))
    given, refusals, ledger = _taken(tables, record["kinds"])
    return {
        **record,
        **metrics,
        **counted,
        "sources": given,
        "displays": displays(tables),
        "flow": tables["flow"].read().to_pylist(),
        "ledger": ledger,
        "rejected": refusals,
        "leakage": leakage(tables, record.get("allowed", ())),
        "warnings": [
            *doubtful(given, refusals, ledger),
            *warnings(metrics, counted["split"]["test"]),
            *unconverted(tables["units"].read() if "units" in tables else UNITS.empty),
        ],
    }


def first(root: Address) -> list[str]:
    """What a reader of a finished run should know of its sources before any number, a line each."""
    record = json.loads(files.read(root / "run.json"))
    return list(doubtful(*_taken(finished(root), record["kinds"])))


def _taken(tables: Mapping[str, Stored], kinds: dict[str, str]) -> tuple[Rows, Rows, Rows]:
    """What each source gave, what was refused, and the ledger."""
    counts = tables["counts"].read().to_pylist()
    ledger = [row for name in LEDGERS for row in tables[name].read().to_pylist()]
    return sources(counts, kinds), rejected(counts), ledger


def leakage(
    tables: Mapping[str, Stored], allowed: Iterable[Mapping[str, str]]
) -> dict[str, Any] | None:
    """What the leakage audit looked at, what it found, and what the study let pass and why."""
    texts = [
        json.loads(tables[n].text("audit.json"))
        for n in ("audit", "audit_preparation")
        if n in tables
    ]
    if not texts:
        return None
    findings = [Finding(**one) for told in texts for one in told["findings"]]
    refused, excused, idle = verdict(findings, [Allowed(**one) for one in allowed])
    return {
        **texts[0],
        "findings": [asdict(one) for one in refused],
        "allowed": excused,
        "idle": [one.model_dump() for one in idle],
    }


def displays(tables: Mapping[str, Stored]) -> dict[str, str]:
    """What the sources call codes."""
    called = tables["displays"].read().to_pylist() if "displays" in tables else []
    return {row["code"]: row["display"] for row in called}


def learned_from(
    root: Address, codes: Iterable[str], metrics: dict[str, Any], study: Study
) -> dict[str, Any]:
    """What a bundle tells of the data it was learned from, for who reads its risks.

    ``displays`` of ``codes``; ``patients``: of the training rows and the test's, None where one
    of them is small; ``learned``: of which rows the model itself was learned, and whose the figures
    are; ``warnings``: what a careful reader should be told of the model first.
    """
    tables = finished(root)
    wanted = {part for code in codes for part in (code, *code.split(ANSWER))}
    split = json.loads(tables["counted"].text("summary.json"))["split"]
    patients = {part: found["subjects"] for part, found in split.items()}
    shown = all(disclosure.parts(list(patients.values())))
    called = {code: said for code, said in displays(tables).items() if code in wanted}
    return {
        "displays": called,
        "patients": patients if shown else dict.fromkeys(patients),
        "learned": learned(study),
        "warnings": warnings(metrics, split["test"]),
    }


def learned(study: Study) -> dict[str, str]:
    """Of which rows the model that is put to work was learned, in words, and what tells of it.

    ``rows``: all or train; ``figures``, ``threshold``: whose they are.
    """
    if not study.deploy.refit:
        figures = "of this very model, on test rows that it has not seen"
        return {"rows": "train", "figures": figures, "threshold": "learned in training folds"}
    if study.split.rotated:
        turns = f"{'folds' if study.split.crossed else 'sites'}"
        return {
            "rows": "all",
            "figures": f"of models learned from all {turns} but the one that each was judged on;"
            " this one was learned again from all rows",
            "threshold": "learned, as the calibration, from rows that the fits in folds left out",
        }
    return {
        "rows": "all",
        "figures": "of the model of the training rows, on test rows that it has not seen; this one"
        " was learned again from both",
        "threshold": "learned, as the calibration, in folds of the training rows",
    }


def sources(counts: list[dict[str, Any]], kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Events and images that each source gave."""
    found: Counter[tuple[str, str | None]] = Counter()
    for row in counts:
        found[row["table"], row["source"]] += row["rows"]
    return [
        {"name": n, "type": kind, "events": found["events", n], "images": found["images", n]}
        for n, kind in kinds.items()
    ]


def rejected(counts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Refusals counted by source, stage, reason and field, the commonest first."""
    found = [
        {**{k: row.get(k) for k in ("source", "stage", "reason", "field")}, "count": row["rows"]}
        for row in counts
        if row["table"] == "rejected"
    ]
    return sorted(found, key=lambda row: -row["count"])


def doubtful(given: Rows, refusals: Rows, ledger: Rows) -> Iterator[str]:
    """What a reader should know of the sources before any number made from them."""
    for source in given:
        name, reasons = source["name"], Counter[Fault]()
        for row in refusals:
            if row["source"] == name:
                reasons[row["reason"], row.get("field")] += row["count"]
        yield from doubts.refused(name, source["images"] or source["events"], reasons)
        yield from doubts.moved(name, source["events"], ledger)
    yield from doubts.of_ledger([source["name"] for source in given], ledger)


def uncleaned(counts: Rows, kinds: dict[str, str]) -> Iterator[str]:
    """A line for each source of which, with what cleaning refused, more is refused than left.

    ``counts``: rows of COUNTS, after cleaning.
    """
    refusals = rejected(counts)
    touched = {row["source"] for row in refusals if row["stage"] == "clean"}
    given = [source for source in sources(counts, kinds) if source["name"] in touched]
    yield from doubtful(given, refusals, [])


def warnings(metrics: dict[str, Any], counted: dict[str, int]) -> list[str]:
    """What a careful reader should be told first; ``counted``: the test rows and their outcomes."""
    with_it, without = counted["positive"], counted["rows"] - counted["positive"]
    if min(with_it, without) < FEWEST:
        what = "have" if with_it < FEWEST else "have not"
        return [
            f"Fewer than {FEWEST} test rows {what} the outcome: too few to judge a model by, so no"
            " result is shown. More patients, or a larger test share, give more."
        ]
    out = []
    test = metrics["models"][metrics["selected"]]["test"]
    slope, auroc = test["calibration_slope"]["value"], test["auroc"]["value"]
    if slope is not None and not MOST_EXTREME <= slope <= MOST_TIMID:
        out.append(f"The selected model's calibration slope is {slope:.2f}: risks need care.")
    if auroc > 0.97:
        out.append(
            f"An AUROC of {auroc:.3f} is rare in medicine: is a feature the outcome in disguise?"
        )
    for least, what in ((with_it, "outcomes"), (without, "rows without the outcome")):
        if least < 100:
            out.append(
                f"The test rows hold fewer than 100 {what}, which gives wide intervals"
                " (Collins et al., Stat Med 2016)."
            )
    return out
