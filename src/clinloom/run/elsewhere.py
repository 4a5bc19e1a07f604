"""The moments of other patients: scored as scoring does, judged as a run judges its test rows.

Workers write a risk a moment and answer sums; the driver sees groups of equal risk, cells of
features and replicates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clinloom import cohort as cohorts
from clinloom import evaluate as evaluation
from clinloom import features
from clinloom.deploy.bundle import Bundle
from clinloom.errors import DataError
from clinloom.evaluate import FEWEST, Judged, casemix, cells, watch
from clinloom.evaluate.casemix import Rows
from clinloom.evaluate.cells import Cells
from clinloom.evaluate.subgroups import Group, bits, members, subgroups, unpacked
from clinloom.evaluate.update import Update, fullest
from clinloom.files import Address
from clinloom.learn import sketch
from clinloom.learn.risks import Risks
from clinloom.learn.sketch import Sketch
from clinloom.run import crossfit, dataset, foreign, judge, predict
from clinloom.run import recalibrate as recalibrating
from clinloom.run import score as scoring
from clinloom.run.crossfit import FOLDS, KINDS, SCORED, Changes
from clinloom.run.look import named
from clinloom.run.reference import held_out, seen
from clinloom.run.sums import flowed
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.spark.session import cores
from clinloom.spark.sums import Merge
from clinloom.store import Pending, Stored
from clinloom.store.stored import stream
from clinloom.study import Cohort, Study
from clinloom.tables import EVENTS, matrix

ROWS = 1 << 16  # moments that a worker reads at once
COUNTED = ("rows", "subjects", "positive", "having", "lacking")
Ints = npt.NDArray[np.int64]


class Found(NamedTuple):
    """What the workers saw of the moments there.

    ``folds``: the groups of equal risk of each fold of patients; ``cells``: rows and patients
    (f, 11) by the reference's cells; ``present`` (f,): patients with a value that is known and not
    0; ``sketch``: of the features ``shown``.
    """

    scored: Stored
    flow: list[dict[str, Any]]
    counted: dict[str, int]
    folds: list[Risks]
    cells: tuple[Ints, Ints]
    present: Ints
    sketch: Sketch
    shown: list[int]
    codes: pa.Table


def moments(work: Work, bundle: Bundle, acquired: Tables, events: Tables) -> Found:
    """Score every moment of the study's cohort. Raises DataError where none can judge a model."""
    study, reference = work.study, bundle.reference
    shown = foreign.shown(bundle)
    kernel = partial(
        looked,
        bundle=str(bundle.place),
        mark=bundle.mark,
        cohort=study.cohort,
        data_end=dataset.extent(events),
        cut=reference.features.cells,
        shown=shown,
        groups=subgroups(bundle.features),
        seed=study.seed,
    )
    found: dict[str, pa.Table] = {}

    def do(out: Pending) -> None:
        found["codes"] = seen(work, acquired, out)
        found.update(
            workers.by_patient(
                work.spark,
                {"events": (events["events"], EVENTS)},
                kernel,
                out=out,
                tables={"scored": SCORED},
                columns={"events": [*features.columns(study.features), "earlier"]},
                merges=MERGES,
            )
        )

    made = work.step("score", do, inputs={"clean": work.keys["clean"]}, counts="scored")
    counted = found["counted"].to_pylist()[0] if "counted" in found else dict.fromkeys(COUNTED, 0)
    _answerable(found["flow"], counted, study)
    rows, patients = cells.dense(found["cells"], [0], len(bundle.features))
    return Found(
        made["scored"],
        found["flow"].to_pylist(),
        counted,
        [Risks.read(found["groups"].filter(pc.field("model") == at)) for at in range(FOLDS)],
        (rows[0], patients[0]),
        matrix(found["present"])[0],
        Sketch.read(found["sketch"]),
        shown,
        found["codes"],
    )


