"""Names that people read, for codes and features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from types import MappingProxyType

from clinloom.tables import BIRTH, DEATH
from clinloom.vocabulary.names import KNOWN

ENCOUNTERS = {"IMP": "Inpatient stay", "AMB": "Outpatient visit", "EMER": "Emergency visit"}
EDGES = {"START": "begin", "END": "end"}
MODALITIES = {
    "CR": "radiograph (CR)",
    "DX": "radiograph (DX)",
    "CT": "CT",
    "MR": "MRI",
    "US": "ultrasound",
    "MG": "mammogram",
    "XC": "photograph",
}
IMAGING = {
    "firstorder": "brightness",
    "glcm": "texture",
    "glrlm": "run lengths",
    "gradient": "edges",
    "region": "bright regions",
}
STATISTICS = {
    "last": "last",
    "mean": "mean",
    "min": "lowest",
    "max": "highest",
    "count": "times recorded",
    "slope": "trend per day",
    "first": "first",
    "since": "time since last",
    "sd": "variability (SD)",
    "sum": "total",
}
UNITS = {"us": "µs", "s": "s", "m": "min", "h": "h", "d": "days", "w": "weeks", "y": "years"}
ONE = {"days": "day", "weeks": "week", "years": "year"}
MODELS = {
    "both": "Records and images",
    "records": "Records only",
    "images": "Images only",
}


Displays = Mapping[str, str]  # what the sources call codes
NO_DISPLAYS: Displays = MappingProxyType({})


def code(text: str, displays: Displays = NO_DISPLAYS) -> str:
    """A code in words where they are known, or told by its source, else as it is.

    An answer stands after a colon.
    """
    asked, answered, answer = text.partition("=")
    if answered:
        return f"{code(asked, displays)}: {code(answer, displays)}"
    vocabulary, _, rest = text.partition("//")
    if rest in KNOWN.get(vocabulary, ()):
        return KNOWN[vocabulary][rest]
    if text in displays:
        return displays[text]
    if vocabulary == "IMAGE":
        return _image(rest)
    if vocabulary == "ENCOUNTER":
        kind, _, edge = rest.partition("//")
        return ", ".join(p for p in (ENCOUNTERS.get(kind, kind), EDGES.get(edge, edge)) if p)
    if vocabulary == "GENDER":
        return f"Sex: {rest}"
    if vocabulary == "SITE":
        return f"Site: {rest}"
    if vocabulary in (BIRTH, "AGE"):
        return "Age, years"
    if vocabulary == DEATH:
        return "Death"
    if vocabulary == "PHYSIONET" and rest:
        return rest
    return text.replace("//", " ").replace("_", " ").strip() or text


def _image(rest: str) -> str:
    """``CR//CHEST//coarse_glcm_contrast``: Chest radiograph (CR): texture contrast, coarse."""
    parts = rest.split("//")
    what = parts[-1]
    coarse = what.startswith("coarse_")
    family, _, measure = what.removeprefix("coarse_").partition("_")
    words = f"{IMAGING[family]} {measure}" if measure and family in IMAGING else what
    words = words.replace("_", " ") + (", coarse" if coarse else "")
    if len(parts) < 3:
        return f"Image: {words}"
    kind = MODALITIES.get(parts[0], parts[0])
    where = parts[1].replace("_", " ").capitalize() or "Image,"
    return f"{where} {kind}: {words}"


def feature(name: str, displays: Displays = NO_DISPLAYS) -> str:
    """A feature in words: ``measurements|LOINC//8867-4|last|24h`` is Heart rate, last in 24 h."""
    family, _, rest = name.partition("|")
    parts = rest.rsplit("|", 2)
    if len(parts) < 3:
        return name
    what, statistic, window = parts
    words = code(what, displays)
    told = statistic if family != "imaging" or statistic != "last" else "present"
    said = [STATISTICS.get(told, told)] if told not in ("present", "age") else []
    if words == "Age, years":
        return words
    if window != "all":
        said = [f"{said[0]} in {_span(window)}" if said else f"in {_span(window)}"]
    return ", ".join([words, *said])


def _span(window: str) -> str:
    """``24h`` as 24 h, ``30d`` as 30 days."""
    number = window.rstrip(ascii_lowercase)
    unit = UNITS.get(window.removeprefix(number))
    if not number or unit is None:
        return window
    return f"{number} {ONE.get(unit, unit) if number == '1' else unit}"


def features(names: Sequence[str], displays: Displays = NO_DISPLAYS) -> list[str]:
    """The features in words, with the code where two would read alike."""
    words = [feature(name, displays) for name in names]
    often = Counter(words)
    return [
        said if often[said] == 1 else f"{said} [{_code_of(name)}]"
        for said, name in zip(words, names, strict=True)
    ]


def _code_of(name: str) -> str:
    """The feature's bare code, to tell two apart."""
    rest = name.partition("|")[2].rsplit("|", 2)
    return rest[0].rpartition("//")[2] if len(rest) == 3 else name
