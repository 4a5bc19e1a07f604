"""Who learns: the study's models, and simple rivals that are judged beside and never selected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from clinloom.errors import DataError, instead
from clinloom.events import matching
from clinloom.features import Feature
from clinloom.learn.algorithm import algorithm
from clinloom.study import Study

PLAIN = "logistic_regression"  # what a rival is
OPTIONS = {"penalty": (0.0,), "elastic_net": (0.0,), "imbalance": "none"}
AGE, SEX = "age", "GENDER//"
RANK = {"last": 0, "present": 1, "max": 2, "mean": 3}  # of a code's features a rival has one


class Learner(NamedTuple):
    """A model by its name in the results: its algorithm, options, and the features it has (none:
    all)."""

    name: str
    algorithm: str
    options: Any
    title: str
    use: tuple[int, ...] = ()
    rival: bool = False


def learners(study: Study, features: Sequence[Feature]) -> list[Learner]:
    """The study's models, and the rivals that its features can tell.

    Raises DataError where the study names a rival's codes that no feature has.
    """
    models = [Learner(n, n, o, algorithm(n).TITLE) for n, o in study.models.items()]
    return [*models, *_rivals(study, features)]


def _rivals(study: Study, features: Sequence[Feature]) -> Iterator[Learner]:
    asked = study.evaluate
    known = [at for at, f in enumerate(features) if f.statistic == AGE or f.code.startswith(SEX)]
    named = _named(features, asked.baseline, "evaluate.baseline")
    titles = {
        "baseline": (f"Baseline: {_known(features, known)}", known or named),
        "score": ("Clinical score", _named(features, asked.score, "evaluate.score")),
    }
    if named:
        titles["baseline"] = "Baseline: " + ", ".join(_codes(features, named)), named
    for name, (title, use) in titles.items():
        if use and name not in study.models:
            options = algorithm(PLAIN).Options.model_validate(OPTIONS)
            yield Learner(name, PLAIN, options, title, tuple(use), rival=True)


def _known(features: Sequence[Feature], known: Sequence[int]) -> str:
    """What of age and sex the features tell."""
    ages = [features[at].statistic == AGE for at in known]
    return " and ".join([*(["age"] * any(ages)), *(["sex"] * (not all(ages)))])


def _codes(features: Sequence[Feature], use: Sequence[int]) -> list[str]:
    return list(dict.fromkeys(features[at].code for at in use))


def _named(features: Sequence[Feature], codes: Sequence[str], where: str) -> list[int]:
    """One feature of each code that fits, the latest value before others."""
    if not codes:
        return []
    best: dict[str, tuple[int, int]] = {}
    fits = matching([feature.code for feature in features], codes)
    for at in np.flatnonzero(fits).tolist():
        rank = RANK.get(features[at].statistic, len(RANK))
        code = features[at].code
        if code not in best or rank < best[code][0]:
            best[code] = rank, at
    if not best:
        mend = instead(codes[0], sorted({feature.code for feature in features}))
        raise DataError(f"no feature has a code of {', '.join(codes)}", where=where, mend=mend)
    return sorted(at for _, at in best.values())
