"""How a bundle is served: what the command line takes and the application is made with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from clinloom import files
from clinloom.errors import UsageError

SCALES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Options:
    """How a bundle is served.

    ``source``: which FHIR source of the study requests are like; ``token``: ``env:NAME`` or
    ``file:/PATH`` of what callers have to bear; ``shadow``: another bundle, scored beside;
    ``shadow_file``: a local file to which both risks go, without identifiers and times;
    ``worklist``: the address of a folder of scored lists, shown at ``/worklist``;
    ``max_body``: bytes; ``max_entries``: resources, or events, of a request; ``slow``: seconds in
    which a request has to come; ``timeout``: seconds that scoring may take; ``at_once``: requests
    that are scored or wait for it; ``bodies``: whose bodies may come at once; ``threads`` that
    score; ``watch``: seconds between looks for a new bundle.
    """

    source: str | None = None
    token: str | None = None
    shadow: str | None = None
    shadow_file: str | None = None
    worklist: str | None = None
    max_body: int = 10 << 20
    max_entries: int = 50_000
    slow: float = 10.0
    timeout: float = 10.0
    at_once: int = 32
    bodies: int = 64
    threads: int = 1
    watch: float = 5.0

    def __post_init__(self) -> None:
        """Raises UsageError for a bound that is none."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value > 0:
                name = field.name.replace("_", "-")
                raise UsageError("a bound is above 0", where=f"--{name}", mend="give another")

    @property
    def bearer(self) -> str | None:
        """The token itself. Raises UsageError where the reference leads nowhere."""
        if self.token is None:
            return None
        found = files.named(self.token, where="--token")
        if found == self.token or not found:
            raise UsageError(
                "a token is named, never written",
                where="--token",
                mend="give env:NAME of a variable or file:/PATH of a file that holds it",
            )
        return found


def size(text: str) -> int:
    """Bytes, as ``10MB`` or ``512K`` write them. Raises ValueError."""
    found = re.fullmatch(r"(\d+)\s*([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(text)
    return int(found[1]) * SCALES[found[2].upper()]


Read = Callable[[str], Any]
WORDS: dict[str, tuple[Read, str]] = {  # the command line's
    "source": (str, "which of the study's FHIR sources requests are like"),
    "token": (str, "what callers have to bear: env:NAME or file:/PATH"),
    "shadow": (str, "another bundle that scores beside and answers nobody"),
    "shadow_file": (str, "a file for both risks, without identifiers"),
    "worklist": (str, "a folder of lists that `score --reasons` wrote, shown as a page"),
    "max_body": (size, "the most bytes of a request, like 10MB"),
    "max_entries": (int, "the most resources or events of a request"),
    "slow": (float, "seconds in which a request has to come"),
    "timeout": (float, "seconds that scoring may take"),
    "at_once": (int, "requests in work before others are sent away for a moment"),
    "watch": (float, "seconds between looks for a new bundle at its address"),
}
