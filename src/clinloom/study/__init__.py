"""The study file: what a clinician wrote, checked whole, and resolved into a frozen Study.

What resolved (defaults, absolute paths, seed) is a value of its own, stored with every result.
"""

from clinloom.study.overrides import override, placed
from clinloom.study.reading import parse, read, schema, site
from clinloom.study.schema import (
    MICROSECONDS,
    PLACES,
    SITE,
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
    RuleModel,
    SourceModel,
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
    "SITE",
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
    "RuleModel",
    "SourceModel",
    "Split",
    "Study",
    "StudyPath",
    "TimeAtRisk",
    "digest",
    "duration",
    "override",
    "parse",
    "placed",
    "read",
    "schema",
    "site",
    "without_places",
    "written",
]
