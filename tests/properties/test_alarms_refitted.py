"""The model at work was learned again from all rows, and is watched by how another one was judged.

The reference tells of risks of the model of the training rows on test rows; what is watched are
risks of the one that was refitted on both. They differ by what chance made of 70 % of the rows.
Where nothing else changed, no kind of alarm may come oftener than it says.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy import stats
from tests.properties import test_alarms as hospital

from clinloom.evaluate import alarms, asked, cells, drift, fitness, watch
from clinloom.evaluate.cells import Cells, Kept
from clinloom.evaluate.watch import Reference
from clinloom.learn.risks import Risks
from clinloom.learn.sketch import Sketch

DRAWS, ROWS, TRAIN = 24, 4000, 2800
USED = [*range(0, 12), *range(25, 35)]  # three tell of the outcome, the others are chance


def prepared(x: np.ndarray) -> np.ndarray:
    known = np.nan_to_num(x[:, USED])
    return np.column_stack([np.ones(len(x)), np.sign(known) * np.log1p(np.abs(known))])


def learned(made: dict[str, np.ndarray], rows: slice) -> np.ndarray:
    """A logistic regression, by Newton's method, with a little of a ridge."""
    x, y = prepared(made["x"][rows]), made["outcome"][rows]
    weights = np.zeros(x.shape[1])
    for _ in range(8):
        p = 1 / (1 + np.exp(-x @ weights))
        bend = (x * (p * (1 - p))[:, None]).T @ x + 1.0 * np.eye(len(weights))
        weights += np.linalg.solve(bend, x.T @ (y - p) - weights)
    return weights


def judged_by(made: dict[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    return made | {"risk": 1 / (1 + np.exp(-prepared(made["x"]) @ weights))}


def part(made: dict[str, np.ndarray], rows: slice) -> dict[str, np.ndarray]:
    return {name: values[rows] for name, values in made.items()}


def reference(made: dict[str, np.ndarray]) -> Reference:
    """Of the model of the training rows, on the others."""
    train = part(made, slice(TRAIN))
    subject, none = train["subject"], np.zeros(TRAIN, int)
    cut = Cells.of(Sketch.of(train["x"], subject))
    counts, patients = cells.dense(cut.counts(train["x"], none, subject), [0], hospital.FEATURES)
    tested = judged_by(part(made, slice(TRAIN, ROWS)), learned(made, slice(TRAIN)))
    tested |= {"period": np.zeros(ROWS - TRAIN, int)}
    risk = Cells.of(Sketch.of(tested["risk"][:, None], tested["subject"]))
    rows = hospital.told(tested)
    found = watch.sums(rows, risk, fitness.estimate(Risks.of(rows.outcome, rows.risk)).intercept)
    of, spread = watch.seen(found)
    told = {k: fitness.estimate(o.risks, spread=spread, apart=o.known_apart) for k, o in of.items()}
    said = cells.dense(found["risks"], [0], 1)
    return Reference(
        names=tuple(f"f{n}" for n in range(hospital.FEATURES)),
        features=Kept.of(cut, counts[0], patients[0]),
        apart=float(drift.effective(TRAIN, TRAIN)) / TRAIN,
        risk=Kept.of(risk, said[0][0], said[1][0]),
        rows=ROWS - TRAIN,
        rows_apart=of[0].apart,
        flagged=of[0].flagged,
        whole=told[0],
        groups={name: told[-1 - at] for at, name in enumerate(hospital.NAMES)},
        codes={},
        pairs=0,
    )


@cache
def rates(rows: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in range(DRAWS):
        rng = np.random.default_rng(9000 + seed)
        made = hospital.drawn(rng, ROWS, each=1)
        known, at_work = reference(made), learned(made, slice(ROWS))
        new = judged_by(hospital.drawn(rng, rows, each=1), at_work)
        verdict = alarms.judge(
            known,
            watch.sums(hospital.told(new), known.risk.cells, known.whole.intercept),
            labels={n: str(n) for n in range(hospital.PERIODS)},
            groups=hospital.NAMES,
            features=known.features.cells.counts(new["x"], new["period"], new["subject"]),
            level=hospital.EACH * (len(asked.KINDS) - 1),
        )
        found.update({one["kind"] for one in verdict["alarms"]})
    return found


@pytest.mark.parametrize("kind", [kind for kind in asked.KINDS if kind != "codes"])
@pytest.mark.parametrize("rows", [600, 3000])
def test_a_refitted_model_raises_no_more_false_alarms(rows: int, kind: str):
    assert rates(rows)[kind] <= stats.binom.ppf(0.9995, DRAWS, hospital.EACH)
