"""The study file: what a clinician wrote, checked whole, and resolved into a frozen Study.

What resolved (defaults, absolute paths, seed) is a value of its own, stored with every result.
"""

from clinloom.study.reading import parse, read, schema
from clinloom.study.schema import (
    MICROSECONDS,
    PLACES,
    Codes,
    Cohort,
    Criterion,
    Deploy,
    Duration,
    Eligibility,
    Evaluate,
    IndexTime,
    Model,
    Outcome,
    Split,
    Study,
    StudyPath,
    TimeAtRisk,
    digest,
    duration,
    without_places,
    written,
)

__all__ = [
    "MICROSECONDS",
    "PLACES",
    "Codes",
    "Cohort",
    "Criterion",
    "Deploy",
    "Duration",
    "Eligibility",
    "Evaluate",
    "IndexTime",
    "Model",
    "Outcome",
    "Split",
    "Study",
    "StudyPath",
    "TimeAtRisk",
    "digest",
    "duration",
    "parse",
    "read",
    "schema",
    "without_places",
    "written",
]
