"""The risk by construction: linear in the log odds, in what the records tell and the image shows.

logit P(outcome) = INTERCEPT + records + image, where ``records`` adds age, sex, comorbidities,
treatments and the last value of each measurement before the index time, and ``image`` is the
severity of the opacities in a patient who has a radiograph, else 0. Severity is independent of the
records, so the best risk that records (or images) alone allow is an average over the other part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

OUTCOME = "J96.01"  # ICD-10-CM: acute respiratory failure with hypoxia
INTERCEPT = -2.95
IMAGE = 2.0  # log odds a standard deviation of severity
SEVEREST = 2.5  # severity is a standard normal, cut off here
AGE = (0.045, 64.0)  # log odds a year, and the age that adds nothing
MALE = 0.25


@dataclass(frozen=True)
class Signal:
    """A measurement: how it is distributed, and what its last value says about the risk.

    ``load`` is its correlation with the patient's acuity, ``weight`` the log odds a standard
    deviation, ``times`` the least and most measurements on the first day, ``share`` how many
    patients are measured at all. ``other`` is a second unit: (unit, factor, offset, decimals).
    """

    loinc: str
    unit: str
    decimals: int
    mean: float
    sd: float
    low: float
    high: float
    load: float
    weight: float
    times: tuple[int, int]
    impossible: float
    share: float = 1.0
    other: tuple[str, float, float, int] | None = None


SIGNALS = (
    Signal("8867-4", "/min", 0, 86, 15, 38, 190, 0.5, 0.45, (2, 5), 999),
    Signal("9279-1", "/min", 0, 18, 4, 8, 50, 0.5, 0.60, (2, 5), 444),
    Signal("59408-5", "%", 0, 94, 2.6, 70, 100, -0.5, -0.75, (2, 5), 990),
    Signal("8310-5", "Cel", 1, 37.1, 0.6, 34, 41.5, 0.3, 0.1, (2, 4), 370,
           other=("[degF]", 1.8, 32.0, 1)),
    Signal("8480-6", "mm[Hg]", 0, 128, 18, 70, 220, -0.3, -0.30, (2, 4), 1280),
    Signal("2160-0", "mg/dL", 2, 1.15, 0.40, 0.3, 8, 0.3, 0.40, (1, 3), 950,
           other=("umol/L", 88.4, 0.0, 1)),
    Signal("2345-7", "mg/dL", 0, 142, 38, 45, 500, 0.1, 0.0, (1, 3), 99999,
           other=("mmol/L", 1 / 18.016, 0.0, 2)),
    Signal("718-7", "g/dL", 1, 12.8, 1.8, 5, 19, -0.2, -0.2, (1, 2), 128,
           other=("g/L", 10.0, 0.0, 0)),
    Signal("2951-2", "mmol/L", 0, 138, 4, 115, 160, -0.1, 0.0, (1, 2), 1380),
    Signal("6690-2", "10*3/uL", 1, 9.8, 3.3, 1, 40, 0.2, 0.25, (1, 2), 98000),
    Signal("2524-7", "mmol/L", 1, 1.9, 0.7, 0.4, 15, 0.5, 0.65, (1, 2), 190, share=0.75,
           other=("mg/dL", 9.008, 0.0, 1)),
)  # fmt: skip

# code: (share of patients, log odds)
CONDITIONS = {
    "I50.9": (0.22, 0.9),  # heart failure
    "J44.9": (0.18, 0.8),  # chronic obstructive pulmonary disease
    "N18.30": (0.15, 0.4),  # chronic kidney disease
    "E11.9": (0.27, 0.0),  # type 2 diabetes
    "I10": (0.55, 0.0),  # hypertension
}
MEDICATIONS = {  # RxNorm ingredients
    "4603": (0.25, 0.4),  # furosemide
    "6918": (0.35, 0.0),  # metoprolol
    "1191": (0.40, 0.0),  # aspirin
}
PROCEDURES = {"371907003": (0.15, 0.7)}  # SNOMED CT: oxygen administration by nasal cannula


def sigmoid(odds: np.ndarray) -> np.ndarray:
    """Probability from log odds."""
    risk: np.ndarray = 1 / (1 + np.exp(-odds))
    return risk


def bayes(records: np.ndarray, severity: np.ndarray) -> dict[str, float]:
    """The expected AUROC of the best risk from records, from images, and from both.

    ``records`` (n,) log odds without the image, ``severity`` (n,) NaN where there is no image.
    """
    imaged = np.isfinite(severity)
    true = sigmoid(records + np.where(imaged, IMAGE * np.nan_to_num(severity), 0.0))
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    nodes = np.clip(nodes, -SEVEREST, SEVEREST)
    weights = weights / weights.sum()
    alone = sigmoid(records)
    blind = sum(w * sigmoid(records + IMAGE * z) for z, w in zip(nodes, weights, strict=True))
    count, edges = np.histogram(records, bins=400)
    middle, share = (edges[1:] + edges[:-1]) / 2, count / max(count.sum(), 1)
    grid = np.linspace(-SEVEREST, SEVEREST, 101)
    seen = (sigmoid(middle + IMAGE * grid[:, None]) * share).sum(axis=1)
    shown = np.where(
        imaged, np.interp(np.nan_to_num(severity), grid, seen), (sigmoid(middle) * share).sum()
    )
    return {
        "records": auroc(np.where(imaged, blind, alone), true),
        "images": auroc(shown, true),
        "both": auroc(true, true),
    }


def auroc(score: np.ndarray, risk: np.ndarray) -> float:
    """The expected AUROC of a score where each row has the outcome with probability ``risk``."""
    order = np.argsort(score, kind="stable")
    ordered, risk = score[order], risk[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    yes, no = np.add.reduceat(risk, starts), np.add.reduceat(1 - risk, starts)
    below = np.cumsum(no) - no / 2
    return float((yes * below).sum() / (yes.sum() * no.sum()))
