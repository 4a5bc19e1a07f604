"""A bundle made by hand, without Spark, and a small ward of synthetic patients as FHIR Bundles."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from clinloom import files, plugins
from clinloom import study as studies
from clinloom.deploy import bundle as bundles
from clinloom.deploy.assessment import Assessor
from clinloom.deploy.door import Door
from clinloom.deploy.scorer import Scorer
from clinloom.features import Feature
from clinloom.learn.preparation import learn
from clinloom.outputs import fhir
from clinloom.tables import CROSSWALK, SCORES

STUDY = """
name: ward
title: Respiratory failure within 30 days of admission
sources:
  ehr: {type: fhir, path: fhir, zone: UTC, identifiers: "urn:mrn"}
clean: {times: {order: month}}
cohort:
  index: {at: ENCOUNTER//IMP//START, plus: 24h, which: every}
  eligibility: {age_at_least: 18}
  outcome: {codes: ICD10CM//J96.01, within: 30d}
features:
  demographics:
  measurements: {codes: "LOINC//*", statistics: [last, mean, slope], windows: [24h, all]}
  codes: {codes: ["ICD10CM//*"], windows: [all]}
models: [gradient_boosting]
"""
LABS = {  # LOINC: unit, mean, standard deviation, another unit with its factor
    "2160-0": ("mg/dL", 1.0, 0.3, ("umol/L", 88.4)),
    "8867-4": ("/min", 80.0, 12.0, None),
    "2345-7": ("mg/dL", 110.0, 25.0, ("mmol/L", 0.0555)),
    "8310-5": ("Cel", 37.0, 0.6, None),
    "2708-6": ("%", 96.0, 2.0, None),
}
DIAGNOSES = ("I10", "E11.9", "J44.9", "J96.01")
BEGIN = dt.datetime(2024, 3, 1, 8, tzinfo=dt.UTC)


def feature_names() -> list[str]:
    """The features of the hand-made model."""
    born = ["demographics|MEDS_BIRTH|age|all", "demographics|GENDER//female|present|all"]
    labs = [
        f"measurements|LOINC//{code}|{statistic}|{window}"
        for code in sorted(LABS)
        for statistic in ("last", "mean", "slope")
        for window in ("24h", "all")
    ]
    return [*born, *labs, *(f"codes|ICD10CM//{code}|present|all" for code in DIAGNOSES)]


def trees(width: int, count: int, seed: int) -> dict[str, np.ndarray]:
    """Trees of two levels with random splits, as the arrays of a boosted model."""
    rng = np.random.default_rng(seed)
    feature = np.full((count, 7), -1, np.int64)
    feature[:, :3] = rng.integers(0, width, (count, 3))
    left = np.tile(np.arange(7), (count, 1))
    right = left.copy()
    left[:, :3], right[:, :3] = [1, 3, 5], [2, 4, 6]
    begin = 7 * np.arange(count)[:, None]
    return {
        "feature": feature.ravel(),
        "threshold": rng.normal(0, 0.7, 7 * count),
        "left": (left + begin).ravel(),
        "right": (right + begin).ravel(),
        "counts": np.zeros((7 * count, 2)),
        "prediction": rng.normal(0, 0.6, 7 * count),
        "gain": np.abs(rng.normal(1, 0.2, 7 * count)),
        "cover": np.tile([400.0, 240, 160, 140, 100, 70, 90], count),
        "root": begin.ravel(),
        "weight": np.r_[1.0, np.full(count - 1, 0.1)],
    }


def values(rows: int, seed: int = 1) -> np.ndarray:
    """Features of made-up training rows."""
    rng, columns = np.random.default_rng(seed), []
    for name in feature_names():
        code = name.split("|")[1].removeprefix("LOINC//")
        mean, spread = LABS[code][1:3] if code in LABS else (0.5, 0.5)
        columns.append(
            rng.normal(60, 15, rows) if "BIRTH" in name else rng.normal(mean, spread, rows)
        )
    found = np.stack(columns, axis=1)
    found[rng.random(found.shape) < 0.2] = np.nan
    return found


def scorer(count: int = 100, seed: int = 1) -> Scorer:
    """A boosted model of ``count`` trees on the features."""
    statistics = learn(values(500, seed), lower=0.01, upper=0.99)
    arrays = trees(statistics.width, count, seed)
    return Scorer("gradient_boosting", statistics, arrays, 0.9, -0.2, 0.4)


def publish(
    folder: Path,
    *,
    count: int = 100,
    seed: int = 1,
    study: str = STUDY,
    model: Scorer | None = None,
) -> Path:
    """The bundle at a folder; another ``seed`` is another model, or the ``model`` given."""
    document = yaml.safe_load(study)
    resolved = studies.parse(document, rooms=plugins, base=str(folder.parent))
    bundles.publish(
        files.address(folder),
        scorer=model or scorer(count, seed),
        study=resolved.portable(),
        features=[Feature.named(name, modality="records") for name in feature_names()],
        evidence={"study_hash": resolved.hash, "evidence": {"auroc": 0.8}},
        check=lambda: None,
    )
    return folder


def _instant(moment: dt.datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": system, "code": code}]}


def patient(number: int, *, observations: int = 40) -> dict[str, Any]:
    """A FHIR Bundle on one synthetic patient: numbers in several units, corrections, duplicates."""
    rng = np.random.default_rng(1000 + number)
    name = f"p{number}"
    about = {"reference": f"Patient/{name}"}
    resources: list[dict[str, Any]] = [
        {
            "resourceType": "Patient",
            "id": name,
            "gender": ("female", "male")[number % 2],
            "birthDate": f"{1935 + int(rng.integers(0, 60))}-0{1 + number % 9}-12",
            "identifier": [{"system": "urn:mrn", "value": f"M{number:05}"}],
        }
    ]
    admitted = BEGIN + dt.timedelta(hours=int(rng.integers(0, 5000)))
    resources.append(
        {
            "resourceType": "Encounter",
            "id": f"{name}-e",
            "status": "finished",
            "class": {"code": "IMP"},
            "subject": about,
            "period": {"start": _instant(admitted)},
        }
    )
    for code in rng.choice(DIAGNOSES[:3], int(rng.integers(0, 3)), replace=False).tolist():
        resources.append(
            {
                "resourceType": "Condition",
                "id": f"{name}-c-{code}",
                "subject": about,
                "code": _coded("http://hl7.org/fhir/sid/icd-10-cm", code),
                "recordedDate": _instant(admitted - dt.timedelta(days=int(rng.integers(1, 400)))),
            }
        )
    codes = sorted(LABS)
    for at in range(observations):
        code = codes[int(rng.integers(0, len(codes)))]
        unit, mean, spread, other = LABS[code]
        value = float(np.round(rng.normal(mean, spread), 2))
        if other and rng.random() < 0.3:
            unit, value = other[0], float(np.round(value * other[1], 3))
        moment = admitted + dt.timedelta(minutes=int(rng.integers(-5000, 2500)))
        resources.append(
            {
                "resourceType": "Observation",
                "id": f"{name}-o{at}",
                "status": ("final", "final", "final", "corrected", "entered-in-error")[at % 5],
                "subject": about,
                "code": _coded("http://loinc.org", code),
                "effectiveDateTime": _instant(moment),
                "issued": _instant(moment + dt.timedelta(minutes=30)),
                "valueQuantity": {"value": value, "unit": unit},
            }
        )
    entries = [{"resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def body(number: int, **more: Any) -> bytes:
    """The Bundle as bytes."""
    return json.dumps(patient(number, **more)).encode()


def assessed(bundle: bundles.Bundle, patients: int) -> list[str]:
    """The lines that `score --as fhir` leaves of some patients."""
    door, told = Door(bundle), []
    about = {"assessor": Assessor.of(bundle), "bundle": bundle.hash, "leans": door.leans}
    for number in range(patients):
        answer = door.score(door.fhir(body(number)))
        names = {"patient": f"M{number:05}", "system": "urn:mrn"}
        rows = SCORES.rows({**row, **names} for row in answer.rows)
        [subject] = answer.patients
        own = {"system": "#ehr", "identifier": f"Patient/p{number}", "subject_id": subject}
        made = fhir.lines(answer.events, rows, CROSSWALK.rows([own]), **about)
        told += made["lines"].column("line").to_pylist()
    return told
