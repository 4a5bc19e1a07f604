"""How alike a patient's outcomes are is told around risks that fit, not around those at fault."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.evaluate import watch
from clinloom.evaluate.cells import Cells
from clinloom.evaluate.watch import Rows
from clinloom.learn.calibration import apply
from clinloom.learn.sketch import Sketch
from clinloom.run.recalibrate import changed, decided

EACH = 5  # moments of a patient


def decision(*, intercept: float, alike: bool, patients: int = 300):
    """What is decided of patients whose risks are all too low, and how often rows were summed."""
    rng = np.random.default_rng(5)
    subject = np.repeat(np.arange(patients), EACH)
    risk = apply(np.full(subject.size, 0.2), 1.0, 0.0) * rng.uniform(0.8, 1.2, subject.size)
    fate = np.repeat(rng.random(patients), EACH) if alike else rng.random(subject.size)
    none = np.zeros(subject.size, int)
    outcome, known = fate < apply(risk, 1.0, intercept), np.ones(subject.size, bool)
    rows = Rows(subject, none, risk, risk > 0.5, outcome, known, np.zeros((subject.size, 0), bool))
    cut = Cells.of(Sketch.of(risk[:, None], subject))
    asked = []

    def summed(change):
        asked.append(change)
        made = rows if change is None else changed(rows, change=change, threshold=0.5)
        return watch.sums(made, cut, 0.0)

    return *decided(summed, level=0.05), asked


@pytest.mark.parametrize(("alike", "around"), [(False, 1.0), (True, EACH)])
def test_what_is_wrong_with_a_model_does_not_pass_for_likeness(alike, around):
    before, found, sums, asked = decision(intercept=1.0, alike=alike)
    spread = watch.seen(sums)[1]
    assert abs(spread - around) < 0.25 * around
    assert found.intercept == pytest.approx(1.0, abs=0.4) and found.method == "intercept"
    assert before.known == 300 * EACH and asked == [None, asked[1], found]


def test_patients_who_are_alike_do_not_bend_a_model_that_fits():
    *_, asked = decision(intercept=0.0, alike=True)
    assert decision(intercept=0.0, alike=True)[1].method == "none" and len(asked) == 2
