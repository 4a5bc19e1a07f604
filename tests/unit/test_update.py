"""What new outcomes ask to change of a calibration: no more than they refute, and no less."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.errors import DataError
from clinloom.evaluate.update import update
from clinloom.learn.calibration import apply, logit
from clinloom.learn.risks import Risks


def came(seed, rows=4000, *, slope=1.0, intercept=0.0, share=-1.5):
    """Risks, and outcomes of odds that are moved."""
    rng = np.random.default_rng(seed)
    risk = 1 / (1 + np.exp(-rng.normal(share, 1.0, rows)))
    return Risks.of(rng.random(rows) < apply(risk, slope, intercept), risk)


def test_a_model_that_fits_is_left_as_it_is_as_often_as_is_said():
    made = [update(came(seed, 1500)).method for seed in range(400)]
    assert 0.91 <= made.count("none") / 400 <= 0.985  # 0.95, within 3.5 standard errors


@pytest.mark.parametrize(
    ("moved", "method"),
    [
        ({"intercept": -0.6}, "intercept"),
        ({"slope": 0.6, "intercept": -0.4}, "intercept and slope"),
        ({"slope": 1.5, "intercept": 0.7}, "intercept and slope"),
    ],
)
def test_what_changed_is_learned(moved, method):
    found = update(came(3, 20_000, **moved))
    assert found.method == method and found.any_change < 1e-6
    risk = np.linspace(0.02, 0.8, 50)
    truth = apply(risk, moved.get("slope", 1.0), moved["intercept"])
    assert np.abs(logit(found.of(risk)) - logit(truth)).max() < 0.2
    assert (np.diff(found.of(risk)) > 0).all()  # the order stays
    again = came(4, 20_000, **moved)
    assert update(Risks.of(*rows(again, found))).method == "none"


def rows(risks, change):
    """Labels and updated risks, a row a moment."""
    label = np.concatenate(
        [np.arange(n) < k for n, k in zip(risks.total, risks.positive, strict=True)]
    )
    return label, np.repeat(change.of(risks.score), risks.total)


def test_patients_whose_moments_are_alike_count_for_less():
    made = came(5, 3000, intercept=-0.2)
    alone, alike = update(made), update(made, spread=4.0)
    assert alone.method == "intercept" and alike.method == "none"
    assert alike.any_change > alone.any_change


def test_too_few_outcomes_change_nothing():
    few = Risks.of(np.arange(300) < 19, np.full(300, 0.1))
    with pytest.raises(DataError, match="at least 20"):
        update(few)
