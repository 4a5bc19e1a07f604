"""How much of a model's calibration new outcomes ask to change: nothing, its level, or its spread.

The closed testing procedure of Vergouwe et al. (Stat. Med. 36 (2017) 4529), as far as it keeps the
order of risks: the update with both intercept and slope is tested against the model as it is, then
against the intercept alone; the least change that is not refuted is made. So a model is not bent to
the chance of a few months.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import erfc

from clinloom.errors import DataError
from clinloom.evaluate import calibration as judging
from clinloom.learn import calibration
from clinloom.learn.risks import Risks

FEWEST = 20  # moments with the outcome, and without, from which an update is made
Floats = npt.NDArray[np.float64]
Method = Literal["none", "intercept", "intercept and slope"]


@dataclass(frozen=True)
class Update:
    """``p' = sigmoid(intercept + slope * logit(p))``, and the p-values that led to it.

    ``any_change``: that the model as it is fits; ``slope_change``: that its slope does.
    """

    method: Method
    intercept: float
    slope: float
    any_change: float
    slope_change: float

    def of(self, risk: Floats) -> Floats:
        """The updated risks (n,)."""
        return calibration.apply(risk, self.slope, self.intercept)


def fullest(risks: Risks) -> Update:
    """The change of level and spread that fits best, untested: what is left around it is chance.

    Raises DataError where fewer than 20 moments have, or have not, the outcome.
    """
    having, lacking = int(risks.positives), int(risks.rows - risks.positives)
    if min(having, lacking) < FEWEST:
        raise DataError(
            f"too few outcomes are known to recalibrate by: of those with and of those without it"
            f" at least {FEWEST} are needed",
            where="outcomes",
            mend="give predictions of a longer time, or wait until more outcomes are known",
        )
    slope, intercept = calibration.learn(risks)
    return Update("intercept and slope", intercept, slope, np.nan, np.nan)


def shift(risks: Risks) -> Update:
    """The change of level alone that fits best, untested."""
    once = risks.positive[None].astype(float), risks.total[None].astype(float)
    large = float(judging.fit(risks.score, *once)[0][2])
    return Update("intercept", large, 1.0, np.nan, np.nan)


def update(risks: Risks, *, spread: float = 1.0, level: float = 0.05) -> Update:
    """The least change of the calibration that these outcomes do not refute.

    ``spread``: how many times as far as independent rows' the sums of these vary (at least 1)
    around :func:`fullest`, whose DataError it raises.
    """
    full = fullest(risks)
    slope, both = full.slope, full.intercept
    odds = calibration.logit(risks.score)
    large = shift(risks).intercept
    most = _likelihood(risks, both + slope * odds)
    anything = float(np.exp(-_ratio(most, _likelihood(risks, odds), spread) / 2))
    alone = _ratio(most, _likelihood(risks, large + odds), spread)
    bent = float(erfc(np.sqrt(alone / 2)))
    if anything >= level:
        return Update("none", 0.0, 1.0, anything, bent)
    if bent >= level:
        return Update("intercept", large, 1.0, anything, bent)
    return Update("intercept and slope", both, slope, anything, bent)


def _likelihood(risks: Risks, odds: Floats) -> float:
    return float((risks.positive * odds - risks.total * np.logaddexp(0.0, odds)).sum())


def _ratio(more: float, less: float, spread: float) -> float:
    """Twice the difference of log likelihoods: chi-squared where nothing changed."""
    return max(0.0, 2 * (more - less) / spread)
