"""One key of a study set for one run: ``--set cohort.outcome.within=60d``."""

from __future__ import annotations

import json
from typing import Any

import yaml

from clinloom.errors import UsageError
from clinloom.files import address
from clinloom.study.kinds import expanded
from clinloom.study.schema import PLACES


def override(document: dict[str, Any], change: str) -> None:
    """Set ``a.b.c=value`` in the document; the value is read as YAML."""
    steps, value = _read(change)
    for step in steps[:-1]:
        inner = document.get(step)
        if not isinstance(inner, dict):
            inner = document[step] = {}
        document = inner
    document[steps[-1]] = value


def placed(change: str) -> tuple[str, str | None]:
    """The change with a relative place made absolute, and that place, where it names one."""
    steps, value = _read(change)
    if steps[-1] in PLACES and isinstance(value, str):
        return f"{'.'.join(steps)}={json.dumps(value)}", value
    return change, None


def _read(change: str) -> tuple[list[str], Any]:
    key, equals, text = change.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise UsageError(
            f"--set needs KEY=VALUE, not '{key}'", mend="as in --set cohort.outcome.within=60d"
        )
    value = yaml.safe_load(text) if text else None
    if steps[-1] in PLACES and isinstance(value, str):
        value = str(address(expanded(value)))
    return steps, value