def looked(
    events: pa.Table,
    *,
    bundle: str,
    mark: str,
    cohort: Cohort,
    data_end: int | None,
    cut: Cells,
    shown: Sequence[int],
    groups: Sequence[Group],
    seed: int,
) -> dict[str, pa.Table]:
    """The kernel for whole patients: SCORED, and sums."""
    found = cohorts.cohort(events, cohort, data_end=data_end)
    index, flow = found["index"], found["flow"]
    if not index.num_rows:
        return {"flow": flow}
    loaded = scoring.published(bundle, mark)
    values = loaded.values(events, index)
    made = loaded.scored(index, values)
    risk = made.column("predicted_boolean_probability").to_numpy()
    label = index.column("boolean_value").to_numpy(zero_copy_only=False).astype(bool)
    subject = index.column("subject_id").to_numpy()
    fold = crossfit.fold_of(subject, seed=seed)
    starts = np.flatnonzero(np.diff(subject, prepend=-1) != 0)
    there = np.logical_or.reduceat(np.isfinite(values) & (values != 0), starts, axis=0)
    having = np.logical_or.reduceat(label, starts)
    lacking = np.logical_or.reduceat(~label, starts)
    counts = (len(risk), len(starts), label.sum(), having.sum(), lacking.sum())
    return {
        "scored": crossfit.table(subject, label, risk[:, None], bits(members(values, groups))),
        "flow": flow,
        "counted": pa.table({name: [int(n)] for name, n in zip(COUNTED, counts, strict=True)}),
        "groups": pa.concat_tables(
            predict.keyed(at, Risks.of(label[fold == at], risk[fold == at]).compact())
            for at in range(FOLDS)
        ),
        "cells": cut.counts(values, np.zeros(len(risk), np.int64), subject),
        "present": pa.table({"values": [there.sum(axis=0).astype(np.int64)]}),
        "sketch": _sketch(values[:, list(shown)], subject).table(),
    }


def _sketch(values: npt.NDArray[np.float64], subject: Ints) -> Sketch:
    return Sketch.of(np.where(np.isfinite(values), values, np.nan), subject)


