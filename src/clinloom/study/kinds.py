"""What the parts of a study are made of: frozen models, durations, codes, zones and places."""

from __future__ import annotations

import os
import re
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)

from clinloom.errors import UsageError
from clinloom.files import address

MICROSECONDS = {
    "us": 1,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 7 * 86_400_000_000,
    "y": 31_557_600_000_000,  # the Julian year, 365.25 d
}


def duration(text: Any) -> int:
    """Microseconds of a duration written like ``30d``, ``48h``, ``90m``, ``2w`` or ``1y``."""
    if isinstance(text, int) and not isinstance(text, bool):
        if text == 0:
            return 0
        raise ValueError(f"a duration needs a unit: '{text}d', '{text}h', '{text}m' …")
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(text))
    if not found or found[2] not in MICROSECONDS:
        raise ValueError("a duration is written like 30d, 48h, 90m, 2w or 1y")
    return round(Decimal(found[1]) * MICROSECONDS[found[2]])


def zone(name: str) -> str:
    """The IANA time zone of that name. Raises ValueError where there is none."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("an IANA time zone is written like Europe/Berlin") from None
    return name


Zone = Annotated[str, AfterValidator(zone)]


def written(microseconds: int) -> str:
    """The shortest way to write a duration: the inverse of :func:`duration`."""
    if not microseconds:
        return "0d"
    for unit in ("y", "d", "h", "m", "s", "us"):
        if microseconds % MICROSECONDS[unit] == 0:
            return f"{microseconds // MICROSECONDS[unit]}{unit}"
    return f"{microseconds}us"


def expanded(text: str) -> str:
    """Fill in ``${NAME:-default}``. A relative path in the environment is the caller's."""

    def value(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        found = os.environ.get(name)
        if found:
            return found if match.start() else str(address(found))
        if default is None:
            raise ValueError(f"the environment variable {name} is not set and has no default")
        return default

    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", value, text)


def _absolute(text: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base", ".")
    try:
        return str(address(expanded(text), base=base))
    except UsageError as error:
        mend = f"; {error.mend}" if error.mend else ""
        raise ValueError(error.message + mend) from None


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Duration = Annotated[
    int,
    BeforeValidator(duration),
    PlainSerializer(written),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?(us|s|m|h|d|w|y)$"}),
]
Codes = Annotated[tuple[str, ...], BeforeValidator(_several)]
StudyPath = Annotated[str, AfterValidator(_absolute)]


class Model(BaseModel):
    """A frozen part of a study; unknown keys are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")
