"""Reading a study file: every fault at once, with its key, its line and the nearest valid name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from clinloom import files
from clinloom.errors import StudyError, UsageError, nearest
from clinloom.study.overrides import override
from clinloom.study.schema import Model, Study

Rooms = Mapping[str, Callable[[str], type[Model]]]
ROOMS = ("sources", "clean", "features", "models")


def read(path: str | os.PathLike[str], *, rooms: Any, overrides: Sequence[str] = ()) -> Study:
    """Read a study file. ``rooms`` answers ``choices(room)`` and ``options(room, name)``.

    ``overrides`` are ``key.path=value`` strings; their relative paths are the caller's.
    Raises StudyError with all faults.
    """
    file = files.address(path)
    try:
        text = files.read(file).decode()
    except (FileNotFoundError, IsADirectoryError):
        mend = "give the path or address of a .yaml file"
        raise UsageError(f"there is no study file '{path}'", mend=mend) from None
    except UnicodeDecodeError:
        raise StudyError("the study is not a text in UTF-8", where=str(path)) from None
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
    base: str | os.PathLike[str] = ".",
    overrides: Sequence[str] = (),
    where: str = "study",
    lines: Mapping[tuple, int] | None = None,
) -> Study:
    """A Study from plain data, as :func:`read` gives it from a file."""
    document = json.loads(json.dumps(document, default=str))
    for change in overrides:
        override(document, change)
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
