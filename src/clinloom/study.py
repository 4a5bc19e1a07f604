"""The study file: what a clinician wrote, checked whole, and resolved into a frozen Study.

Every fault is reported at once with its key, its line and the nearest valid name. What resolved
(defaults, absolute paths, seed) is a value of its own and is stored with every result.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from clinloom.errors import StudyError, UsageError, nearest

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


def written(microseconds: int) -> str:
    """The shortest way to write a duration: the inverse of :func:`duration`."""
    if not microseconds:
        return "0d"
    for unit in ("w", "d", "h", "m", "s", "us"):
        if unit != "w" and microseconds % MICROSECONDS[unit] == 0:
            return f"{microseconds // MICROSECONDS[unit]}{unit}"
    return f"{microseconds}us"


def _expand(text: str) -> str:
    """Fill in ``${NAME:-default}``. A relative path in the environment is the caller's."""

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = os.environ.get(name)
        if found:
            return found if match.start() else str(Path(found).expanduser().absolute())
        if default is None:
            raise ValueError(f"the environment variable {name} is not set and has no default")
        return default

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)


def _absolute(text: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base", ".")
    return str((Path(base) / Path(_expand(text)).expanduser()).resolve())


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


class IndexTime(Model):
    """When the prediction is made."""

    at: Codes = Field(description="the event that starts it; codes or patterns with *")
    which: Literal["first", "last", "every"] = "first"
    plus: Duration = Field(default=0, description="this long after the event")


class Criterion(Model):
    """A patient must (or must not) have one of these codes before the index time."""

    name: str
    codes: Codes
    within: Duration | None = Field(default=None, description="how far back; none: ever")


class Eligibility(Model):
    """Who is in the cohort."""

    age_at_least: float | None = None
    age_at_most: float | None = None
    require: tuple[Criterion, ...] = ()
    exclude: tuple[Criterion, ...] = ()


class Outcome(Model):
    """What is predicted, and until how long after the index time (or its time at risk's start)."""

    codes: Codes
    within: Duration
    value_above: float | None = None
    value_below: float | None = None


class TimeAtRisk(Model):
    """When an outcome counts: from index + starts to index + outcome.within."""

    starts: Duration = 0
    start: Literal["exclusive", "inclusive"] = "exclusive"
    end: Literal["inclusive", "exclusive"] = "inclusive"
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

    by: Literal["random", "time"] = "random"
    train: float = Field(default=0.7, gt=0)
    test: float = Field(default=0.3, gt=0)
    cutoff: dt.datetime | None = Field(default=None, description="by time: the test starts here")
    folds: int = Field(default=3, ge=2, le=20)

    @model_validator(mode="after")
    def _cut(self) -> Split:
        if self.by == "time" and self.cutoff is None:
            raise ValueError("a split by time needs `cutoff`, a date")
        return self


class Evaluate(Model):
    """How the models are judged on the test rows."""

    bootstrap: int = Field(default=500, ge=20, le=10_000)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    threshold: Literal["f1", "youden"] = "f1"
    modalities: bool = Field(default=True, description="also records only and images only")


class Deploy(Model):
    """What leaves with a score."""

    identifier: bool = Field(
        default=False, description="write the source's own patient identifier beside each score"
    )


class Study(Model):
    """A whole study, resolved."""

    name: str = Field(pattern=r"^[\w.-]+$")
    title: str = ""
    description: str = ""
    seed: int = 0
    sources: dict[str, SerializeAsAny[Model]]
    clean: dict[str, SerializeAsAny[Model]]
    cohort: Cohort
    features: dict[str, SerializeAsAny[Model]]
    split: Split = Split()
    models: dict[str, SerializeAsAny[Model]]
    evaluate: Evaluate = Evaluate()
    deploy: Deploy = Deploy()

    def resolved(self) -> dict[str, Any]:
        """The study as plain data, as it is stored; reading it again gives the same study."""
        return self.model_dump(mode="json")

    @property
    def hash(self) -> str:
        """A hash of everything in the study but the places of its files."""
        return digest(without_places(self.resolved()))


PLACES = ("path", "manifest")


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


Rooms = Mapping[str, Callable[[str], type[Model]]]
ROOMS = ("sources", "clean", "features", "models")


def read(path: str | Path, *, rooms: Any, overrides: Sequence[str] = ()) -> Study:
    """Read a study file. ``rooms`` answers ``choices(room)`` and ``options(room, name)``.

    ``overrides`` are ``key.path=value`` strings; their relative paths are the caller's.
    Raises StudyError with all faults.
    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"there is no study file '{path}'", mend="give the path of a .yaml file")
    text = file.read_text(encoding="utf-8")
    try:
        document = yaml.safe_load(text)
        lines = _lines(yaml.compose(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise StudyError(
            "the study is not valid YAML", faults=[line + problem], where=str(path)
        ) from None
    if not isinstance(document, dict):
        raise StudyError("a study is a mapping with keys such as `sources`", where=str(path))
    return parse(
        document, rooms=rooms, base=file.parent, overrides=overrides, where=str(path), lines=lines
    )


def parse(
    document: Mapping[str, Any],
    *,
    rooms: Any,
    base: str | Path = ".",
    overrides: Sequence[str] = (),
    where: str = "study",
    lines: Mapping[tuple, int] | None = None,
) -> Study:
    """A Study from plain data, as :func:`read` gives it from a file."""
    document = json.loads(json.dumps(document, default=str))
    for override in overrides:
        _override(document, override)
    faults: list[tuple[tuple, str]] = []
    context = {"base": str(base)}
    parts: dict[str, dict[str, Model]] = {}
    for room in ROOMS:
        parts[room] = _room(room, document.get(room), rooms, context, faults)
    try:
        kept = {k: v for k, v in document.items() if k not in ROOMS}
        study = Study.model_validate({**kept, **parts}, context=context)
    except ValidationError as error:
        faults += _faults(error, (), Study)
    if faults:
        listed = [_line(key, text, lines or {}) for key, text in faults]
        count = f"{len(listed)} faults" if len(listed) > 1 else "a fault"
        raise StudyError(f"the study has {count}:", faults=listed, where=where)
    return study


def _room(room: str, given: Any, rooms: Any, context: dict, faults: list) -> dict[str, Model]:
    """The options of every plug-in that the study names in ``room``."""
    if given is None:
        if room in ("sources", "features", "models"):
            faults.append(((room,), "is required"))
            return {}
        given = {}
    if isinstance(given, list):
        given = dict.fromkeys(given)
    if not isinstance(given, dict):
        faults.append(((room,), "is a mapping from names to options"))
        return {}
    if room == "clean":  # every cleaning rule runs unless it is switched off
        given = {**dict.fromkeys(rooms.choices("clean")), **given}
    out: dict[str, Model] = {}
    for name, raw in given.items():
        raw = {} if raw is None else raw
        key: tuple = (room, name)
        if not isinstance(raw, dict):
            faults.append((key, "is a mapping of options"))
            continue
        kind = raw.get("type") if room == "sources" else name
        if kind is None:
            faults.append((key, f"needs `type`: one of {', '.join(rooms.choices(room))}"))
            continue
        if kind not in rooms.choices(room):
            near = nearest(kind, rooms.choices(room))
            hint = f"; did you mean '{near}'?" if near else ""
            faults.append((key, f"'{kind}' is none of {', '.join(rooms.choices(room))}{hint}"))
            continue
        try:
            out[name] = rooms.options(room, kind).model_validate(raw, context=context)
        except ValidationError as error:
            faults += _faults(error, key, rooms.options(room, kind))
    return out


def _faults(error: ValidationError, prefix: tuple, model: type[BaseModel]) -> list[tuple]:
    out = []
    for fault in error.errors(include_url=False, include_input=False):
        key = tuple(fault["loc"])
        text = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            choices = _keys(model, key[:-1])
            near = nearest(str(key[-1]), choices)
            hint = f"did you mean '{near}'?" if near else f"valid: {', '.join(sorted(choices))}"
            text = f"unknown key; {hint}"
        elif fault["type"] == "missing":
            text = "is required"
        out.append((prefix + key, text))
    return out


def _keys(model: Any, path: tuple) -> list[str]:
    """The valid keys at ``path`` of ``model``, as far as the types tell."""
    for step in path:
        if isinstance(step, int) or not _is_model(model):
            continue
        field = model.model_fields.get(step)
        model = next((t for t in _types(field.annotation) if _is_model(t)), None) if field else None
    return list(model.model_fields) if _is_model(model) else []


def _is_model(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, BaseModel)


def _types(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(t for arg in inner for t in _types(arg))]


def _line(key: tuple, text: str, lines: Mapping[tuple, int]) -> str:
    at = next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), None)
    return f"{'line ' + str(at) + ', ' if at else ''}{'.'.join(map(str, key))}: {text}"


def _lines(node: Any, key: tuple = ()) -> dict[tuple, int]:
    """The line of every key of a YAML document."""
    out: dict[tuple, int] = {}
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            out[(*key, name.value)] = name.start_mark.line + 1
            out |= _lines(value, (*key, name.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            out[(*key, number)] = value.start_mark.line + 1
            out |= _lines(value, (*key, number))
    return out


def _override(document: dict, override: str) -> None:
    """Set ``a.b.c=value`` in the document; the value is read as YAML."""
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise UsageError(
            f"--set needs KEY=VALUE, not '{key}'", mend="as in --set cohort.outcome.within=60d"
        )
    value = yaml.safe_load(text) if text else None
    if steps[-1] in PLACES and isinstance(value, str):
        value = str(Path(_expand(value)).expanduser().absolute())
    for step in steps[:-1]:
        inner = document.get(step)
        if not isinstance(inner, dict):
            inner = document[step] = {}
        document = inner
    document[steps[-1]] = value


def schema(rooms: Any) -> dict[str, Any]:
    """A JSON Schema of the study file, for editors."""
    out = Study.model_json_schema()
    out["required"] = [name for name in out["required"] if name != "clean"]
    for room in ROOMS:
        options = {}
        for name in rooms.choices(room):
            text = json.dumps(rooms.options(room, name).model_json_schema())
            options[name] = json.loads(text.replace("#/$defs/", f"#/$defs/{room}.{name}."))
            parts = options[name].pop("$defs", {})
            out["$defs"] |= {f"{room}.{name}.{part}": found for part, found in parts.items()}
        if room == "sources":
            choice = {"anyOf": list(options.values())}
            out["properties"][room] = {"type": "object", "additionalProperties": choice}
            continue
        keys = {name: {"anyOf": [found, {"type": "null"}]} for name, found in options.items()}
        named = {"type": "object", "properties": keys, "additionalProperties": False}
        listed = {"type": "array", "items": {"enum": list(options)}}
        out["properties"][room] = {"anyOf": [named, listed]}
    return out
