"""Questions of a model at work: how large a change must be, and their share of the false alarms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from clinloom.evaluate import drift

KINDS = {
    "inputs": "the known values of a feature",
    "missing": "how often a feature is missing",
    "codes": "codes and units that training did not see",
    "predictions": "the distribution of the risks",
    "flagged": "the share of moments that are flagged",
    "calibration": "calibration intercept or slope of a period",
    "running": "the running sum of outcomes less what was expected",
    "discrimination": "the area under the ROC curve",
    "subgroups": "intercept or area of a subgroup",
}
SHIFTED = 0.1  # of the population stability index above chance, or of the KS distance
LACKING = 0.05  # of a share that is missing
OFTEN = 0.02  # of the share that is flagged
LOGITS = 0.1  # of an intercept or a slope
AREA = 0.02  # of an area under the ROC curve

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Alarm = dict[str, Any]


@dataclass
class Asked:
    """The questions put so far: their p-values and what they would tell, by kind."""

    kinds: Sequence[str]
    level: float
    alarms: list[Alarm] = field(default_factory=list)
    tests: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The level of each kind."""
        return self.level / max(1, len(self.kinds))

    def told(self, kind: str, p: float, **told: Any) -> None:
        """Raise an alarm."""
        self.alarms.append({"kind": kind, **told, "p": short(p)})

    def passed(self, kind: str, p: Floats, large: Flags) -> Iterator[tuple[int, int]]:
        """Features with an alarm, of tests (periods, f), each with its first period of one."""
        self.tests[kind] = p.size
        passed = drift.alarming(p, self.share) & large
        for feature in np.flatnonzero(passed.any(axis=0)):
            yield int(feature), int(np.argmax(passed[:, feature]))

    def several(self, kind: str, tests: Sequence[tuple[float, bool, Alarm]]) -> None:
        """A few tests of a kind: p-value, whether the change is large enough, and what to tell."""
        passed = drift.holm(np.array([test[0] for test in tests], float), self.share)
        self.tests[kind] = len(tests)
        for (one, large, told), rejects in zip(tests, passed, strict=True):
            if rejects and large:
                self.told(kind, one, **told)


def rounded(value: float) -> float | None:
    """To four decimals; None where it is no number."""
    return round(float(value), 4) if np.isfinite(value) else None


def short(p: float) -> float:
    """A p-value to two digits."""
    return float(f"{p:.2g}")