def _added(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one row of numbers, added up."""
    found = pa.concat_tables(tables)
    return pa.table({name: [pc.sum(found.column(name))] for name in found.column_names})


def _present(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one row of an array, added up."""
    return pa.table({"values": [matrix(pa.concat_tables(tables)).sum(axis=0)]})


MERGES: dict[str, Merge] = {
    "flow": flowed,
    "counted": _added,
    "groups": predict.regrouped,
    "cells": cells.merged,
    "present": _present,
    "sketch": sketch.merged,
}


def _answerable(flow: pa.Table, counted: Mapping[str, int], study: Study) -> None:
    """Raise DataError where nobody is left to judge a model by, or too few to tell anything of."""
    if not counted["rows"]:
        lost = ", ".join(f"{r['name']} {r['subjects']:,}" for r in flow.to_pylist())
        where, mend = cohorts.emptied(flow)
        mend += named(study, cohorts.asked(flow, study.cohort))
        raise DataError(
            f"nobody is in the cohort; patients left at each step: {lost}", where=where, mend=mend
        )
    if counted["subjects"] < FEWEST:
        raise DataError(
            f"fewer than {FEWEST} patients are in the cohort: nothing can be told of so few",
            where="cohort",
            mend="give the data of more patients",
        )
    if counted["positive"] in (0, counted["rows"]):
        who = "nobody" if not counted["positive"] else "everybody"
        raise DataError(
            f"{who} of {counted['rows']:,} prediction moments has the outcome",
            where="cohort.outcome",
            mend="are its codes those of the events, and is `within` long enough?"
            + named(study, study.cohort.outcome.codes),
        )


def recalibration(work: Work, found: Found) -> list[Changes] | str:
    """What each fold's others, and last all, ask for; or why nothing can be learned."""
    sets = crossfit.others(found.folds)
    try:
        full = [fullest(risks) for risks in sets]
    except DataError as error:
        return f"{error.message}, in any four of the {FOLDS} folds of patients"
    spreads = [1.0] * len(sets)
    if found.counted["rows"] > found.counted["subjects"]:  # rows of a patient are alike
        kernel = partial(crossfit.residuals, changes=full, seed=work.study.seed)
        merges = {"spread": crossfit.spread}
        sums = _passed(work, found, "spread", kernel, merges=merges)
        spreads = crossfit.spreads(sums["spread"])
    return crossfit.learned(sets, spreads)


def _passed(
    work: Work, found: Found, name: str, kernel: Any, *, merges: Mapping[str, Merge]
) -> dict[str, pa.Table]:
    """The merged sums of a kernel of SCORED."""
    out: dict[str, pa.Table] = {}

    def do(pending: Pending) -> None:
        inputs = {"scored": (found.scored, SCORED)}
        given: dict[str, Any] = {"out": pending, "tables": {}, "merges": merges}
        out.update(workers.by_patient(work.spark, inputs, kernel, **given))

    work.step(name, do, inputs={"score": work.keys["score"]})
    return out


def judgement(
    work: Work, bundle: Bundle, found: Found, changes: Sequence[Changes]
) -> dict[str, Any]:
    """Every metric of the risks as they are and, cross-fitted, as they would be; the case mix.

    ``here``, ``mix``, ``recalibrated`` by ``KINDS``, and ``curves`` by either name.
    """
    study, threshold = work.study, bundle.scorer.threshold
    groups = [Risks.merge(found.folds).compact()]
    scored = found.scored
    if changes:
        groups += crossfit.groups(found.folds, changes)
        kernel = partial(crossfit.refitted, changes=changes, seed=study.seed)
        scored = _refitted(work, found, kernel)
    judged = [Judged.of(one, threshold) for one in groups]
    few = min(found.counted["having"], found.counted["lacking"]) < FEWEST
    if few or judged[0].few:
        mix = casemix.told(groups[0]) | dict.fromkeys(casemix.OF_OUTCOMES)
        told = {name: {"value": n, "low": None, "high": None} for name, n in mix.items()}
        return {"here": judge.WITHHELD, "mix": told, "recalibrated": {}, "curves": {}}
    tests, mixes = _replicated(work, scored, judged)
    rows = judged[0].risks.rows
    tests = [judge.showable(test, rows) for test in tests]
    return {
        "here": tests[0],
        "mix": mixes,
        "recalibrated": dict(zip(KINDS, tests[1:], strict=False)),
        "curves": {
            name: evaluation.curves(risks=one)
            for name, one in zip(("here", *KINDS), groups, strict=False)
            if name in ("here", "chosen")
        },
    }


def _refitted(work: Work, found: Found, kernel: Any) -> Stored:
    """SCORED with the risks that the calibrations of others would give."""

    def do(out: Pending) -> None:
        inputs = {"scored": (found.scored, SCORED)}
        workers.by_patient(work.spark, inputs, kernel, out=out, tables={"refitted": SCORED})

    return work.step("recalibrate", do, inputs={"score": work.keys["score"]})["refitted"]


def _replicated(
    work: Work, scored: Stored, judged: Sequence[Judged]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Metrics and case mix with their intervals; the replicates are made in the workers."""
    asked = work.study.evaluate
    total = sum(len(one.risks.score) for one in judged)
    blocks = evaluation.blocks(asked.bootstrap, total, least=cores(work.spark))
    kernel = partial(
        replicates,
        files=[str(file) for file in scored.files()],
        judged=list(judged),
        blocks=blocks,
        seed=work.study.seed,
    )
    made = workers.tasks(work.spark, len(blocks), kernel, merges={"drawn": pa.concat_tables})
    rows = made["drawn"].sort_by("replicate")
    drawn = matrix(rows).reshape(rows.num_rows, len(judged), -1)
    return [
        evaluation.told(drawn[:, number], confidence=asked.confidence)
        for number in range(len(judged))
    ], casemix.intervals(matrix(rows, "mix"), confidence=asked.confidence)


def replicates(
    number: int,
    *,
    files: Sequence[str],
    judged: Sequence[Judged],
    blocks: Sequence[range],
    seed: int,
) -> Iterator[pa.RecordBatch]:
    """The replicates of a block, in a worker: every model's metrics, and the case mix."""
    block = blocks[number]
    metrics = evaluation.replicated(_rows(files), judged, block, seed=seed)
    mix = casemix.drawn(_rows(files), judged[0].risks, block, seed=seed)
    values = np.moveaxis(metrics, 1, 0).reshape(len(block), -1)
    table = pa.table({"replicate": list(block), "values": list(values), "mix": list(mix)})
    yield workers.partial("drawn", table)


def _rows(files: Sequence[str]) -> Iterator[Rows]:
    """SCORED in chunks: subject, outcome, a risk a calibration."""
    for file in files:
        for rows in stream(file, SCORED.arrow.names, ROWS, coded=False):
            yield crossfit.rows(rows)


def published(
    work: Work, bundle: Bundle, found: Found, change: Update, target: Address, told: dict[str, Any]
) -> None:
    """Write the bundle with another calibration; it is watched by these moments from then on."""
    groups, cut = (
        subgroups(bundle.features),
        recalibrating.moved(bundle.reference.risk.cells, change),
    )
    kernel = partial(
        changed, change=change, threshold=bundle.scorer.threshold, cut=cut, groups=len(groups)
    )
    sums = _passed(work, found, "watch", kernel, merges=watch.MERGES)
    known = replace(bundle.reference, **held_out(cut, sums, groups))
    recalibrating.publish(target, bundle, change, known, told)


def changed(
    scored: pa.Table, *, change: Update, threshold: float, cut: Cells, groups: int
) -> dict[str, pa.Table]:
    """The kernel: what is watched (``watch.sums``) of moments with their risks changed."""
    subject, label, risks = crossfit.rows(scored)
    risk = risks[:, 0]
    member = unpacked(scored.column("member").to_numpy(), groups)
    none, known = np.zeros(len(risk), np.int64), np.ones(len(risk), bool)
    made = watch.Rows(subject, none, risk, risk >= threshold, label, known, member)
    return watch.sums(recalibrating.changed(made, change=change, threshold=threshold), cut, 0.0)
