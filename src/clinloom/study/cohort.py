"""The cohort of a study: index time, eligibility, outcome, time at risk, washout, observation."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from clinloom.study.kinds import Codes, Duration, Model, duration, written
from clinloom.tables import DEATH


class IndexTime(Model):
    """When the prediction is made."""

    at: Codes = Field(description="the event that starts it; codes or patterns with *")
    which: Literal["first", "last", "every", "first_eligible", "last_eligible"] = Field(
        default="first",
        description="which of a patient's such events start a prediction; `first_eligible`: the"
        " first at which the patient is eligible, free of the outcome and alive",
    )
    plus: Duration = Field(default=0, description="this long after the event")


class Bounded(Model):
    """Bounds of a value; events without a value are outside any."""

    value_above: float | None = Field(default=None, description="only values above this")
    value_below: float | None = Field(default=None, description="only values below this")

    @model_validator(mode="after")
    def _some_value(self) -> Self:
        above, below = self.value_above, self.value_below
        if above is not None and below is not None and above >= below:
            raise ValueError(f"no value is above {above:g} and below {below:g}")
        return self


class Criterion(Bounded):
    """What a patient has before the index time: some of these codes, or criteria together."""

    name: str = Field(default="", description="what the report calls it")
    codes: Codes = Field(default=(), description="codes or patterns with *; one of them is enough")
    within: Duration | None = Field(default=None, description="how far back; none: ever")
    times: int = Field(default=1, ge=1, description="at least so many such events")
    all_of: tuple[Criterion, ...] = Field(default=(), description="criteria that all hold")
    any_of: tuple[Criterion, ...] = Field(default=(), description="criteria of which some hold")
    at_least: int = Field(default=1, ge=1, description="how many of `any_of` must hold")

    @property
    def asked(self) -> tuple[str, ...]:
        """Its codes, and those of the criteria within."""
        inner = (part.asked for part in (*self.all_of, *self.any_of))
        return (*self.codes, *(code for codes in inner for code in codes))

    @model_validator(mode="after")
    def _one_kind(self) -> Criterion:
        given = [n for n in ("codes", "all_of", "any_of") if getattr(self, n)]
        if len(given) != 1:
            raise ValueError("a criterion has one of `codes`, `all_of` and `any_of`")
        own = {"codes": {"within", "times", "value_above", "value_below"}, "any_of": {"at_least"}}
        for kind, keys in own.items():
            wrong = sorted(keys & self.model_fields_set) if kind != given[0] else []
            wrong = [k for k in wrong if getattr(self, k) != type(self).model_fields[k].default]
            if wrong:
                raise ValueError(f"`{wrong[0]}` goes with `{kind}`, not with `{given[0]}`")
        if self.any_of and self.at_least > len(self.any_of):
            raise ValueError(f"`at_least` is more than the {len(self.any_of)} of `any_of`")
        return self


class Eligibility(Model):
    """Who is in the cohort."""

    age_at_least: float | None = Field(default=None, description="years at the index time")
    age_at_most: float | None = Field(default=None, description="years at the index time")
    prior_observation: Duration | None = Field(
        default=None,
        description="how long before the index time the record must reach back; birth does not"
        " count",
    )
    require: tuple[Criterion, ...] = Field(default=(), description="what each patient must have")
    exclude: tuple[Criterion, ...] = Field(default=(), description="what no patient may have")

    @model_validator(mode="after")
    def _possible(self) -> Eligibility:
        least, most = self.age_at_least, self.age_at_most
        if least is not None and most is not None and least > most:
            raise ValueError(f"nobody is at least {least:g} and at most {most:g} years old")
        if not all(c.name for c in (*self.require, *self.exclude)):
            raise ValueError("each criterion needs a `name`, for the report")
        return self


class Outcome(Bounded):
    """What is predicted, and until how long after the index time."""

    codes: Codes = Field(description="codes or patterns with *; one of them is enough")
    within: Duration = Field(description="until how long after the index time")
    straddling: Literal["after", "before", "excluded"] = Field(
        default="after",
        description="what an outcome is that was known after the index time and may have happened"
        " before it, such as one of which only the day is told. `after`: an outcome, counted in the"
        " flow; `before`: one that was there before, counted likewise; `excluded`: the moment is"
        " left out. One that was known after the end of the time at risk is none within it, even"
        " where it may have happened within",
    )


class Competing(Model):
    """Events after which the outcome can no longer be seen; they end follow-up."""

    codes: Codes = Field(default=(DEATH,), description="codes or patterns with *")
    counts_as: Literal["negative", "excluded"] = Field(
        default="negative",
        description="what those are who had one in the time at risk and not the outcome;"
        " `negative`: free of the outcome, and counted in the flow",
    )


class TimeAtRisk(Model):
    """When an outcome counts: from index + starts to index + outcome.within."""

    starts: Duration = Field(default=0, description="how long after the index time it begins")
    start: Literal["exclusive", "inclusive"] = Field(
        default="exclusive", description="whether an outcome at its very beginning counts"
    )
    end: Literal["inclusive", "exclusive"] = Field(
        default="inclusive", description="whether an outcome at its very end counts"
    )
    competing: Competing = Competing()
    follow_up: Literal["data", "required", "assumed"] = Field(
        default="data",
        description="until when somebody without an outcome is known to be free of it. `data`:"
        " the end of the data; `required`: the patient's own last event up to there; `assumed`: for"
        " ever. Who is not known to be free to the end of the time at risk is left out",
    )


def _washout(given: Any) -> Any:
    if given is None:
        return "none"
    if given in ("ever", "none"):
        return given
    try:
        return duration(given)
    except ValueError as error:
        raise ValueError(f"`ever`, `none` or a duration: {error}") from None


Washout = Annotated[
    int | Literal["ever", "none"],
    BeforeValidator(_washout),
    PlainSerializer(lambda w: written(w) if isinstance(w, int) else w),
    WithJsonSchema({"type": "string", "pattern": r"^(ever|none|\d+(\.\d+)?(us|s|m|h|d|w|y))$"}),
]


class Observed(Model):
    """The events between which a patient is observed, such as an insurance's beginning and end."""

    starts: Codes = Field(description="codes or patterns with * of the beginning")
    ends: Codes = Field(description="codes or patterns with * of the end")


