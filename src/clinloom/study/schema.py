"""What a study may say: its parts, their types and defaults; unknown keys are faults."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from clinloom.errors import UsageError
from clinloom.files import address

MICROSECONDS = {
    "us": 1,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 7 * 86_400_000_000,
    "y": 31_557_600_000_000,  # the Julian year, 365.25 d
}


def duration(text: Any) -> int:
    """Microseconds of a duration written like ``30d``, ``48h``, ``90m``, ``2w`` or ``1y``."""
    if isinstance(text, int) and not isinstance(text, bool):
        if text == 0:
            return 0
        raise ValueError(f"a duration needs a unit: '{text}d', '{text}h', '{text}m' …")
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(text))
    if not found or found[2] not in MICROSECONDS:
        raise ValueError("a duration is written like 30d, 48h, 90m, 2w or 1y")
    return round(Decimal(found[1]) * MICROSECONDS[found[2]])


def zone(name: str) -> str:
    """The IANA time zone of that name. Raises ValueError where there is none."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("an IANA time zone is written like Europe/Berlin") from None
    return name


Zone = Annotated[str, AfterValidator(zone)]


def written(microseconds: int) -> str:
    """The shortest way to write a duration: the inverse of :func:`duration`."""
    if not microseconds:
        return "0d"
    for unit in ("w", "d", "h", "m", "s", "us"):
        if unit != "w" and microseconds % MICROSECONDS[unit] == 0:
            return f"{microseconds // MICROSECONDS[unit]}{unit}"
    return f"{microseconds}us"


def expanded(text: str) -> str:
    """Fill in ``${NAME:-default}``. A relative path in the environment is the caller's."""

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = os.environ.get(name)
        if found:
            return found if match.start() else str(address(found))
        if default is None:
            raise ValueError(f"the environment variable {name} is not set and has no default")
        return default

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)


def _absolute(text: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base", ".")
    try:
        return str(address(expanded(text), base=base))
    except UsageError as error:
        mend = f"; {error.mend}" if error.mend else ""
        raise ValueError(error.message + mend) from None


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Duration = Annotated[
    int,
    BeforeValidator(duration),
    PlainSerializer(written),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?(us|s|m|h|d|w|y)$"}),
]
Codes = Annotated[tuple[str, ...], BeforeValidator(_several)]
StudyPath = Annotated[str, AfterValidator(_absolute)]


class Model(BaseModel):
    """A frozen part of a study; unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class RuleModel(Model):
    """The options of a cleaning rule."""

    enabled: bool = Field(default=True, description="switch the rule off with false")


class IndexTime(Model):
    """When the prediction is made."""

    at: Codes = Field(description="the event that starts it; codes or patterns with *")
    which: Literal["first", "last", "every"] = Field(
        default="first", description="which of a patient's such events start a prediction"
    )
    plus: Duration = Field(default=0, description="this long after the event")


class Criterion(Model):
    """A patient must (or must not) have one of these codes before the index time."""

    name: str = Field(description="what the report calls it")
    codes: Codes = Field(description="codes or patterns with *; one of them is enough")
    within: Duration | None = Field(default=None, description="how far back; none: ever")


class Eligibility(Model):
    """Who is in the cohort."""

    age_at_least: float | None = Field(default=None, description="years at the index time")
    age_at_most: float | None = Field(default=None, description="years at the index time")
    require: tuple[Criterion, ...] = Field(default=(), description="what each patient must have")
    exclude: tuple[Criterion, ...] = Field(default=(), description="what no patient may have")


class Outcome(Model):
    """What is predicted, and until how long after the index time (or its time at risk's start)."""

    codes: Codes = Field(description="codes or patterns with *; one of them is enough")
    within: Duration = Field(description="until how long after the index time")
    value_above: float | None = Field(default=None, description="only values above this")
    value_below: float | None = Field(default=None, description="only values below this")


class TimeAtRisk(Model):
    """When an outcome counts: from index + starts to index + outcome.within."""

    starts: Duration = Field(default=0, description="how long after the index time it begins")
    start: Literal["exclusive", "inclusive"] = Field(
        default="exclusive", description="whether an outcome at its very beginning counts"
    )
    end: Literal["inclusive", "exclusive"] = Field(
        default="inclusive", description="whether an outcome at its very end counts"
    )
    follow_up: Literal["assumed", "required"] = Field(
        default="assumed",
        description="required: rows whose record ends before the time at risk does, without an"
        " outcome, are left out",
    )


class Cohort(Model):
    """Who, when, and what is predicted."""

    index: IndexTime
    eligibility: Eligibility = Eligibility()
    outcome: Outcome
    time_at_risk: TimeAtRisk = TimeAtRisk()
    washout: Duration | None = Field(
        default=None, description="no outcome in this span before the index time"
    )


class Split(Model):
    """Which patients train and which test. A patient is never in both."""

    by: Literal["random", "time"] = Field(
        default="random", description="patients at random, or by when their index time is"
    )
    train: float = Field(default=0.7, gt=0, description="train's weight against test's")
    test: float = Field(default=0.3, gt=0, description="test's weight against train's")
    cutoff: dt.datetime | None = Field(default=None, description="by time: the test starts here")
    folds: int = Field(
        default=3, ge=2, le=20, description="parts of the training patients, for tuning"
    )

    @model_validator(mode="after")
    def _cut(self) -> Split:
        if self.by == "time" and self.cutoff is None:
            raise ValueError("a split by time needs `cutoff`, a date")
        return self


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


class Deploy(Model):
    """What leaves with a score."""

    identifier: bool = Field(
        default=False, description="write the source's own patient identifier beside each score"
    )


class Study(Model):
    """A whole study, resolved."""

    name: str = Field(pattern=r"^[\w.-]+$", description="letters, digits, '.', '-' and '_'")
    title: str = Field(default="", description="the report's heading")
    description: str = Field(default="", description="the question in a sentence, for the report")
    seed: int = Field(default=0, description="of the split, the folds, the models, the bootstrap")
    sources: dict[str, SerializeAsAny[SourceModel]]
    clean: dict[str, SerializeAsAny[RuleModel]]
    cohort: Cohort
    features: dict[str, SerializeAsAny[Model]]
    split: Split = Split()
    models: dict[str, SerializeAsAny[Model]]
    evaluate: Evaluate = Evaluate()
    deploy: Deploy = Deploy()
    platform: dict[str, SerializeAsAny[Model]] = Field(
        default={}, description="where it runs: one platform with its options; changes no result"
    )
    storage: dict[str, dict[str, bool | int | str]] = Field(
        default={},
        description="how a storage is opened, by scheme; secrets only as env:NAME or file:PATH",
    )

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
