"""Reading a study file: every fault at once, with its key, its line and the nearest valid name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import yaml
from pydantic import BaseModel, ValidationError

from clinloom import files
from clinloom.errors import StudyError, UsageError, instead
from clinloom.study.kinds import Model
from clinloom.study.overrides import override
from clinloom.study.schema import SITE, Study

Key = tuple[str | int, ...]  # where in the file, from its top
Faults = list[tuple[Key, str]]
ROOMS = ("sources", "clean", "features", "models")


class Rooms(Protocol):
    """Who knows the plug-ins that a study may name (``clinloom.plugins``)."""

    def choices(self, room: str) -> tuple[str, ...]:
        """The names of a room's plug-ins."""

    def options(self, room: str, name: str) -> type[Model]:
        """A plug-in's Options."""


def read(path: str | os.PathLike[str], *, rooms: Rooms, overrides: Sequence[str] = ()) -> Study:
    """Read a study file. ``rooms`` answers ``choices(room)`` and ``options(room, name)``.

    ``overrides`` are ``key.path=value`` strings; their relative paths are the caller's.
    Raises StudyError with all faults.
    """
    document, lines, file = _document(path, "study")
    return parse(
        document, rooms=rooms, base=file.parent, overrides=overrides, where=str(path), lines=lines
    )


