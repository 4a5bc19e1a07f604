"""Every key of a JSON Schema as a line that a person can read: its type, default and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from clinloom.study import written

Node = Mapping[str, Any]
DURATION = "us|s|m|h|d|w|y"  # in the pattern of every key that takes a duration
MANY = ("duration", "number", "text", "whole number")
PLAIN = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "none"}


@dataclass(frozen=True)
class Key:
    """A key, from the top of what is described: ``outcome.within``, ``events[].code``."""

    path: str
    type: str
    default: str
    meaning: str


def keys(
    node: Node, defs: Node, *, prefix: str = "", within: tuple[str, ...] = ()
) -> Iterator[Key]:
    """Every key of an object, those of its parts after it, in the order they are declared.

    ``within`` names the definitions that are being told already: one that holds itself ends there.
    """
    required = node.get("required", ())
    for name, raw in node.get("properties", {}).items():
        told = _resolved(raw, defs)
        meaning = raw.get("description") or told.get("description", "")
        kind = spoken(raw, defs) + "".join(f", like `{one}`" for one in raw.get("examples", ()))
        yield Key(prefix + name, kind, _default(raw, name in required, kind), meaning)
        for suffix, part in _parts(raw, defs):
            title = part.get("title", "")
            if title not in within:
                inner = f"{prefix}{name}{suffix}."
                yield from keys(part, defs, prefix=inner, within=(*within, title))


def table(found: Sequence[Key]) -> str:
    """The keys as a Markdown table."""
    rows = [(f"`{k.path}`", k.type, k.default, _cell(k.meaning)) for k in found]
    return pipes(("key", "type", "default", "meaning"), rows)


def pipes(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    body = "\n".join(f"| {' | '.join(line)} |" for line in escaped)
    return f":::{{table}}\n:class: keys\n\n{body}\n:::\n"


def spoken(raw: Node, defs: Node) -> str:
    """The type in words: ``duration``, ``list of text``, ``whole number, 2 to 20``."""
    if "anyOf" in raw:
        kinds = [spoken(choice, defs) for choice in raw["anyOf"]]
        return " or ".join(dict.fromkeys(kinds))
    node = _resolved(raw, defs)
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    kind = node.get("type", "anything")
    if kind == "array":
        if "prefixItems" in node:
            return "[" + ", ".join(spoken(item, defs) for item in node["prefixItems"]) + "]"
        each = spoken(node.get("items", {}), defs)
        return f"list of {each}s" if each in MANY else f"list of {each}"
    if kind == "object":
        each = node.get("additionalProperties")
        return f"{spoken(each, defs)} by name" if isinstance(each, Mapping) else "keys below"
    if kind == "string" and DURATION in node.get("pattern", ""):
        return "duration or `all`" if "all" in node["pattern"] else "duration"
    if kind == "string" and node.get("format") == "date-time":
        return "date and time"
    return PLAIN.get(kind, kind) + _bounds(node)


def _bounds(node: Node) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f", {low} to {high}"
    words = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "above",
        "exclusiveMaximum": "below",
    }
    return "".join(f", {word} {node[name]}" for name, word in words.items() if name in node)


def _resolved(raw: Node, defs: Node) -> Node:
    """``raw`` with what it refers to; of a choice that may be left out, the choice."""
    if "$ref" in raw:
        return {**defs[raw["$ref"].rsplit("/", 1)[1]], **{k: raw[k] for k in raw if k != "$ref"}}
    if "anyOf" in raw:
        choices = [choice for choice in raw["anyOf"] if choice.get("type") != "null"]
        if len(choices) == 1:
            return _resolved(choices[0], defs)
    return raw


def _parts(raw: Node, defs: Node) -> Iterator[tuple[str, Node]]:
    """The objects with keys of their own inside a value, with what stands after the key's name."""
    node = _resolved(raw, defs)
    if node.get("properties"):
        yield "", node
    for choice in node.get("anyOf", ()):
        yield from _parts(choice, defs)
    for inside, suffix in (("items", "[]"), ("additionalProperties", ".NAME")):
        if isinstance(node.get(inside), Mapping):
            yield from ((suffix + more, part) for more, part in _parts(node[inside], defs))


def _default(raw: Node, required: bool, kind: str) -> str:
    if required or "default" not in raw:
        return "**required**" if required else ""
    value = raw["default"]
    if kind.startswith("duration") and isinstance(value, int):
        value = written(value)  # in the schema it stands as the study holds it, in microseconds
    if isinstance(value, Mapping) and value:
        return "its own"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n")
    return {"null": "none", "''": "empty"}.get(text.strip(), f"`{text.strip()}`")


def _cell(meaning: str) -> str:
    return " ".join(meaning.replace("*", "\\*").split())
