"""The study file: what a clinician wrote, checked whole, and resolved into a frozen Study.

What resolved (defaults, absolute paths, seed) is a value of its own, stored with every result.
"""

from clinloom.study.cohort import (
    Cohort,
    Competing,
    Criterion,
    Eligibility,
    IndexTime,
    Observed,
    Outcome,
    TimeAtRisk,
)
from clinloom.study.kinds import (
    MICROSECONDS,
    Codes,
    Duration,
    Model,
    StudyPath,
    Zone,
    duration,
    written,
    zone,
)
from clinloom.study.overrides import override, placed
from clinloom.study.reading import parse, read, schema, site, told
from clinloom.study.schema import (
    PLACES,
    SITE,
    Allowed,
    Audit,
    Deploy,
    Evaluate,
    RuleModel,
    SourceModel,
    Study,
    Tune,
    digest,
    without_places,
)
from clinloom.study.split import Split

__all__ = [
    "MICROSECONDS",
    "PLACES",
    "SITE",
    "Allowed",
    "Audit",
    "Codes",
    "Cohort",
    "Competing",
    "Criterion",
    "Deploy",
    "Duration",
    "Eligibility",
    "Evaluate",
    "IndexTime",
    "Model",
    "Observed",
    "Outcome",
    "RuleModel",
    "SourceModel",
    "Split",
    "Study",
    "StudyPath",
    "TimeAtRisk",
    "Tune",
    "Zone",
    "digest",
    "duration",
    "override",
    "parse",
    "placed",
    "read",
    "schema",
    "site",
    "told",
    "without_places",
    "written",
    "zone",
]
