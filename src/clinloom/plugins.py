"""A room's plug-ins are its files. This lists them and loads one by its exact name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

from clinloom.errors import UsageError, nearest
from clinloom.study import Model

ROOMS = ("sources", "clean", "features", "models")


@cache
def choices(room: str) -> tuple[str, ...]:
    """The names of a room's plug-ins: its files that do not begin with an underscore."""
    folder = Path(__file__).parent / room
    names = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(sorted(n for n in names if not n.startswith("_")))


@cache
def load(room: str, name: str) -> ModuleType:
    """The plug-in's module. Raises UsageError with the nearest name where there is none."""
    if name not in choices(room):
        near = nearest(name, choices(room))
        raise UsageError(
            f"{room} has no '{name}'",
            mend=f"did you mean '{near}'?" if near else f"choose from {', '.join(choices(room))}",
        )
    return importlib.import_module(f"clinloom.{room}.{name}")


def options(room: str, name: str) -> type[Model]:
    """The plug-in's Options."""
    return load(room, name).Options