def _document(
    path: str | os.PathLike[str], what: str
) -> tuple[dict[str, Any], dict[Key, int], files.Address]:
    """A YAML file's mapping, the line of each key, and the file's address."""
    file = files.address(path)
    try:
        text = files.read(file).decode()
    except (FileNotFoundError, IsADirectoryError):
        mend = "give the path or address of a .yaml file"
        raise UsageError(
            f"there is no {'study file' if what == 'study' else what} '{path}'", mend=mend
        ) from None
    except UnicodeDecodeError:
        raise StudyError(f"the {what} is not a text in UTF-8", where=str(path)) from None
    try:
        document = yaml.safe_load(text)
        lines = _lines(yaml.compose(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise StudyError(
            f"the {what} is not valid YAML", faults=[line + problem], where=str(path)
        ) from None
    if not isinstance(document, dict):
        keys = "`sources`" if what == "study" else "`platform`"
        raise StudyError(f"a {what} is a mapping with keys such as {keys}", where=str(path))
    return document, lines, file


def parse(
    document: Mapping[str, Any],
    *,
    rooms: Rooms,
    base: str | os.PathLike[str] = ".",
    overrides: Sequence[str] = (),
    where: str = "study",
    lines: Mapping[Key, int] | None = None,
) -> Study:
    """A Study from plain data, as :func:`read` gives it from a file."""
    changed: dict[str, Any] = json.loads(json.dumps(document, default=str))
    for change in overrides:
        override(changed, change)
    faults: Faults = []
    context = {"base": str(base)}
    parts: dict[str, dict[str, Any]] = {}
    for room in ROOMS:
        parts[room] = _room(room, changed.get(room), rooms, context, faults)
    parts |= _site(changed, rooms, context, faults, one=True)
    try:
        kept = {k: v for k, v in changed.items() if k not in (*ROOMS, *SITE)}
        study = Study.model_validate({**kept, **parts}, context=context)
    except ValidationError as error:
        faults += _faults(error, (), Study)
    else:
        faults += _unaudited(study, rooms)
    _refuse(faults, "study", where, lines or {})
    return study


def _unaudited(study: Study, rooms: Rooms) -> Faults:
    """Exceptions to checks that there are none of."""
    return [
        (("audit", "allow", at, "check"), f"'{one.check}' is no check; {instead(one.check, known)}")
        for at, one in enumerate(study.audit.allow)
        if one.check not in (known := rooms.choices("audit"))
    ]


def told(model: type[Model], options: Sequence[str], *, where: str) -> Model:
    """Options of a model as ``NAME=VALUE``, each once. Raises UsageError with every fault."""
    named: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name in named:
            fault = "is told twice" if equals else "is no NAME=VALUE"
            raise UsageError(f"'{name}' {fault}", where=where)
        named[name] = value
    try:
        return model.model_validate(named)
    except ValidationError as error:
        faults = [_line(key, text, {}) for key, text in _faults(error, (), model)]
        raise UsageError("\n  ".join(faults), where=where) from None


def _refuse(
    faults: Sequence[tuple[Key, str]], what: str, where: str, lines: Mapping[Key, int]
) -> None:
    if faults:
        listed = [_line(key, text, lines) for key, text in faults]
        count = f"{len(listed)} faults" if len(listed) > 1 else "a fault"
        raise StudyError(f"the {what} has {count}:", faults=listed, where=where)


def site(path: str | os.PathLike[str], *, rooms: Rooms) -> tuple[dict[str, Model], dict[str, Any]]:
    """The platforms and storages of a file of their own, with a study's keys for them.

    Raises UsageError where there is no file, StudyError with every fault.
    """
    document, lines, file = _document(path, "platform file")
    faults: Faults = [
        ((key,), "a platform file holds `platform` and `storage`")
        for key in document
        if key not in SITE
    ]
    found = _site(document, rooms, {"base": str(file.parent)}, faults, one=False)
    _refuse(faults, "platform file", str(path), lines)
    return found["platform"], found["storage"]


def _site(
    document: Mapping[str, Any], rooms: Rooms, context: dict[str, str], faults: Faults, *, one: bool
) -> dict[str, dict[str, Any]]:
    """Where a study runs, and how its storages are opened."""
    given = document.get("platform") or {}
    before = len(faults)
    platform = _room("platforms", given, rooms, context, faults, key="platform")
    if one and len(given) > 1 and len(faults) == before:
        faults.append((("platform",), f"is one of {', '.join(map(str, given))}, not several"))
    storage = document.get("storage") or {}
    if not isinstance(storage, dict):
        faults.append((("storage",), "is a mapping from schemes to options"))
        return {"platform": platform, "storage": {}}
    for scheme, options in storage.items():
        if not isinstance(options, dict):
            faults.append((("storage", scheme), "is a mapping of options"))
            continue
        for name, value in options.items() or [(None, None)]:
            one_option: dict[str, Any] = {name: value} if name is not None else {}
            try:
                files.checked({scheme: one_option})
            except UsageError as error:
                key = (error.where or f"storage.{scheme}").split(".", 2)
                text = f"{error.message}; {error.mend}" if error.mend else error.message
                if (tuple(key), text) not in faults:
                    faults.append((tuple(key), text))
    return {"platform": platform, "storage": storage}


def _room(
    room: str,
    given: Any,
    rooms: Rooms,
    context: dict[str, str],
    faults: Faults,
    *,
    key: str | None = None,
) -> dict[str, Model]:
    """The options of every plug-in that the study names in ``room``, under the key of its name."""
    at = key or room
    if given is None:
        if room in ("sources", "features", "models"):
            faults.append(((at,), "is required"))
            return {}
        given = {}
    if isinstance(given, list):
        given = dict.fromkeys(given)
    if not isinstance(given, dict):
        faults.append(((at,), "is a mapping from names to options"))
        return {}
    if room == "clean":  # every cleaning rule runs unless it is switched off
        given = {**dict.fromkeys(rooms.choices("clean")), **given}
    out: dict[str, Model] = {}
    for name, raw in given.items():
        raw = {} if raw is None else raw
        place: Key = (at, name)
        if not isinstance(raw, dict):
            faults.append((place, "is a mapping of options"))
            continue
        kind = raw.get("type") if room == "sources" else name
        if kind is None:
            faults.append((place, f"needs `type`: one of {', '.join(rooms.choices(room))}"))
            continue
        if kind not in rooms.choices(room):
            mend = instead(str(kind), rooms.choices(room))
            faults.append((place, f"'{kind}' is none of the {at}; {mend}"))
            continue
        try:
            out[name] = rooms.options(room, kind).model_validate(raw, context=context)
        except ValidationError as error:
            faults += _faults(error, place, rooms.options(room, kind))
    return out


def _faults(error: ValidationError, prefix: Key, model: type[BaseModel]) -> Faults:
    out = []
    for fault in error.errors(include_url=False, include_input=False):
        key = tuple(fault["loc"])
        text = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            choices = _keys(model, key[:-1])
            text = f"unknown key; {instead(str(key[-1]), sorted(choices), lead='valid:')}"
        elif fault["type"] == "missing":
            text = "is required"
        elif fault["type"] == "string_pattern_mismatch":
            text = _form(model, key)
        out.append((prefix + key, text))
    return out


def _form(model: type[BaseModel], key: Key) -> str:
    """How the text at ``key`` is written, in words: a pattern is none."""
    *above, last = [step for step in key if isinstance(step, str)]
    inner = _inside(model, tuple(above))
    field = inner.model_fields.get(last) if inner else None
    example = f"like {field.examples[0]}" if field and field.examples else "otherwise"
    meaning = f": {field.description}" if field and field.description else ""
    return f"is written {example}{meaning}"


def _keys(model: type[BaseModel], path: Key) -> list[str]:
    """The valid keys at ``path`` of ``model``, as far as the types tell."""
    inner = _inside(model, path)
    return list(inner.model_fields) if inner else []


def _inside(model: Any, path: Key) -> type[BaseModel] | None:
    """The model at ``path`` of ``model``, as far as the types tell."""
    for step in path:
        if isinstance(step, int) or not _is_model(model):
            continue
        field = model.model_fields.get(step)
        model = next((t for t in _types(field.annotation) if _is_model(t)), None) if field else None
    return model if _is_model(model) else None


def _is_model(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, BaseModel)


def _types(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(t for arg in inner for t in _types(arg))]


def _line(key: Key, text: str, lines: Mapping[Key, int]) -> str:
    at = next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), None)
    return f"{'line ' + str(at) + ', ' if at else ''}{'.'.join(map(str, key))}: {text}"


