"""What the bundle must know of its rows, so that the model can be watched at work.

Two passes of the integrated dataset and one of the acquired events, in workers; what comes back are
sums. Features are told of training rows; risks, flags and outcomes of judged rows, each by a model
that did not see it: a model that is learned again from all rows saw every one, and its own risks of
them would be too sure. Nothing is told of fewer than 5 patients (``evaluate.cells``,
``report.disclosure``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from clinloom.cohort.division import Division
from clinloom.cohort.split import TRAIN
from clinloom.deploy.scorer import Scorer
from clinloom.evaluate import casemix, cells, drift, fitness, watch
from clinloom.evaluate.cells import Cells, Kept
from clinloom.evaluate.fitness import UNKNOWN, Estimate
from clinloom.evaluate.subgroups import Group, members, subgroups
from clinloom.evaluate.watch import FEW, Reference, Rows, Seen
from clinloom.events import Ints, coded, column, numbers, subjects
from clinloom.features import Feature
from clinloom.learn import risks, sketch
from clinloom.learn.risks import Risks
from clinloom.learn.sketch import Sketch
from clinloom.report import disclosure
from clinloom.run import predict as judging
from clinloom.run import sides, train
from clinloom.run.predict import NUMBERS
from clinloom.run.work import Tables, Work
from clinloom.spark import workers
from clinloom.spark.sums import Merge
from clinloom.store import Pending
from clinloom.tables import ACQUIRED, DATASET, SEEN, matrix

READ = ("subject_id", "code", "numeric_value", "unit")

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def reference(
    work: Work,
    acquired: Tables,
    dataset: Tables,
    features: Sequence[Feature],
    models: Mapping[str, Tables],
    selected: str,
) -> Tables:
    """The reference of the selected model, as the text ``reference.json``."""
    scorers, groups = train.scorers(models, selected), subgroups(features)
    division = sides.division(work.study, dataset)

    def do(out: Pending) -> None:
        passed = partial(
            workers.by_patient,
            work.spark,
            {"dataset": (dataset["dataset"], DATASET)},
            out=out,
            tables={},
            chunk=max(256, NUMBERS // 16 // max(1, len(features))),  # sketches of several are held
        )
        first = passed(partial(_first, scorers=scorers, division=division), merges=FIRST)
        cut = Cells.of(Sketch.read(first["sketch"]))
        risk = Cells.of(Sketch.read(first["risk"]))
        intercept = _zero(fitness.estimate(Risks.read(first["groups"])).intercept)
        kernel = partial(
            _second,
            scorers=scorers,
            division=division,
            cut=cut,
            risk=risk,
            intercept=intercept,
            groups=groups,
            limit=train.told(models, selected)["threshold"],
        )
        second = passed(kernel, merges=SECOND)
        made = _told(features, cut, risk, second, groups, seen(work, acquired, out))
        out.put("reference", "reference.json", json.dumps(made.plain()))

    inputs = train.keys(work, models, "acquire", "features")
    options = [selected, casemix.NUMBERS]
    return work.step("reference", do, options=options, inputs=inputs)


def _learned(dataset: pa.Table, division: Division) -> tuple[Floats, Ints]:
    """The features and subjects of rows that a model which is judged was learned from."""
    side = dataset.column("split")
    rows = dataset.filter(side.is_valid() if division.rotated else pc.equal(side, TRAIN))
    return matrix(rows) if rows.num_rows else np.zeros((0, 0)), subjects(rows)


def _first(
    dataset: pa.Table, *, scorers: Sequence[Scorer], division: Division
) -> dict[str, pa.Table]:
    """The kernel of the first pass: what cells are cut by, and the judged rows' groups."""
    found = {}
    values, subject = _learned(dataset, division)
    if len(values):
        found["sketch"] = Sketch.of(np.where(np.isfinite(values), values, np.nan), subject).table()
    judged = judging.Rows.of(dataset, division, repeats=1)
    if judged.at.size:
        risk = judged.risks(matrix(dataset), scorers)
        found["risk"] = Sketch.of(risk[:, None], subjects(dataset)[judged.at]).table()
        outcome = _outcome(dataset)[judged.at]
        found["groups"] = Risks.of(outcome, risk).compact(watch.GROUPS).table()
    return found


def _second(
    dataset: pa.Table,
    *,
    scorers: Sequence[Scorer],
    division: Division,
    cut: Cells,
    risk: Cells,
    intercept: float,
    groups: Sequence[Group],
    limit: float,
) -> dict[str, pa.Table]:
    """The kernel of the second pass: counts of the rows learned from, sums of the judged ones."""
    found = {}
    values, subject = _learned(dataset, division)
    if len(values):
        found["features"] = cut.counts(values, np.zeros(len(subject), np.int64), subject)
        found["trained"] = watch.sized(subject)
    judged = judging.Rows.of(dataset, division, repeats=1)
    if judged.at.size:
        values, subject = matrix(dataset), subjects(dataset)[judged.at]
        told = judged.risks(values, scorers)
        known, period = np.ones(len(told), bool), np.zeros(len(told), np.int64)
        member = members(values[judged.at], groups)
        flagged = told >= limit
        outcome = _outcome(dataset)[judged.at]
        made = Rows(subject, period, told, flagged, outcome, known, member)
        found |= watch.sums(made, risk, intercept)
    return found


def _outcome(rows: pa.Table) -> Flags:
    found = rows.column("boolean_value").fill_null(False).to_numpy(zero_copy_only=False)
    return np.asarray(found.astype(bool))


FIRST: dict[str, Merge] = {"sketch": sketch.merged, "risk": sketch.merged, "groups": risks.merged}
SECOND: dict[str, Merge] = {
    **watch.MERGES,
    "features": cells.merged,
    "trained": watch.MERGES["counted"],
}