class Cohort(Model):
    """Who, when, and what is predicted."""

    index: IndexTime
    eligibility: Eligibility = Eligibility()
    outcome: Outcome
    time_at_risk: TimeAtRisk = TimeAtRisk()
    washout: Washout = Field(
        default="ever",
        description="who had the outcome in this span before the index time is left out; `ever`,"
        " or `none` where it may come again, as an admission does",
    )
    observed: Observed | None = Field(
        default=None,
        description="only moments in a period of observation, which also ends follow-up",
    )
    data_end: dt.datetime | None = Field(
        default=None, description="until when the data tell what happened; none: their last event"
    )

    @model_validator(mode="after")
    def _possible(self) -> Cohort:
        risk, within = self.time_at_risk, self.outcome.within
        instant = risk.starts == within and "exclusive" in (risk.start, risk.end)
        if risk.starts > within or instant:
            raise ValueError(
                f"the time at risk starts {written(risk.starts)} after the index time and is over"
                f" {written(within)} after it (`outcome.within`): no outcome fits"
            )
        return self

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code or pattern that finds the moments, who is eligible, and the outcome."""
        found = [*self.index.at, *self.outcome.codes, *self.time_at_risk.competing.codes]
        if self.observed is not None:
            found += [*self.observed.starts, *self.observed.ends]
        for criterion in (*self.eligibility.require, *self.eligibility.exclude):
            found += criterion.asked
        return tuple(found)
