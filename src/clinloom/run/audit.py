"""The leakage audit as a step: workers look at every row, the checks at what they bring back.

It runs always, before a model is trained; what it finds is committed, and refused unless the study
says why it is no leak. The driver holds a sample of at most ``CELLS`` numbers, whatever the rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import audit as audits
from clinloom import events as ev
from clinloom import features, hashing
from clinloom.audit import Evidence, Finding, both_sides, duplicates, future
from clinloom.cohort import split as splitting
from clinloom.cohort.split import CROSSED, TEST
from clinloom.features import Feature
from clinloom.run import metadata
from clinloom.run.sides import division
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.store import Pending
from clinloom.study import Study
from clinloom.tables import (
    BEFORE,
    COMPETING,
    CROSSWALK,
    DATASET,
    EVENTS,
    IMAGES,
    OUTCOME,
    STRADDLING,
    Column,
    Table,
    matrix,
)

CELLS = 1 << 22  # numbers of the sample: 32 MB
LEAST, MOST = 1000, 20_000  # patients of the sample, where there are so many
PREPARATION = "preparation"  # the check that comes after training: see ``run.fitted``
CHECKED = 2000  # rows that are computed again, about
TOLD = ("subject_id", "time", "code", "record_id", "source")  # of the events, beside the features'

ENDS = (STRADDLING, BEFORE, COMPETING, OUTCOME)  # steps of the flow that leave nobody out


TALLY = Table(
    "audited",
    "what workers counted for the leakage audit",
    (
        Column("check", pa.string(), "for which check", False),
        Column("of", pa.string(), "a division, or a feature", False),
        Column("rows", pa.int64(), "how many", False),
    ),
)


@dataclass(frozen=True)
class Asked:
    """What a worker is told: the features, the split, and whom it takes into the sample.

    ``shares``: the parts of the training patients without and with the outcome who are sampled;
    ``checked``: of all patients, those whose rows are computed again.
    """

    listed: Sequence[Feature]
    seed: int
    folds: int
    salt: int
    shares: tuple[float, float]
    checked: float


def audit(
    work: Work,
    study: Study,
    acquired: Tables,
    events: Tables,
    cohort: Tables,
    dataset: Tables,
    listed: Sequence[Feature],
) -> Tables:
    """Look for leaks in the dataset and where it comes from. Raises DataError that names each."""

    def do(out: Pending) -> None:
        asked = _asked(study, cohort, dataset, listed)
        found = workers.by_patient(
            work.spark,
            {
                "events": (events["events"], EVENTS),
                "dataset": (dataset["dataset"], DATASET),
                "images": (acquired["images"], IMAGES),
                "crosswalk": (acquired["crosswalk"], CROSSWALK),
            },
            partial(look, asked=asked),
            out=out,
            tables={},
            columns={
                "events": list(dict.fromkeys([*features.columns(_families(listed)), *TOLD])),
                "images": list(metadata.OF_IMAGES),
            },
            merges={"sample": joined, "tally": tallied, "lags": metadata.lagging},
        )
        seen = _seen(found, listed)
        seen = _doubled(work, dataset, asked, seen)
        told = {
            "looked": audits.looked(),
            "sampled": dict(zip(("positive", "negative"), seen.sizes, strict=True)),
            "rows_checked": seen.rows_checked,
            "rows_differing": max([*seen.differing.values(), 0]),
            "findings": [asdict(finding) for finding in audits.found(seen)],
        }
        out.put("audit", "audit.json", json.dumps(told, indent=1))

    made = work.step(
        "audit",
        do,
        options=[study.seed, study.split.folds],
        inputs={name: work.keys[name] for name in ("acquire", "clean", "cohort", "features")},
        uses=[("audit", name) for name in audits.checks()],
    )
    judge(work, study, made["audit"].text("audit.json"), but=(PREPARATION,))
    return made


def judge(
    work: Work, study: Study, text: str, *, but: Sequence[str] = (), only: Sequence[str] = ()
) -> None:
    """Refuse what the study does not allow; tell of exceptions that match nothing."""
    findings = [Finding(**one) for one in json.loads(text)["findings"]]
    allowed = [a for a in study.audit.allow if a.check not in but and (not only or a.check in only)]
    refused, _, idle = audits.verdict(findings, allowed)
    for one in idle:
        work.progress.note(f"audit.allow: nothing is found by {one.check} of '{one.of}'")
    audits.refuse(refused)


def _families(listed: Sequence[Feature]) -> Iterable[str]:
    return dict.fromkeys(feature.family for feature in listed)


def _asked(study: Study, cohort: Tables, dataset: Tables, listed: Sequence[Feature]) -> Asked:
    """The shares by which as many patients are sampled as fit, half of them with the outcome."""
    subjects = {row["name"]: row["subjects"] for row in cohort["flow"].read().to_pylist()}
    positive = subjects.get(OUTCOME, 0)
    left = [number for name, number in subjects.items() if name not in ENDS]
    everybody = max(positive, *left[-1:])
    most = min(MOST, max(LEAST, CELLS // max(len(listed), 1)))
    ones = min(positive, most // 2)
    zeros = min(everybody - positive, most - ones)
    ones = min(positive, most - zeros)
    salt = division(study, cohort).salts[0]
    rows = dataset["dataset"].rows or 0
    shares = (zeros / max(everybody - positive, 1), ones / max(positive, 1))
    checked = min(1.0, CHECKED / max(rows, 1))
    return Asked(tuple(listed), study.seed, study.split.folds, salt, shares, checked)


def look(
    events: pa.Table,
    dataset: pa.Table,
    images: pa.Table,
    crosswalk: pa.Table,
    *,
    asked: Asked,
) -> dict[str, pa.Table]:
    """The kernel of whole patients: the sample with its metadata, and what all rows count."""
    if not dataset.num_rows:
        return {}
    subject = ev.subjects(dataset)
    rows = _sampled(dataset, subject, asked)
    sample = dataset.take(pa.array(rows)).select(
        ["subject_id", "prediction_time", "boolean_value", "values"]
    )
    told = ev.subjects(sample)
    codes = list(dict.fromkeys(feature.code for feature in asked.listed))
    theirs = events.filter(pa.array(np.isin(ev.subjects(events), told)))
    of_records, lags = metadata.of_records(theirs, sample, codes)
    columns = {
        **of_records,
        **metadata.of_images(images, sample),
        **metadata.of_identifiers(crosswalk, sample),
    }
    for name, values in columns.items():
        sample = sample.append_column(name, pa.array(values))
    return {
        "sample": sample,
        "lags": lags,
        "tally": _tally(events, dataset, subject, asked),
    }


def _sampled(dataset: pa.Table, subject: ev.Ints, asked: Asked) -> ev.Ints:
    """One row each of the sampled training patients: of those with the outcome one that has it."""
    outcome = dataset.column("boolean_value")
    learns = pc.and_(pc.not_equal(dataset.column("split"), TEST), pc.is_valid(outcome))
    rows = np.flatnonzero(np.asarray(learns.fill_null(False)))
    positive = np.asarray(outcome.fill_null(False))[rows]
    moment = ev.times(ev.column(dataset, "prediction_time"))[rows]
    drawn = hashing.words(moment ^ subject[rows], seed=asked.seed)
    order = np.lexsort((drawn, ~positive, subject[rows]))
    _, first = np.unique(subject[rows][order], return_index=True)
    chosen = order[first]
    share = np.array(asked.shares)[positive[chosen].astype(int)]
    uniform = splitting.uniform(subject[rows][chosen], seed=asked.seed ^ 0x5A)
    return np.sort(rows[chosen[uniform < share]])


def _tally(events: pa.Table, dataset: pa.Table, subject: ev.Ints, asked: Asked) -> pa.Table:
    side = sides(dataset, subject, asked)
    folds = splitting.fold(subject, asked.folds, asked.seed, asked.salt)
    learns = (side != "") & (side != TEST)
    divisions = {"split": side, "folds": np.where(learns, folds, -1)}
    counts = [("both_sides", of, n) for of, n in both_sides.straddling(subject, divisions).items()]
    again = splitting.uniform(subject, seed=asked.seed ^ 0xF) < asked.checked
    if again.any():
        part = dataset.filter(pa.array(again))
        some = events.filter(pa.array(np.isin(ev.subjects(events), subject[again])))
        read = some.select(features.columns(_families(asked.listed)))
        index = part.select(["subject_id", "prediction_time"])
        told = future.differing(read, index, asked.listed, matrix(part), features.matrix)
        counts += [("future", of, n) for of, n in told.items()]
        counts.append(("checked", "", part.num_rows))
    return TALLY.rows([{"check": c, "of": of, "rows": n} for c, of, n in counts])


def sides(dataset: pa.Table, subject: ev.Ints, asked: Asked) -> np.ndarray:
    """On which side of the split each row is judged (n,), a name; "" on none.

    Where every part is judged in turn, the split is not ``train`` and ``test`` but names the parts;
    where it is the same for all (``crossed``), they are the folds.
    """
    side = np.asarray(dataset.column("split").fill_null("").to_pylist(), object)
    crossed = side == CROSSED
    if crossed.any():
        side[crossed] = splitting.fold(subject[crossed], asked.folds, asked.seed, asked.salt)
    return side.astype(str)


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """Parts of the sample, whole."""
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks()


def tallied(parts: Sequence[pa.Table]) -> pa.Table:
    """TALLY with each check's count once."""
    found = pa.concat_tables(parts).group_by(["check", "of"]).aggregate([("rows", "sum")])
    return found.rename_columns(TALLY.arrow.names).cast(TALLY.arrow)