def _lines(node: Any, key: Key = ()) -> dict[Key, int]:
    """The line of every key of a YAML document."""
    out: dict[Key, int] = {}
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            out[(*key, name.value)] = name.start_mark.line + 1
            out |= _lines(value, (*key, name.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            out[(*key, number)] = value.start_mark.line + 1
            out |= _lines(value, (*key, number))
    return out


def schema(rooms: Rooms) -> dict[str, Any]:
    """A JSON Schema of the study file, for editors."""
    out = Study.model_json_schema()
    out["required"] = [name for name in out["required"] if name != "clean"]
    for room in (*ROOMS, "platforms"):
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
        if room == "platforms":
            out["properties"]["platform"] |= {
                "properties": keys,
                "additionalProperties": False,
                "maxProperties": 1,
            }
            continue
        named = {"type": "object", "properties": keys, "additionalProperties": False}
        listed = {"type": "array", "items": {"enum": list(options)}}
        out["properties"][room] = {"anyOf": [named, listed]}
    out["$defs"]["Allowed"]["properties"]["check"]["enum"] = list(rooms.choices("audit"))
    out["properties"]["storage"] |= {"properties": _storages(), "additionalProperties": False}
    return out


def _storages() -> dict[str, Any]:
    """The options of each storage, as a JSON Schema."""
    value = {"anyOf": [{"type": kind} for kind in ("string", "integer", "boolean")]}
    return {
        scheme: {
            "type": "object",
            "title": f"storage of {scheme}",
            "description": (driver.__doc__ or "").strip().split("\n")[0],
            "properties": {n: {**value, "description": d} for n, d in driver.OPTIONS.items()},
        }
        for name, driver in files.storages().items()
        for scheme in driver.SCHEMES
    }
