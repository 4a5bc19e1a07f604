"""Storage options by scheme: secrets are references, resolved only where a store is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from clinloom.errors import UsageError, instead
from clinloom.files import registry

Options = dict[str, str | int | bool]
_held: dict[str, Options] = {}
_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:/.+)")


def use(options: Mapping[str, Mapping[str, str | int | bool]]) -> None:
    """Open stores with these options from now on, in this process; they replace all before.

    ``options`` maps a scheme to its options, such as ``{"s3": {"endpoint_url": "https://…",
    "key": "env:NAME", "secret": "file:/run/secrets/x"}}``. A secret must be a reference, ``env:``
    or ``file:``; any other option may be one. Without options each cloud's own chain of
    credentials holds. Raises UsageError for an unknown scheme or option and for a secret in clear.
    """
    made = checked(options)
    _held.clear()
    _held.update(made)


def checked(options: Mapping[str, Mapping[str, str | int | bool]]) -> dict[str, Options]:
    """The options by the first name of their storage. Raises UsageError as :func:`use` does."""
    made: dict[str, Options] = {}
    for scheme, given in options.items():
        driver = registry.driver(scheme)
        for name, value in given.items():
            _check(scheme, name, value, driver)
        made.setdefault(driver.SCHEMES[0], {}).update(given)
    return made


def storages() -> dict[str, registry.Driver]:
    """Every storage that has options, by its first name."""
    names = dict.fromkeys(registry.names().values())
    found = {name: registry.driver(name) for name in names}
    return {name: d for name, d in found.items() if name == d.SCHEMES[0] and d.OPTIONS}


def settings() -> dict[str, Options]:
    """The options as they were given, references unresolved: safe to pickle to workers."""
    return {scheme: dict(given) for scheme, given in _held.items()}


def given(driver: registry.Driver) -> Options:
    """A driver's options as they were given."""
    return _held.get(driver.SCHEMES[0], {})


def _check(scheme: str, name: str, value: object, driver: registry.Driver) -> None:
    where = f"storage.{scheme}.{name}"
    if name not in driver.OPTIONS and not driver.takes(name):
        raise UsageError(
            "there is no such option",
            where=where,
            mend=instead(name, driver.OPTIONS, lead="it takes"),
        )
    if not isinstance(value, (str, int, bool)):
        raise UsageError("an option is a text, a number or true or false", where=where)
    if driver.secret(name) and not _REFERENCE.fullmatch(str(value)):
        raise UsageError(
            "a secret is named, never written",
            where=where,
            mend="write env:NAME of a variable or file:/PATH of a file that holds it",
        )
    if re.search(r"://[^/]*@", str(value)):
        raise UsageError("the address carries a user or secret", where=where)


def resolved(given: Options, scheme: str) -> Options:
    """The options with every reference replaced by what it names.

    Raises UsageError where a variable is not set or a file cannot be read.
    """
    return {name: _value(value, f"storage.{scheme}.{name}") for name, value in given.items()}


def named(reference: str, *, where: str) -> str:
    """The secret that ``env:NAME`` or ``file:PATH`` refers to. Raises UsageError."""
    return str(_value(reference, where))


def _value(value: str | int | bool, where: str) -> str | int | bool:
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        return value
    kind, _, name = value.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise UsageError(f"the environment variable {name} is not set", where=where)
        return os.environ[name]
    try:
        return Path(name).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the file it names cannot be read ({type(error).__name__})", where=where
        ) from None