def _told(
    features: Sequence[Feature],
    cut: Cells,
    risk: Cells,
    found: Mapping[str, pa.Table],
    groups: Sequence[Group],
    codes: pa.Table,
) -> Reference:
    """What may leave."""
    counts, patients = cells.dense(found["features"], [0], len(features))
    trained = found["trained"].to_pylist()[0]
    return Reference(
        names=tuple(feature.name for feature in features),
        features=Kept.of(cut, counts[0], patients[0]),
        apart=_apart(trained),
        codes=_listed(codes),
        pairs=_pairs(codes),
        **held_out(risk, found, groups),
    )


def held_out(risk: Cells, found: Mapping[str, pa.Table], groups: Sequence[Group]) -> dict[str, Any]:
    """What may leave of rows that the model did not see: sums of period 0, and of subgroups."""
    of, spread = watch.seen(found)
    whole, said = of[0], cells.dense(found["risks"], [0], 1)
    known = [
        (group, one)
        for at, group in enumerate(groups)
        if (one := of.get(-1 - at)) is not None and one.known
    ]
    return {
        "risk": Kept.of(risk, said[0][0], said[1][0]),
        "rows": whole.rows,
        "rows_apart": whole.apart,
        "flagged": _flagged(whole),
        "whole": _estimate(whole, spread),
        "groups": {group.name: _estimate(one, spread) for group, one in _showable(known)},
        "mix": casemix.told(whole.risks) if whole.told else {},
    }


def _apart(row: Mapping[str, int]) -> float:
    return float(drift.effective(row["rows"], row["squares"])) / row["rows"]


def _estimate(one: Seen, spread: float) -> Estimate:
    """What the outcomes tell; nothing where few have, or have not, the outcome."""
    if not one.told:
        return UNKNOWN
    return fitness.estimate(one.risks, spread=spread, apart=one.known_apart)


def _showable(known: Sequence[tuple[Group, Seen]]) -> list[tuple[Group, Seen]]:
    """Subgroups of which neither patients with nor those without the outcome need be hidden."""
    out = []
    for kind in dict.fromkeys(group.kind for group, _ in known):
        some = [(group, one) for group, one in known if group.kind == kind]
        having = disclosure.parts([one.patients.having for _, one in some])
        lacking = disclosure.parts([one.patients.lacking for _, one in some])
        out += [pair for pair, a, b in zip(some, having, lacking, strict=True) if a and b]
    return out


def _flagged(one: Seen) -> int:
    """How many rows are flagged; where few patients are, or all but few, what half of few have."""
    marked, unmarked = one.patients.marked, one.patients.unmarked
    if disclosure.small(marked):
        return min(one.rows, round(FEW // 2 * one.flagged / marked))
    if disclosure.small(unmarked):
        return max(0, one.rows - round(FEW // 2 * (one.rows - one.flagged) / unmarked))
    return one.flagged


def _zero(value: float) -> float:
    return value if np.isfinite(value) else 0.0


def seen(work: Work, acquired: Tables, out: Pending) -> pa.Table:
    """SEEN of the events as the sources gave them."""
    found = workers.by_patient(
        work.spark,
        {"acquired": (acquired["acquired"], ACQUIRED)},
        codes_seen,
        out=out,
        tables={},
        columns={"acquired": READ},
        merges={"seen": seen_together},
    )
    return found.get("seen", SEEN.empty)


def codes_seen(acquired: pa.Table) -> dict[str, pa.Table]:
    """The kernel of codes: how many patients have each (SEEN), and numbers of it in each unit."""
    subject = subjects(acquired)
    who = np.cumsum(np.r_[False, subject[1:] != subject[:-1]][: subject.size])
    code, names = coded(column(acquired, "code"))
    unit, units = coded(column(acquired, "unit"))
    value = numbers(column(acquired, "numeric_value"))
    width = len(units) + 2  # 0: the code itself, 1: no unit
    parts = [code * np.int64(width), (code * np.int64(width) + unit + 2)[value == value]]
    patients = [who, who[value == value]]
    size = max(1, len(names)) * width
    pair = np.unique(np.concatenate(patients) * np.int64(size) + np.concatenate(parts)) % size
    found, counts = np.unique(pair, return_counts=True)
    of = found % width
    told = {
        "code": pa.array(names, pa.string()).take(pa.array(found // width)),
        "unit": pa.array([None if u == 0 else "" if u == 1 else units[u - 2] for u in of.tolist()]),
        "patients": pa.array(counts),
    }
    return {"seen": pa.table({n: told[n].cast(t) for n, t in _types()}, schema=SEEN.arrow)}


def _types() -> Iterable[tuple[str, pa.DataType]]:
    return ((f.name, f.type) for f in SEEN.arrow)


def seen_together(tables: Sequence[pa.Table]) -> pa.Table:
    """SEEN with each code and unit once."""
    found = pa.concat_tables(tables).group_by(["code", "unit"]).aggregate([("patients", "sum")])
    return found.rename_columns(SEEN.arrow.names).cast(SEEN.arrow)


def _listed(codes: pa.Table) -> dict[str, list[str]]:
    """The units of each code, of which 5 patients bear witness."""
    out: dict[str, list[str]] = {}
    for row in codes.sort_by([("code", "ascending"), ("unit", "ascending")]).to_pylist():
        if row["patients"] >= FEW:
            units = out.setdefault(row["code"], [])
            if row["unit"] is not None:
                units.append(row["unit"])
    return out


def _pairs(codes: pa.Table) -> int:
    """Patients added up over the codes."""
    whole = codes.filter(pc.is_null(codes.column("unit")))
    return int(pc.sum(whole.column("patients")).as_py() or 0)
