"""The steps from clean events to the integrated dataset, each committed by the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from clinloom import clean as cleaning
from clinloom import cohort as cohorts
from clinloom import features
from clinloom.cohort import split as splitting
from clinloom.errors import DataError
from clinloom.features import Feature
from clinloom.identity import linkage, records
from clinloom.run import sides
from clinloom.run.record import uncleaned
from clinloom.run.sums import (
    added,
    counted,
    divided,
    ending,
    flowed,
    reach,
    reached,
    summed,
    voiced,
)
from clinloom.run.work import Tables, Work, plain
from clinloom.spark import workers
from clinloom.store import Pending
from clinloom.study import Study, digest
from clinloom.study.split import SOURCE
from clinloom.tables import (
    ACQUIRED,
    COUNTS,
    DATASET,
    EVENTS,
    EXTENT,
    FLOW,
    INDEX,
    LEDGER,
    LINKAGE,
    REFUSED,
    REJECTED,
    STRATA,
    UNITS,
    VOCABULARY,
    conform,
)

NEEDED = features.columns(())  # of the events: what vocabularies read
FOLLOWED = [*NEEDED, "earlier"]  # and what the cohort reads


def clean(
    work: Work, study: Study, acquired: Tables, learned: Mapping[str, str | None] | None = None
) -> Tables:
    """Clean every patient's events; count each change, keep each refusal.

    ``learned``: the units of a bundle's codes (see :func:`units`); none: the data tell them.
    """

    def do(out: Pending) -> None:
        told = cleaning.units_of(acquired["acquisition_units"].read(), study.clean, learned)
        out.write(UNITS, told)
        for line in cleaning.unconverted(told):
            work.progress.note(line)
        found = workers.by_patient(
            work.spark,
            {
                "acquired": (acquired["acquired"], ACQUIRED),
                "refused": (acquired["acquisition_rejected"], REFUSED),
            },
            partial(
                cleaned,
                options=study.clean,
                learned=cleaning.canonical(told) if learned is None else learned,
            ),
            out=out,
            tables={"events": EVENTS, "rejected": REJECTED, "linkage": LINKAGE},
            merges={"ledger": summed, "counts": added, "reach": reached},
        )
        counts = added([acquired["acquisition_counts"].read(), *_given(found, "counts")])
        for line in uncleaned(counts.to_pylist(), {n: o.type for n, o in study.sources.items()}):
            work.progress.note(line)
        if "reach" not in found:
            raise DataError(
                "cleaning refused every event that has a time",
                where="clean",
                mend="see tables/acquired",
            )
        ends, beyond = ending(found["reach"])
        out.write(EXTENT, ends)
        told = {"rule": "beyond_extent", "action": "left_out", "count": beyond}
        ledger = [acquired["acquisition_ledger"].read(), *_given(found, "ledger")]
        out.write(LEDGER, summed([*ledger, LEDGER.rows([told] if beyond else [])]))
        out.write(COUNTS, counts)

    return work.step(
        "clean",
        do,
        options=[plain(study.clean), learned],
        inputs={"acquire": work.keys["acquire"]},
        uses=[("clean", name) for name in study.clean],
        counts="events",
    )


def units(events: Tables) -> dict[str, str | None]:
    """The unit that the data told of each code that no vocabulary knows."""
    return cleaning.canonical(events["units"].read())


def cleaned(
    acquired: pa.Table,
    refused: pa.Table,
    *,
    options: Mapping[str, Any],
    learned: Mapping[str, str | None],
) -> dict[str, pa.Table]:
    """The cleaning kernel for whole patients, and what their sources had refused already."""
    made = cleaning.clean(acquired, options, refused, learned)
    rejected = [made["rejected"], conform(records.refusals(refused), REJECTED)]
    out = {**made, "rejected": pa.concat_tables(rejected)}
    out["linkage"] = linkage.contradictions(made["events"])
    out["ledger"] = summed([made["ledger"], linkage.counted(out["linkage"])])
    out["counts"] = added([counted(name, out[name]) for name in ("events", "rejected")])
    found = reach(made["events"])
    return {**out, "reach": found} if found.num_rows else out


def _given(found: Mapping[str, pa.Table], name: str) -> list[pa.Table]:
    return [found[name]] if name in found else []


def build_cohort(work: Work, study: Study, events: Tables) -> Tables:
    """Each patient's prediction moments, outcome and split; and, as events pass by, the codes.

    Raises DataError where the cohort cannot answer the question; its tables stay, to be looked at.
    """

    question = digest([plain(study.cohort), plain(study.split), study.seed])

    def do(out: Pending) -> None:
        kept = sides.salt(work, question)
        found = _divided(work, study, events, out, kept or 0)
        salts = splitting.salts(found.get("strata", STRATA.empty), study.split)
        if kept is None and salts.split:
            out.forget("index")
            found = _divided(work, study, events, out, salts.split)
            salts = splitting.salts(found["strata"], study.split)._replace(split=salts.split)
        elif kept is not None:
            salts = salts._replace(split=kept)
        seen = found.get("vocabulary", VOCABULARY.empty)
        classes = found.get("classes", COUNTS.empty)
        listed = features.resolve(study.features, seen, sides.training(classes, study))
        for line in written_twice(seen.column("code").to_pylist()):
            work.progress.note(line)
        out.write(FLOW, found["flow"])
        out.write(COUNTS, classes, name="classes")
        out.write(VOCABULARY, seen)
        text = json.dumps([feature.to_dict() for feature in listed])
        out.put("feature_list", "features.json", text)
        lacking = any(sides.lacking(classes, study))
        told = {"parts": sides.parts(classes, study), "question": None if lacking else question}
        out.put("sides", "sides.json", json.dumps({**salts._asdict(), **told}))

    made = work.step(
        "cohort",
        do,
        options=[plain(study.cohort), plain(study.split), study.seed, plain(study.features)],
        inputs={"clean": work.keys["clean"]},
        uses=[("features", name) for name in study.features],
        counts="index",
    )
    training = sides.answerable(made["classes"].read(), made["flow"].read(), study)
    if not feature_list(made):
        _tell_no_feature(made["vocabulary"].read(), training)
    return made


def written_twice(codes: Iterable[str]) -> Iterator[str]:
    """A line where codes differ in a ``.0`` at the end: a number, perhaps, in two forms."""
    known = set(codes)
    pairs = sorted(c for c in known if c.endswith(".0") and c.removesuffix(".0") in known)
    if pairs:
        yield (
            f"{pairs[0].removesuffix('.0')} and {pairs[0]} are two codes, and so are"
            f" {len(pairs):,} in all that differ in `.0` alone; where they are one number, write"
            " {column:number} in their `code`, of a long table `code: {column: name:number}`"
        )


def _divided(
    work: Work, study: Study, events: Tables, out: Pending, salt: int
) -> dict[str, pa.Table]:
    return workers.by_patient(
        work.spark,
        {"events": (events["events"], EVENTS)},
        partial(moments, study=study, data_end=extent(events), salt=salt),
        out=out,
        tables={"index": INDEX},
        columns={"events": [*FOLLOWED, *(["source"] if study.split.site == (SOURCE,) else [])]},
        merges={"flow": flowed, "vocabulary": voiced, "classes": added, "strata": divided},
    )


def extent(events: Tables) -> int | None:
    """The time of the last event of the whole input, in microseconds; None where none has one."""
    last: int | None = events["extent"].read().column("last").cast("int64")[0].as_py()
    return last


def moments(
    events: pa.Table, *, study: Study, data_end: int | None, salt: int = 0
) -> dict[str, pa.Table]:
    """The cohort kernel and the split for whole patients, and the codes that training rows saw."""
    found = cohorts.cohort(events, study.cohort, data_end=data_end)
    within = study.cohort.outcome.within
    split, seed = study.split, study.seed
    index = splitting.assign(
        found["index"], split, seed=seed, within=within, salt=salt, events=events
    )
    strata = {"strata": splitting.strata(index, split, seed=seed)} if split.stratify else {}
    training = index.filter(pa.array(splitting.learning(index, split)))
    return {
        "index": index,
        "flow": found["flow"],
        "classes": sides.classes(index),
        "vocabulary": features.vocabulary(events, training, study.features),
        **strata,
    }


def _tell_no_feature(seen: pa.Table, training: int) -> None:
    if not seen.num_rows:
        raise DataError(
            "no event before the index time fits any feature",
            where="features",
            mend="are the codes under `features` those of the events?",
        )
    raise DataError(
        f"no code is in enough of the {training:,} training rows",
        where="features",
        mend="lower `min_rows`",
    )


def feature_list(cohort: Tables) -> list[Feature]:
    """The features that the cohort's training rows gave."""
    return [Feature.from_dict(f) for f in json.loads(cohort["feature_list"].text("features.json"))]


