"""A room's plug-ins are its files, and those that other packages offer by entry points.

An entry point ``NAME = "package.module"`` of the group ``clinloom.ROOM`` (``clinloom.sources``,
``clinloom.features`` …) names a module of the same shape as a file of the room.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from clinloom.errors import MissingDependency, UsageError, instead
from clinloom.study import Model, RuleModel, SourceModel

ROOMS = ("sources", "clean", "features", "models", "outputs", "platforms")
BASES: dict[str, type[Model]] = {"sources": SourceModel, "clean": RuleModel}
SAME = {"xgboost-cpu": "xgboost"}  # distributions that bring the same library


@cache
def choices(room: str) -> tuple[str, ...]:
    """The names of a room's plug-ins: its files that do not begin with an underscore, and others'.

    Raises UsageError where two packages offer the same name.
    """
    folder = Path(__file__).parent / room
    own = [module.name for module in pkgutil.iter_modules([str(folder)])]
    names = [n for n in own if not n.startswith("_")] + [p.name for p in offered(room)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{room} has two plug-ins called '{name}'",
                mend="uninstall one of the packages that offer it, or rename it",
            )
    return tuple(sorted(names))


def offered(room: str) -> list[metadata.EntryPoint]:
    """The plug-ins of a room that other packages offer."""
    return sorted(_offers().select(group=f"clinloom.{room}"), key=lambda p: p.name)


@cache
def _offers() -> Any:  # EntryPoints, before Python 3.12 with an older interface besides
    """What all installed packages offer: a file of each is read."""
    return metadata.entry_points()


@cache
def load(room: str, name: str) -> ModuleType:
    """The plug-in's module. Raises UsageError with the nearest name where there is none."""
    if name not in choices(room):
        raise UsageError(f"{room} has no '{name}'", mend=instead(name, choices(room)))
    for point in offered(room):
        if point.name == name:
            found = point.load()
            if not isinstance(found, ModuleType):
                raise UsageError(
                    f"the entry point '{name}' of clinloom.{room} is not a module",
                    mend="let it name the module itself, without an attribute",
                )
            return found
    return importlib.import_module(f"clinloom.{room}.{name}")


def options(room: str, name: str) -> type[Model]:
    """The plug-in's Options. Raises UsageError where they are not derived as the room asks."""
    found: type[Model] = load(room, name).Options
    base = BASES.get(room, Model)
    if not issubclass(found, base):
        raise UsageError(
            f"the Options of {room} '{name}' are no {base.__name__}",
            mend=f"derive them from clinloom.study.{base.__name__}",
        )
    return found


def needed(room: str, name: str) -> dict[str, str | None]:
    """The distributions that a plug-in's extra (``REQUIRES``) brings, with their versions, and
    those that it needs besides (``BESIDES``).

    None for one that is not installed.
    """
    module = load(room, name)
    extra = getattr(module, "REQUIRES", None)
    found: dict[str, str | None] = {}
    for distribution in (*(_of_extra(extra) if extra else ()), *getattr(module, "BESIDES", ())):
        found[distribution] = _version(distribution) or _version(SAME.get(distribution, ""))
    return found


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution) if distribution else None
    except metadata.PackageNotFoundError:
        return None


def check(room: str, name: str) -> None:
    """Raise MissingDependency where what the plug-in needs is not installed."""
    lacking = [d for d, version in needed(room, name).items() if version is None]
    if lacking:
        module = load(room, name)
        besides = "".join(f" {one}" for one in getattr(module, "BESIDES", ()))
        raise MissingDependency(
            f"{room} '{name}' needs {', '.join(lacking)}",
            mend=f"pip install 'clinloom[{module.REQUIRES}]'{besides}",
        )


@cache
def stamp(room: str, name: str) -> str:
    """What a plug-in's results depend on: its code, and the versions of what it needs.

    Its code is its own file and, of one of this package, what its room's plug-ins share.
    """
    module = load(room, name)
    files = [Path(module.__file__)] if module.__file__ else []
    if module.__name__ == f"{__package__}.{room}.{name}":
        files += _shared(files[0].parent)
    code = b"".join(file.read_bytes() for file in files)
    parts = [f"{d}=={v}" for d, v in sorted(needed(room, name).items())]
    return hashlib.sha256(code + "\n".join(parts).encode()).hexdigest()


def _shared(room: Path) -> list[Path]:
    """The files of a room that are no plug-ins: those whose own or folder's name begins with _."""
    files = sorted(room.rglob("*.py"))
    return [f for f in files if any(p.startswith("_") for p in f.relative_to(room).parts)]


def _of_extra(extra: str) -> Iterator[str]:
    try:
        lines = metadata.requires("clinloom") or []
    except metadata.PackageNotFoundError:  # a source tree that was not installed
        return
    for line in lines:
        requirement, _, marker = line.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", marker):
            found = re.match(r"[A-Za-z0-9._-]+", requirement)
            if found:
                yield found[0]
