"""What a module offers, from its docstrings: signatures and Markdown."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any

EXAMPLE = re.compile(r"(?:^>>>.*\n?(?:^(?!>>>|\s*$).*\n?)*)+", re.MULTILINE)


def prose(thing: Any) -> str:
    """A docstring as Markdown: roles are code, examples are blocks, ``<`` is a character."""
    text = inspect.getdoc(thing) or ""
    text = re.sub(r":[a-z]+:`~?\.?([^`]+)`", r"``\1``", text)
    text = re.sub(r"\s*# doctest:.*", "", text)
    text = EXAMPLE.sub(lambda found: f"```python\n{found[0].rstrip()}\n```\n", text)
    pieces = re.split(r"(```.*?```|``.*?``|`.*?`)", text, flags=re.DOTALL)
    return "".join(p if p.startswith("`") else p.replace("<", "\\<") for p in pieces)


def public(module: ModuleType, kind: type | tuple[type, ...]) -> Iterator[tuple[str, Any]]:
    """What a module itself defines and tells about, in the order it is written."""
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == module.__name__
        if own and isinstance(thing, kind) and not name.startswith("_") and thing.__doc__:
            yield name, thing


def page(title: str, modules: tuple[str, ...], lead: str) -> str:
    """A page of modules: each with its classes and functions."""
    parts = [f"# {title}\n\n{lead}\n"]
    for name in modules:
        module = importlib.import_module(name)
        parts.append(f"## {name}\n\n{prose(module)}\n")
        for called, thing in public(module, (type, FunctionType)):
            told = _class if isinstance(thing, type) else _function
            parts.append(told(thing, f"{name}.{called}"))
    return "\n".join(parts)


def _function(function: Callable[..., Any], name: str) -> str:
    return f":::{{py:function}} {name}{_signature(function)}\n{prose(function)}\n:::\n"


def _class(cls: type, name: str) -> str:
    inside = [prose(cls)]
    for called, thing in vars(cls).items():
        if called.startswith("_"):
            continue
        plain = getattr(thing, "__func__", thing)
        if isinstance(thing, property) or type(thing).__name__ == "cached_property":
            inside.append(f":::{{py:property}} {called}\n{prose(thing)}\n:::")
        elif isinstance(plain, FunctionType) and plain.__doc__:
            option = ":classmethod:\n" if isinstance(thing, classmethod) else ""
            option = ":staticmethod:\n" if isinstance(thing, staticmethod) else option
            shown = f"{called}{_signature(getattr(cls, called))}"
            inside.append(f":::{{py:method}} {shown}\n{option}{prose(plain)}\n:::")
    body = "\n\n".join(inside)
    kind = "exception" if issubclass(cls, BaseException) else "class"
    return f"::::{{py:{kind}}} {name}{_signature(cls)}\n{body}\n::::\n"


def _signature(thing: Any) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    without = [p for p in signature.parameters.values() if p.name != "self"]
    # Default values that are objects have no spelling in Python; their place is enough.
    text = str(signature.replace(parameters=without))
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations are kept as they are written
    return re.sub(r"<[^<>]*>", "...", text).replace("\n", " ")
