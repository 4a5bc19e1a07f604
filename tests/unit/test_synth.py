"""The synthetic hospital: the risk is what its files tell, its dirt is counted, bytes repeat."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from clinloom.errors import UsageError
from clinloom.synth import _radiographs, _risk, synthesise
from clinloom.synth._population import DAY, population
from clinloom.synth._records import Export, record_number

ROOT = Path(__file__).parents[2]


def made(seed=5, count=300, imaged=90):
    generator = np.random.default_rng(seed)
    people = population(0, count, imaged=imaged, generator=generator)
    return people, Export(people, seed=seed, generator=generator)


def resources(export, kind):
    out = []
    for line in export.lines[kind]:
        try:
            out.append(json.loads(line))
        except ValueError:
            continue
    return out


def code(resource, key="code"):
    return resource[key]["coding"][0]["code"]


def moment(text):
    """Seconds since 1970 of an ISO or American time; None where there is no such day."""
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%m/%d/%Y %H:%M", "%m/%d/%Y"):
        try:
            return dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC).timestamp()
        except ValueError:
            continue
    return None


def number_of(export):
    """Each Patient id's number, by its record number or its link."""
    patients = resources(export, "Patient")
    own = {p["id"]: p["identifier"][0]["value"] for p in patients}
    return {key: int(value[3:]) for key, value in own.items()}


def test_the_risk_is_what_the_records_tell_before_the_index_time():
    """The log odds again, by an independent reading of the lines."""
    people, export = made()
    whose = number_of(export)
    index = people.admitted + DAY
    slope, middle = _risk.AGE
    odds = _risk.INTERCEPT + slope * (people.age - middle) + _risk.MALE * people.male
    for kind, key, when, table in (
        ("Condition", "code", "recordedDate", _risk.CONDITIONS),
        ("MedicationRequest", "medicationCodeableConcept", "authoredOn", _risk.MEDICATIONS),
        ("Procedure", "code", "performedDateTime", _risk.PROCEDURES),
    ):
        for resource in resources(export, kind):
            at = whose[resource["subject"]["reference"].removeprefix("Patient/")]
            if code(resource, key) in table and moment(resource[when]) < index[at]:
                odds[at] += table[code(resource, key)][1]
    signals = {s.loinc: s for s in _risk.SIGNALS}
    last = {}
    for resource in resources(export, "Observation"):
        at = whose[resource["subject"]["reference"].removeprefix("Patient/")]
        known, said = moment(resource["issued"]), resource.get("valueQuantity")
        signal = signals.get(code(resource))
        if known is None or said is None or signal is None or known >= index[at]:
            continue
        value = said["value"]
        if known < people.admitted[at] or value == signal.impossible:
            continue
        if said["unit"] != signal.unit:
            _, factor, offset, _ = signal.other
            value = (value - offset) / factor
        if known > last.get((at, signal.loinc), (0, 0))[0]:
            last[at, signal.loinc] = (known, value)
    for (at, loinc), (_, value) in last.items():
        signal = signals[loinc]
        odds[at] += signal.weight * (value - signal.mean) / signal.sd
    np.testing.assert_allclose(odds, people.records, atol=0.05)  # converted units are rounded
    true = _risk.sigmoid(people.records + _risk.IMAGE * np.nan_to_num(people.severity))
    np.testing.assert_allclose(people.risk, true)


def test_the_outcome_is_in_the_window_of_those_who_have_it_and_of_nobody_else():
    people, export = made()
    whose = number_of(export)
    had = np.zeros(len(people), bool)
    for resource in resources(export, "Condition"):
        at = whose[resource["subject"]["reference"].removeprefix("Patient/")]
        days = (moment(resource["recordedDate"]) - people.admitted[at] - DAY) / DAY
        if code(resource) == _risk.OUTCOME:
            assert days > 0
            had[at] |= days <= 30
    np.testing.assert_array_equal(had, people.outcome)


def test_dirt_is_counted_as_it_lies_in_the_lines():
    _, export = made()
    lines = export.lines["Observation"]
    broken = len(lines) - len(resources(export, "Observation"))
    assert broken == export.dirt["malformed_json"] > 0
    observations = resources(export, "Observation")
    absent = sum("valueQuantity" not in o for o in observations)
    assert absent == export.dirt["missing_value"] > 0
    late = [
        o
        for o in observations
        if moment(o["issued"]) and moment(o["issued"]) - moment(o["effectiveDateTime"]) > DAY
    ]
    assert len(late) == export.dirt["late_result"] > 0
    facts = [json.dumps({k: v for k, v in o.items() if k != "id"}) for o in observations]
    assert len(facts) - len(set(facts)) == export.dirt["duplicate"] > 0
    several = len(export.lines["Patient"]) - len(export.people)
    assert several == export.dirt["two_identifiers"] > 0