def needed(listed: Sequence[Feature]) -> list[str]:
    """The events' columns that these features read, and the cohort."""
    return features.columns(dict.fromkeys(feature.family for feature in listed))


def build_features(
    work: Work, study: Study, events: Tables, cohort: Tables, listed: Sequence[Feature]
) -> Tables:
    """The integrated dataset, a row per patient and moment."""

    def do(out: Pending) -> None:
        workers.by_patient(
            work.spark,
            {"events": (events["events"], EVENTS), "index": (cohort["index"], INDEX)},
            partial(integrate, listed=list(listed)),
            out=out,
            tables={"dataset": DATASET},
            columns={"events": needed(listed)},
        )

    made = work.step(
        "features",
        do,
        inputs={name: work.keys[name] for name in ("clean", "cohort")},
        uses=[("features", name) for name in study.features],
        counts="dataset",
    )
    return {**made, "sides": cohort["sides"]}


def integrate(
    events: pa.Table, index: pa.Table, *, listed: Sequence[Feature]
) -> dict[str, pa.Table]:
    """Features beside the outcome and the split."""
    if not index.num_rows:
        return {}
    made = features.compute(events, index, listed)
    for name in ("boolean_value", "split"):
        made = made.append_column(name, index.column(name))
    return {"dataset": made.select(DATASET.arrow.names)}
