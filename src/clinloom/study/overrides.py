"""One key of a study set for one run: ``--set cohort.outcome.within=60d``."""

from __future__ import annotations

import yaml

from clinloom.errors import UsageError
from clinloom.files import address
from clinloom.study.schema import PLACES, expanded


def override(document: dict, change: str) -> None:
    """Set ``a.b.c=value`` in the document; the value is read as YAML."""
    key, equals, text = change.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise UsageError(
            f"--set needs KEY=VALUE, not '{key}'", mend="as in --set cohort.outcome.within=60d"
        )
    value = yaml.safe_load(text) if text else None
    if steps[-1] in PLACES and isinstance(value, str):
        value = str(address(expanded(value)))
    for step in steps[:-1]:
        inner = document.get(step)
        if not isinstance(inner, dict):
            inner = document[step] = {}
        document = inner
    document[steps[-1]] = value