def _seen(found: Mapping[str, pa.Table], listed: Sequence[Feature]) -> Evidence:
    """What came back, as the checks look at it."""
    counts: dict[str, Counter[str]] = {
        "both_sides": Counter(),
        "future": Counter(),
        "checked": Counter(),
    }
    for row in found.get("tally", TALLY.empty).to_pylist():
        counts[row["check"]][row["of"]] += row["rows"]
    sample = found.get("sample")
    if sample is None or not sample.num_rows:
        return Evidence(
            straddling=counts["both_sides"],
            rows_checked=counts["checked"][""],
            differing=counts["future"],
        )
    sample = sample.sort_by([("subject_id", "ascending")])
    told = [n for n in sample.column_names if n not in DATASET.arrow.names]
    return Evidence(
        features=listed,
        values=matrix(sample),
        positive=np.asarray(sample.column("boolean_value")),
        subject=ev.subjects(sample),
        metadata={name: _plain(sample.column(name)) for name in told},
        untimed=metadata.untimed(found["lags"]) if "lags" in found else (),
        straddling=counts["both_sides"],
        rows_checked=counts["checked"][""],
        differing=counts["future"],
    )


def _plain(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_floating(column.type):
        return ev.numbers(column.combine_chunks())
    return np.asarray(column.fill_null("").to_pylist(), str)


def _doubled(work: Work, dataset: Tables, asked: Asked, seen: Evidence) -> Evidence:
    """``seen`` with how many patients have a row that stands on both sides, by Spark's shuffle."""
    from pyspark.sql import functions as F

    if not len(seen.features):
        return seen
    due = duplicates.due(dataset["dataset"].rows or 0)
    telling = duplicates.Telling(seen.values, seen.features)
    names = ["subject_id", "split", "values"]
    rows = workers.read(work.spark, dataset["dataset"], DATASET, columns=names)
    kernel = partial(_digested, telling=telling, due=due, asked=asked)
    made = workers.by_rows(rows, kernel, "kind string, digest long, side string, subject_id long")
    found = (
        made.groupBy("kind", "digest")
        .agg(
            F.min("side").alias("least"),
            F.max("side").alias("most"),
            F.countDistinct("subject_id").alias("subjects"),
        )
        .where("least < most and subjects > 1")
        .groupBy("kind")
        .agg(F.sum("subjects").alias("subjects"))
        .collect()
    )
    return replace(seen, doubled={row["kind"]: row["subjects"] for row in found})


def _digested(rows: pa.Table, *, telling: duplicates.Telling, due: float, asked: Asked) -> pa.Table:
    """The hash of each row that tells enough, by kind of data."""
    values, subject = matrix(rows), ev.subjects(rows)
    side = sides(rows, subject, asked)
    parts = []
    for kind, bits in telling.of(values).items():
        enough = (bits >= due) & (side != "")
        use = np.array([feature.modality == kind for feature in telling.features])
        parts.append(
            pa.table(
                {
                    "kind": pa.repeat(pa.scalar(kind), int(enough.sum())),
                    "digest": duplicates.digests(values[enough], use).view(np.int64),
                    "side": pa.array(side[enough], pa.string()),
                    "subject_id": subject[enough],
                }
            )
        )
    return pa.concat_tables(parts)
