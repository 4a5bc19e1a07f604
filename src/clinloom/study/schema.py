"""What a study may say: its parts, their types and defaults; unknown keys are faults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from clinloom.study.cds_hooks import CdsHooks
from clinloom.study.cohort import Cohort
from clinloom.study.kinds import Codes, Model
from clinloom.study.split import Split


class SourceModel(Model):
    """The options of a source: ``type`` names its plug-in."""

    TELLS_SYSTEMS: ClassVar[bool] = False  # whether its data name systems of identifiers

    type: str
    identifiers: str | dict[str, str] | None = Field(
        default=None,
        description="the system of its patients' identifiers, under any name: sources that give the"
        " same one share patients; none: they are this source's alone. Where the data name systems"
        " (FHIR identifiers, issuers in DICOM), also {system in the data: name}",
    )

    @model_validator(mode="after")
    def _one_system(self) -> Self:
        if isinstance(self.identifiers, dict) and not self.TELLS_SYSTEMS:
            raise ValueError("`identifiers` is one name here: this source's data name no systems")
        return self

    @property
    def own_system(self) -> str | None:
        """The system of the identifiers that it names no system for; none: the source itself."""
        return self.identifiers if isinstance(self.identifiers, str) else None

    @property
    def anchors(self) -> tuple[str, ...]:
        """The systems whose identifiers name its patients before their records do."""
        return ()


class RuleModel(Model):
    """The options of a cleaning rule."""

    enabled: bool = Field(default=True, description="switch the rule off with false")


class Tune(Model):
    """How the points of each model's grid are searched, in the folds."""

    search: Literal["grid", "random", "halving"] = Field(
        default="grid",
        description="every point in every fold; some of them, drawn by the seed; or all in some"
        " folds, and the better third of them in more",
    )
    trials: int | None = Field(
        default=None, ge=1, description="points that are tried, of the grid; none: all of them"
    )

    @model_validator(mode="after")
    def _counted(self) -> Tune:
        if self.search == "random" and self.trials is None:
            raise ValueError("a random search needs `trials`, how many points are tried")
        if self.search == "grid" and self.trials is not None:
            raise ValueError("a grid is tried whole: with `trials` the search is random or halving")
        return self


Risk = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class Evaluate(Model):
    """How the models are judged on the test rows."""

    bootstrap: int = Field(
        default=500, ge=20, le=10_000, description="resamples of patients behind each interval"
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="the part of resamples that an interval holds"
    )
    threshold: Literal["f1", "youden"] = Field(
        default="f1", description="what a flag's threshold makes greatest, in the folds"
    )
    modalities: bool = Field(default=True, description="also records only and images only")
    thresholds: list[Risk] = Field(
        default=[0.05, 0.1, 0.2, 0.3, 0.5],
        description="further risks at which flags are judged",
    )
    alert_rates: list[Share] = Field(
        default=[0.1],
        description="shares of rows that may be flagged, at which flags are judged",
    )
    sensitivities: list[Share] = Field(
        default=[0.8], description="shares of the outcomes to be found, at which flags are judged"
    )
    subgroups: list[str] = Field(
        default=[],
        description="codes, or patterns such as ICD10CM//E11*, of features: who has one is a"
        " subgroup of its own, beside age, sex, ethnicity, site and scanner",
    )
    months: bool = Field(default=True, description="also each calendar month of the test rows")
    explain: int = Field(
        default=1_000,
        ge=0,
        le=10_000,
        description="test rows, at most, on which features are permuted and their shares added up;"
        " 0: none",
    )
    baseline: Codes = Field(
        default=(),
        description="the codes of the features that a plain logistic regression has which is judged"
        " beside the models; none: age and sex, where features tell them",
    )
    score: Codes = Field(
        default=(), description="the code of a clinical score, a feature, that is judged beside"
    )


class Allowed(Model):
    """A finding of the leakage audit that is none, and why."""

    check: str = Field(description="the check that found it, such as shortcuts")
    of: str = Field(description="what it found: a feature, a code, a column; `*` for anything")
    because: str = Field(description="the reason, for who reads the report")

    @field_validator("because")
    @classmethod
    def _reason(cls, because: str) -> str:
        if len(because.split()) < 3:
            raise ValueError("an exception needs a reason that a reader understands")
        return because.strip()


class Audit(Model):
    """What the leakage audit, which always runs, may let pass."""

    allow: tuple[Allowed, ...] = Field(
        default=(), description="exceptions, each with its reason, which the report shows"
    )


class Deploy(Model):
    """What leaves with a score, and how the model speaks in the clinic."""

    identifier: bool = Field(
        default=False, description="write the source's own patient identifier beside each score"
    )
    refit: bool = Field(
        default=True,
        description="the bundle's model is learned again from all rows, train and test, as it was"
        " tuned; false: it is the one that was judged",
    )
    cds_hooks: CdsHooks | None = Field(
        default=None, description="cards in the clinic's record system; none: there are none"
    )


class Study(Model):
    """A whole study, resolved."""

    name: str = Field(
        pattern=r"^[\w.-]+$",
        description="letters, digits, '.', '-' and '_'",
        examples=["heart-uci"],
    )
    title: str = Field(default="", description="the report's heading")
    description: str = Field(default="", description="the question in a sentence, for the report")
    seed: int = Field(default=0, description="of the split, the folds, the models, the bootstrap")
    sources: dict[str, SerializeAsAny[SourceModel]]
    clean: dict[str, SerializeAsAny[RuleModel]]
    cohort: Cohort
    features: dict[str, SerializeAsAny[Model]]
    split: Split = Split()
    audit: Audit = Audit()
    tune: Tune = Tune()
    models: dict[str, SerializeAsAny[Model]]
    calibration: Literal["platt", "isotonic", "beta", "none"] = Field(
        default="platt",
        description="how a model's risks are made right as numbers, learned on the rows that the"
        " folds left out: by slope and intercept (platt), by a broken line (isotonic; asks for some"
        " hundred outcomes), by a bent slope (beta), or not",
    )
    evaluate: Evaluate = Evaluate()
    deploy: Deploy = Deploy()
    platform: dict[str, SerializeAsAny[Model]] = Field(
        default={}, description="where it runs: one platform with its options; changes no result"
    )
    storage: dict[str, dict[str, bool | int | str]] = Field(
        default={},
        description="how a storage is opened, by scheme; secrets only as env:NAME or file:PATH",
    )

    @model_validator(mode="after")
    def _one_model(self) -> Study:
        if self.split.rotated and not self.deploy.refit:
            raise ValueError(
                f"`deploy.refit: false` keeps the model that was judged, and a split by"
                f" {self.split.method} judges several: leave it out"
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """The study as plain data, as it is stored; reading it again gives the same study."""
        return self.model_dump(mode="json")

    def portable(self) -> dict[str, Any]:
        """The resolved study without where it ran and how its storages were opened.

        That is what results depend on (with the places of its files) and what a bundle carries.
        """
        return {k: v for k, v in self.resolved().items() if k not in SITE}

    @property
    def hash(self) -> str:
        """A hash of everything in the study but the places of its files and of its run."""
        return digest(without_places(self.portable()))


PLACES = ("path", "manifest")
SITE = ("platform", "storage")


def without_places(part: Any) -> Any:
    """``part`` of a resolved study without file places: what results depend on."""
    if isinstance(part, Mapping):
        return {k: without_places(v) for k, v in part.items() if k not in PLACES}
    if isinstance(part, list):
        return [without_places(v) for v in part]
    return part


def digest(value: Any) -> str:
    """A hash of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