def test_the_best_auroc_is_that_of_the_true_risk():
    generator = np.random.default_rng(0)
    records = generator.normal(-1.5, 1.5, 40_000)
    severity = np.where(generator.random(40_000) < 0.3, generator.normal(size=40_000), np.nan)
    best = _risk.bayes(records, severity)
    assert 0.5 < best["images"] < best["records"] < best["both"] < 1
    true = _risk.sigmoid(records + _risk.IMAGE * np.nan_to_num(severity))
    outcome = generator.random(40_000) < true
    metrics = pytest.importorskip("sklearn.metrics")
    assert best["both"] == pytest.approx(metrics.roc_auc_score(outcome, true), abs=0.01)
    imaged = np.isfinite(severity)
    alone = metrics.roc_auc_score(outcome, np.where(imaged, severity, 0.0))
    assert alone <= best["images"] + 0.01
    assert _risk.auroc(np.zeros(10), np.full(10, 0.3)) == 0.5


def test_what_is_visible_in_the_image_rises_with_the_severity():
    generator = np.random.default_rng(2)
    severity = np.linspace(-2.5, 2.5, 30)
    bright = [_radiographs.draw(s, generator).mean() for s in severity]
    assert np.corrcoef(severity, bright)[0, 1] > 0.9


@pytest.mark.parametrize("syntax", _radiographs.SYNTAXES)
@pytest.mark.parametrize("inverted", [False, True])
def test_every_transfer_syntax_gives_the_same_pixels_back(syntax, inverted):
    pydicom = pytest.importorskip("pydicom")
    pixels = _radiographs.draw(1.0, np.random.default_rng(3))
    file = _radiographs.instance(
        pixels,
        patient="MRN1",
        uids=("2.25.1", "2.25.2", "2.25.3"),
        moment=1_700_000_000,
        syntax=syntax,
        modality="DX",
        inverted=inverted,
    )
    dataset = pydicom.dcmread(io.BytesIO(file))
    assert dataset.file_meta.TransferSyntaxUID == syntax
    stored = dataset.pixel_array
    np.testing.assert_array_equal(4095 - stored if inverted else stored, pixels)


def digest(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(f.relative_to(folder)): hashlib.md5(f.read_bytes()).hexdigest() for f in files}  # noqa: S324


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(spark, tmp_path):
    """By Spark's workers, or without Spark."""
    for name, seed, by in (("a", 1, spark), ("b", 1, None), ("c", 2, None)):
        truth = synthesise(by, tmp_path / name, patients=520, seed=seed, images=6)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"fhir", "dicom", "truth.json"}
    assert truth["radiographs"] == 6 and len(truth["risk"]) == 520
    assert truth == json.loads((tmp_path / "c" / "truth.json").read_text())
    assert set(truth["bayes_auroc"]) == {"records", "images", "both"}
    assert record_number(519) in truth["risk"]


def test_somebody_elses_records_are_never_overwritten(spark, tmp_path):
    (tmp_path / "fhir").mkdir()
    with pytest.raises(UsageError, match="not made here"):
        synthesise(spark, tmp_path, patients=5, seed=1, images=False)
    assert not list((tmp_path / "fhir").iterdir())


def test_the_demo_runs_the_example():
    from clinloom.run.api import DEMO

    assert DEMO.read_bytes() == (ROOT / "examples" / "synthetic.yaml").read_bytes()


def test_a_half_made_hospital_is_ours_and_made_again(spark, tmp_path, monkeypatch):
    from clinloom.spark import workers

    def broken(*args):
        each(*args)
        raise KeyboardInterrupt

    each = workers.each
    monkeypatch.setattr(workers, "each", broken)
    with pytest.raises(KeyboardInterrupt):
        synthesise(spark, tmp_path / "a", patients=40, seed=1, images=4)
    assert (tmp_path / "a" / "fhir").is_dir() and not (tmp_path / "a" / "truth.json").exists()
    (tmp_path / "a" / "fhir" / "Patient.9999.ndjson").write_text("of the broken attempt")
    monkeypatch.undo()
    for name in ("a", "b"):
        synthesise(spark, tmp_path / name, patients=40, seed=1, images=4)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
