"""Recalibrations judged on whom they were not learned from, against statsmodels fold by fold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from clinloom.errors import DataError
from clinloom.evaluate.update import fullest
from clinloom.learn import calibration
from clinloom.learn.risks import Risks
from clinloom.run import crossfit
from clinloom.run.crossfit import FOLDS, KINDS
from clinloom.tables import matrix

sm = pytest.importorskip("statsmodels.api")
RNG = np.random.default_rng(8)


def patients(count: int = 3000, each: int = 1):
    subject = np.repeat(np.arange(count // each), each)
    odds = np.repeat(RNG.normal(-1, 1.3, count // each), each)
    fate = np.repeat(RNG.random(count // each), each)
    label = fate < calibration.sigmoid(0.5 + 0.6 * odds)
    return subject, label, calibration.sigmoid(odds)


def folded(subject, label, risk, seed=3):
    fold = crossfit.fold_of(subject, seed=seed)
    return fold, [Risks.of(label[fold == at], risk[fold == at]) for at in range(FOLDS)]


def table(subject, label, risk) -> pa.Table:
    return crossfit.table(subject, label, risk[:, None], np.zeros(len(risk), np.int64))


def test_each_fold_is_changed_by_what_all_others_ask_for():
    subject, label, risk = patients()
    fold, folds = folded(subject, label, risk)
    sets = crossfit.others(folds)
    changes = crossfit.learned(sets, [1.0] * len(sets))
    made = crossfit.refitted(table(subject, label, risk), changes=changes, seed=3)["refitted"]
    told = matrix(made)
    assert (told[:, 0] == risk).all() and made.column("subject_id").to_pylist() == list(subject)
    for at in range(FOLDS):
        inside, rest = fold == at, fold != at
        odds = calibration.logit(risk)
        y = label[rest].astype(float)
        both = sm.Logit(y, sm.add_constant(odds[rest])).fit(disp=0, tol=1e-12).params
        binomial = sm.families.Binomial()
        level = sm.GLM(y, np.ones((rest.sum(), 1)), family=binomial, offset=odds[rest]).fit().params
        expected = calibration.sigmoid(both[0] + both[1] * odds[inside])
        assert told[inside, 2] == pytest.approx(expected, abs=1e-6)
        assert told[inside, 1] == pytest.approx(
            calibration.sigmoid(level[0] + odds[inside]), abs=1e-6
        )
        assert (told[inside, 3] == told[inside, 2]).all()  # a slope of 0.6 asks for both
    for number, one in enumerate(crossfit.groups(folds, changes), 1):
        again = Risks.of(label, told[:, number])
        assert one.rows == again.rows and one.auroc() == pytest.approx(again.auroc(), abs=1e-12)


def test_the_outcomes_of_a_fold_change_nothing_that_judges_it():
    subject, label, risk = patients()
    fold, folds = folded(subject, label, risk)
    other = np.where(fold == 2, ~label, label)
    found = [
        crossfit.learned(crossfit.others(one), [1.0] * (FOLDS + 1))
        for one in (folds, folded(subject, other, risk)[1])
    ]
    assert found[0][2] == found[1][2] and found[0][1] != found[1][1]


def test_patients_are_whole_in_a_fold_and_folds_are_alike():
    subject = np.repeat(np.arange(20_000), 2)
    fold = crossfit.fold_of(subject, seed=0)
    assert (fold[::2] == fold[1::2]).all()
    assert np.bincount(fold) / len(fold) == pytest.approx([0.2] * FOLDS, abs=0.01)
    assert (crossfit.fold_of(subject, seed=1) != fold).any()


def test_the_spread_is_what_rows_of_a_patient_add_in_any_chunks():
    subject, label, risk = patients(6000, each=3)
    _, folds = folded(subject, label, risk)
    full = [fullest(one) for one in crossfit.others(folds)]
    whole = table(subject, label, risk)
    parts = [
        crossfit.residuals(rows, changes=full, seed=3)["spread"]
        for rows in (whole.slice(0, 2100), whole.slice(2100))
    ]
    once = crossfit.residuals(whole, changes=full, seed=3)["spread"]
    found = crossfit.spreads(crossfit.spread(parts))
    assert found == pytest.approx(crossfit.spreads(crossfit.spread([once])), rel=1e-12)
    assert found == pytest.approx([3.0] * (FOLDS + 1), rel=0.1)  # three rows of one fate
    alone = crossfit.residuals(table(np.arange(6000), label, risk), changes=full, seed=3)
    assert crossfit.spreads(crossfit.spread([alone["spread"]]))[-1] == pytest.approx(1, abs=0.1)


def test_too_few_outcomes_teach_nothing():
    subject, label, risk = patients()
    label[:] = False
    label[:15] = True
    with pytest.raises(DataError, match="too few outcomes"):
        crossfit.learned(crossfit.others(folded(subject, label, risk)[1]), [1.0] * (FOLDS + 1))
    assert len(KINDS) == 3
