"""The sides of the split as a run holds them: by which salt, in which parts, of both classes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pyarrow as pa

from clinloom import cohort as cohorts
from clinloom import files
from clinloom.cohort.division import Division
from clinloom.cohort.split import CROSSED, TEST, TRAIN
from clinloom.errors import DataError
from clinloom.run.look import named
from clinloom.run.work import Tables, Work
from clinloom.study import Study
from clinloom.tables import COUNTS

MOST_SITES = 50  # that are judged in turn, each by models of its own


def division(study: Study, tables: Tables) -> Division:
    """How the rows of a dataset are judged and folded."""
    return Division.of(study.split, study.seed, json.loads(tables["sides"].text("sides.json")))


def salt(work: Work, question: str) -> int | None:
    """The salt by which the output's patients were divided, where it answered this question."""
    entry = work.store.manifest["stages"].get("cohort", {"tables": {}})
    if "sides" not in entry["tables"]:
        return None
    held = work.store.stored("cohort", "sides")
    if not files.exists(held.file("sides.json")):
        return None
    told = json.loads(held.text("sides.json"))
    kept: int | None = told["split"] if told["question"] == question else None
    return kept


def classes(index: pa.Table) -> pa.Table:
    """How many rows of each split have the outcome, as COUNTS: ``stage`` and ``reason``."""
    found = index.group_by(["split", "boolean_value"]).aggregate([([], "count_all")])
    return COUNTS.rows(
        {
            "table": "index",
            "stage": row["split"],
            "reason": str(row["boolean_value"]),
            "rows": row["count_all"],
        }
        for row in found.to_pylist()
    )


def training(classes: pa.Table, study: Study | None) -> int:
    """How many rows a model that is judged may learn from."""
    rotated = study is not None and study.split.rotated
    rows = classes.to_pylist()
    return sum(r["rows"] for r in rows if r["stage"] == "train" or (rotated and r["stage"]))


def parts(classes: pa.Table, study: Study) -> list[str]:
    """The values of ``split`` whose rows are judged together; none where the folds are."""
    if study.split.crossed:
        return []
    if study.split.method != "site":
        return ["test"]
    return sorted({row["stage"] for row in classes.to_pylist() if row["stage"]})


def answerable(classes: pa.Table, flow: pa.Table, study: Study | None = None) -> int:
    """How many rows train. Raises DataError where the cohort cannot answer the question.

    ``classes``: COUNTS of the index by split (``stage``) and outcome (``reason``).
    """
    counts = {(row["stage"], row["reason"]): row["rows"] for row in classes.to_pylist()}
    total = sum(counts.values())
    if not total:
        lost = ", ".join(f"{r['name']} {r['subjects']:,}" for r in flow.to_pylist())
        where, mend = cohorts.emptied(flow)
        mend += named(study, cohorts.asked(flow, study.cohort) if study else ())
        raise DataError(
            f"nobody is in the cohort; patients left at each step: {lost}", where=where, mend=mend
        )
    positive = sum(n for (_, outcome), n in counts.items() if outcome == "True")
    if positive in (0, total):
        who = "nobody" if positive == 0 else "everybody"
        raise DataError(
            f"{who} of {total:,} prediction moments has the outcome",
            where="cohort.outcome",
            mend="are its codes those of the events, and is `within` long enough?"
            + named(study, study.cohort.outcome.codes if study else ()),
        )
    if study is not None and study.split.method == "site":
        named_so = {TRAIN, TEST, CROSSED} & set(parts(classes, study))
        if named_so:
            raise DataError(
                f"a site is called '{min(named_so)}', as a side of a split is",
                where="split.site",
                mend="call it otherwise: a source by its name in the study, a code in the data",
            )
        sites = len(parts(classes, study))
        if not 1 < sites <= MOST_SITES:
            few = "is `site` a code of the events?"
            raise DataError(
                f"{sites:,} sites are told of the cohort's patients, not 2 to {MOST_SITES}",
                where="split.site",
                mend=few if sites < 2 else "name coarser codes, or split by kfold",
            )
    for part, having, without in lacking(classes, study):
        raise DataError(
            f"the {part} rows ({having + without:,}) hold a single class: {having:,} with the"
            f" outcome, {without:,} without; of all {total:,} rows {positive:,} have it",
            where="split",
            mend="give it more patients, another share, seed or cutoff; see tables/index",
        )
    return training(classes, study)


def lacking(classes: pa.Table, study: Study | None) -> Iterator[tuple[str, int, int]]:
    """The sides that hold a single class, with their rows with the outcome and without.

    By site: what is left to learn from without one; a site alone may hold one.
    """
    counts = {(row["stage"], row["reason"]): row["rows"] for row in classes.to_pylist()}
    told = {stage for stage, _ in counts if stage}
    sides = {"train": {"train"}, "test": {"test"}}
    if study is not None and study.split.crossed:
        sides = {"crossed": told}
    elif study is not None and study.split.rotated:
        sides = {f"other than {site}": told - {site} for site in sorted(told)}
    for side, stages in sides.items():
        having, without = (
            sum(n for (stage, outcome), n in counts.items() if stage in stages and outcome == one)
            for one in ("True", "False")
        )
        if not (having and without):
            yield side, having, without
