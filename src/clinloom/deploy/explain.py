"""Why a patient's risk is what it is: what each feature adds, exactly, and in clinical words.

Made once of a bundle, without Spark, from the scorer's arrays::

    explainer = Explainer.of(bundle)
    explainer.base + explainer.contributions(values).sum(axis=1)    # the raw model's output
    explainer.reasons(values[0])                                    # the most weighty, in words

Every model adds up in one scale, before recalibration: log-odds (logistic regression, boosted
trees, the neural network) or probability (decision tree, random forest). The risk that is told is
``sigmoid(intercept + slope * log-odds)`` of that output, a growing function of it: so what raises
the one raises the other, and for a model in log-odds ``slope`` times a contribution is what it adds
to the log-odds of the risk (:attr:`Explainer.slope`), wherever these lie within ±13.8. A
recalibration by a bent slope or a broken line has no such number: it keeps the order alone.

The reference is the training rows: their mean for linear models and networks, their shares at each
split (covers) for trees. Contributions describe the model, not what causes the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clinloom.deploy.bundle import Bundle
from clinloom.deploy.scorer import Scorer
from clinloom.errors import StoreError
from clinloom.features import Feature
from clinloom.learn import preparation
from clinloom.learn.additive import Columns, Scale
from clinloom.learn.algorithm import algorithm
from clinloom.report import names
from clinloom.report.figures import MINUS, number
from clinloom.vocabulary.quantities import BY_CODE

Floats = npt.NDArray[np.float64]

FEW = "too few values"
MISSING = {"slope": FEW, "sd": FEW, "age": "not known"}  # others: not measured
SIGNS = {"Cel": "°C", "kg/m2": "kg/m²", "10*3/uL": "10³/µL", "10*6/uL": "10⁶/µL"}
SMALLEST = 1e-4  # what is smaller is written with its power of ten
DAYS_TOLD = 2.0  # a shorter span is told in hours
UNITLESS = ("count", "present", "age")  # statistics whose number is not in the code's unit


@dataclass(frozen=True)
class Reason:
    """What one feature adds to a patient's output, and how a clinician calls it.

    ``value``: the patient's, in ``unit``, None where there is none.
    """

    feature: Feature
    words: str
    value: float | None
    unit: str | None
    contribution: float

    @property
    def said(self) -> str:
        """Such as ``3.1 mg/dL``, ``recorded`` or ``not measured``."""
        if self.value is None:
            return MISSING.get(self.feature.statistic, "not measured")
        if self.feature.statistic == "present":
            return "recorded" if self.value else "not recorded"
        if self.feature.statistic == "since" and self.value < DAYS_TOLD:
            return f"{figure(24 * self.value)} h"
        return f"{figure(self.value)} {self.unit}" if self.unit else figure(self.value)

    @property
    def text(self) -> str:
        """Such as ``Creatinine, last in 24 h: 3.1 mg/dL``."""
        return f"{self.words}: {self.said}"


class Explainer:
    """A scorer's answers, taken apart: what can be made once is made here.

    ``scale`` and ``base``: see above; ``slope``: the recalibration's. Raises StoreError for a model
    that was trained before its reasons were kept: it scores all the same.
    """

    def __init__(
        self,
        scorer: Scorer,
        features: Sequence[Feature],
        *,
        displays: names.Displays = names.NO_DISPLAYS,
        units: Mapping[str, str | None] | None = None,
    ):
        self.features = list(features)
        self._scorer = scorer
        columns = Columns.of(scorer.statistics, len(self.features))
        model = algorithm(scorer.model)
        if not hasattr(model, "additive"):  # another package's, of an earlier shape
            mend = "its file needs `additive`, see clinloom.learn.algorithm"
            raise StoreError(f"the model '{scorer.model}' tells no reasons", mend=mend)
        self._additive = model.additive(scorer.arrays, columns)
        self._words = names.features([feature.name for feature in self.features], displays)
        self._units = [unit(feature, units or {}) for feature in self.features]

    @classmethod
    def of(cls, bundle: Bundle) -> Explainer:
        """The explainer of a bundle, in the words of its sources."""
        displays = bundle.document.get("displays", {})
        return cls(bundle.scorer, bundle.features, displays=displays, units=bundle.units)

    @property
    def scale(self) -> Scale:
        """In what the contributions add up."""
        return self._additive.scale

    @property
    def base(self) -> float:
        """The output for a patient of whom nothing is known: that of the training rows."""
        return self._additive.base

    @property
    def slope(self) -> float | None:
        """What recalibration multiplies the log-odds of the output by; None where it is bent."""
        straight = not self._scorer.bend and not self._scorer.curve.size
        return self._scorer.slope if straight else None

    def contributions(self, values: Floats) -> Floats:
        """What each feature adds (n, f) for feature rows ``values`` (n, f), NaN = missing.

        With ``base`` they add up to the model's output, to 1e-9 (networks: relative to it). A value
        and the flag that it is missing are one feature; features that are always missing together
        share a flag, which counts with the first of them.
        """
        rows = np.asarray(values, np.float64)
        return self._additive.of(preparation.prepare(rows, self._scorer.statistics))

    def reasons(self, values: Floats, *, most: int = 5) -> list[Reason]:
        """The features that add the most to one patient's row (f,), either way; none that is 0."""
        row = np.asarray(values, np.float64)
        found = self.contributions(row[None, :])[0]
        order = np.argsort(-np.abs(found), kind="stable")[:most]
        return [
            Reason(
                self.features[at],
                self._words[at],
                None if math.isnan(row[at]) else float(row[at]),
                self._units[at],
                float(found[at]),
            )
            for at in order.tolist()
            if found[at]
        ]


def grouped(
    contributions: Floats,
    features: Sequence[Feature],
    by: Literal["code", "family", "modality"],
) -> dict[str, Floats]:
    """Contributions (n, f) added up (n,) by the features' code, family or modality."""
    out: dict[str, Floats] = {}
    for feature, found in zip(features, contributions.T, strict=True):
        key = str(getattr(feature, by))
        out[key] = out[key] + found if key in out else found.copy()
    return out


def unit(feature: Feature, learned: Mapping[str, str | None]) -> str | None:
    """The unit in which a feature's number is told, as clinicians write it; None: it has none."""
    if feature.statistic == "since":
        return "days"
    if feature.family != "measurements" or feature.statistic in UNITLESS:
        return None
    known = BY_CODE.get(feature.code)
    told = known.unit if known else learned.get(feature.code)
    if told is None:
        return None
    return SIGNS.get(told, told.replace("[", "").replace("]", ""))


def figure(value: float) -> str:
    """A number with three digits that count, and no zeros after them."""
    if not value or not math.isfinite(value):
        return number(value, 0)
    if abs(value) < SMALLEST:
        return f"{value:.2e}".replace("-", MINUS)
    text = number(value, max(0, 2 - math.floor(math.log10(abs(value)))))
    return text.rstrip("0").rstrip(".") if "." in text else text
