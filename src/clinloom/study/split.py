"""Which rows a study's models learn from, and which they are judged on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from clinloom.errors import instead
from clinloom.study.kinds import Codes, Model

METHODS = ("random", "time", "kfold", "site", "column")
SOURCE = "source"  # a patient's site is the source that tells of it
TUNED, CROSSED = 3, 5  # folds, unless told: to tune in, and to be judged in


class Split(Model):
    """Which patients train and which test. A patient is never in both.

    ``random``, ``time`` and ``column`` set rows aside for the test. ``kfold`` and ``site`` judge
    every row once (``kfold``: once a repeat), by a model that was learned from the other folds or
    sites, and tuned within them.
    """

    method: Literal["random", "time", "kfold", "site", "column"] = Field(
        default="random",
        description="patients at random; by when their index time is; each fold in turn; each site"
        " in turn; or as the data say",
    )
    train: float = Field(default=0.7, gt=0, description="train's weight against test's")
    test: float = Field(default=0.3, gt=0, description="test's weight against train's")
    cutoff: dt.datetime | None = Field(default=None, description="by time: the test starts here")
    site: Codes = Field(
        default=(),
        description="by site: the codes that tell a patient's, such as SITE//*, or `source`: the"
        " source that tells of it",
    )
    learn: Codes = Field(default=(), description="by column: codes of the patients who train")
    judge: Codes = Field(default=(), description="by column: codes of the patients who test")
    stratify: bool = Field(
        default=True,
        description="each side of a random split, and each fold, has its share of the patients"
        " with the outcome; false: by one hash, whatever they have",
    )
    folds: int = Field(
        default=TUNED,
        ge=2,
        le=20,
        description="parts of the training patients, for tuning; by kfold of all, 5 unless told:"
        " each is judged in turn, and the others tune",
    )
    repeats: int = Field(
        default=1, ge=1, le=20, description="by kfold: how many times, by other folds each time"
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """The method by its older key, `by`, and its folds unless told."""
        if not isinstance(given, Mapping):
            return given
        told = dict(given)
        if "by" in told:
            by = told.pop("by")
            if told.setdefault("method", by) != by:
                raise ValueError("`by` is the older name of `method`: leave it out")
        method = told.get("method", METHODS[0])
        if method not in METHODS:
            mend = instead(str(method), METHODS)
            raise ValueError(f"'{method}' is no method of splitting; {mend}")
        if method == "kfold":
            told.setdefault("folds", CROSSED)
        return told

    @model_validator(mode="after")
    def _whole(self) -> Split:
        needs = {
            "time": ("cutoff", self.cutoff, "a date"),
            "site": ("site", self.site, "the codes that tell a patient's, or `source`"),
            "column": ("learn", self.learn, "the codes of the patients who train"),
        }
        key, given, what = needs.get(self.method, ("", True, ""))
        if not given:
            raise ValueError(f"a split by {self.method} needs `{key}`, {what}")
        if self.method == "column" and not self.judge:
            raise ValueError("a split by column needs `judge`, the codes of the patients who test")
        if self.crossed and self.folds < 3:  # a fold is judged, one tunes: none would train
            raise ValueError("a split by kfold needs 3 `folds` or more")
        if self.repeats > 1 and not self.crossed:
            raise ValueError("only a split by kfold has `repeats`")
        return self

    @property
    def crossed(self) -> bool:
        """Whether the parts that are judged are the folds."""
        return self.method == "kfold"

    @property
    def rotated(self) -> bool:
        """Whether every row is judged, each part in turn, and no side is set aside."""
        return self.method in ("kfold", "site")
