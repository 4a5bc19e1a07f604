"""The injection suite: each kind of leak, put into clean data, is named; clean data name none."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from clinloom import audit, features
from clinloom.audit import Evidence, Finding, both_sides, duplicates, future, preparation
from clinloom.audit._figures import auroc, exceeds, likelier
from clinloom.cohort import split
from clinloom.errors import DataError, StudyError
from clinloom.features import Feature
from clinloom.learn.preparation import learn
from clinloom.run import metadata
from clinloom.run.audit import Asked, sides
from clinloom.study import Allowed
from clinloom.tables import CROSSWALK, EVENTS, IMAGES, INDEX
from clinloom.vocabulary import leaks

CHECKS = {
    "both_sides", "duplicates", "future", "missingness", "preparation", "proxy_codes",
    "shortcuts", "strong_feature", "written_later",
}  # fmt: skip
LABS, CODES, PIXELS = 24, 12, 6


def named(code: str, statistic: str = "last", modality: str = "records") -> Feature:
    family = {"last": "measurements", "present": "codes"}[statistic]
    return Feature.named(f"{family}|{code}|{statistic}|all", modality=modality)


FEATURES = [
    *(named(f"LAB//{n}") for n in range(LABS)),
    *(named(f"ICD//{n}", "present") for n in range(CODES)),
    *(named(f"IMAGE//CR//CHEST//{n}", modality="images") for n in range(PIXELS)),
]


def clean(seed: int = 0, patients: int = 600, share: float = 0.2) -> Evidence:
    """Patients whose outcome depends on their severity, as honest data have it.

    One laboratory value reaches an AUROC of about .87, the ill are examined more often, and
    metadata say nothing.
    """
    rng = np.random.default_rng(seed)
    severity = rng.normal(size=patients)
    positive = severity + 0.45 * rng.normal(size=patients) > np.quantile(severity, 1 - share) + 0.1
    labs = rng.normal(size=(patients, LABS)) + np.linspace(0.0, 0.5, LABS) * severity[:, None]
    labs[:, 0] = severity + 0.8 * rng.normal(size=patients)
    asked = rng.random((patients, LABS)) < 0.6 + 0.15 * np.tanh(severity)[:, None]
    labs[:, 1:][~asked[:, 1:]] = np.nan
    codes = rng.random((patients, CODES)) < 0.02 + 0.3 / (1 + np.exp(-severity))[:, None] / 2
    pixels = rng.normal(size=(patients, PIXELS))
    return Evidence(
        features=FEATURES,
        values=np.hstack([labs, codes.astype(float), pixels]),
        positive=positive,
        subject=rng.integers(-(1 << 62), 1 << 62, patients),
        metadata={
            "source": rng.choice(["a", "a+b", "b"], patients).astype(str),
            "identifier": rng.permutation(patients).astype(float),
            "record order": np.arange(patients, dtype=float),
            "image manufacturer": rng.choice(["", "one", "two"], patients).astype(str),
            "image view": np.where(severity + 4 * rng.normal(size=patients) > 0, "AP", "PA"),
            "prediction moment": np.full(patients, 1e15),
        },
        untimed=set(),
        rows_checked=patients,
    )


def with_column(
    seen: Evidence, feature: Feature, column: np.ndarray, *, untimed: bool = False
) -> Evidence:
    return replace(
        seen,
        features=[*seen.features, feature],
        values=np.hstack([seen.values, np.asarray(column, float)[:, None]]),
        untimed={*seen.untimed, *([leaks.column(feature.code)] if untimed else [])},
    )


def found(seen: Evidence) -> set[tuple[str, str]]:
    return {(finding.check, finding.of) for finding in audit.found(seen)}


def test_every_check_says_what_it_sees_and_what_it_cannot():
    told = audit.looked()
    assert {one["check"] for one in told} == CHECKS
    assert all(one["looks"] and one["blind"] for one in told)


def test_a_legitimate_feature_is_strong_and_not_flagged():
    seen = clean(patients=4000)
    assert 0.84 < auroc(seen.values[:, 0], seen.positive) < 0.9
    assert found(seen) == set()


SIZES = [(60, 0.3), (150, 0.1), (600, 0.2), (1500, 0.02)]
SEEDS = 25


@pytest.mark.parametrize(("patients", "share"), SIZES)
def test_clean_data_of_many_seeds_name_nothing(patients, share):
    """Small and large, common and rare outcomes: of a hundred clean studies one may be flagged."""
    alarms = [
        (seed, flagged) for seed in range(SEEDS) if (flagged := found(clean(seed, patients, share)))
    ]
    assert len(alarms) <= (1 if (patients, share) == SIZES[0] else 0), alarms


def test_an_area_near_its_bound_is_flagged_no_more_than_chance_allows():
    """A feature that is as good as the bound itself, of small data: the worst honest case."""
    rng = np.random.default_rng(1)
    shift = 2**0.5 * 1.2815515655446004  # two normals whose AUROC is .9
    for ones, zeros in ((10, 40), (20, 80), (60, 300)):
        has = np.arange(ones + zeros) < ones
        draws = [auroc(rng.normal(size=len(has)) + shift * has, has) for _ in range(1500)]
        alarms = sum(exceeds(area, ones, zeros, bound=0.9) for area in draws)
        assert alarms <= 8, (ones, zeros, alarms)  # a thousandth is asked for
    assert not exceeds(1.0, 9, 1000, bound=0.9) and exceeds(1.0, 20, 80, bound=0.9, looks=50)


def test_a_binomial_tail_is_exact():
    assert likelier(3, 4, 0.5) == pytest.approx(5 / 16)
    assert likelier(0, 4, 0.5) == 1.0


@pytest.mark.parametrize("patients", [150, 600, 3000])
def test_a_column_that_is_the_outcome_is_named(patients):
    seen = clean(patients=patients)
    noise = np.random.default_rng(2).normal(size=patients)
    leak = with_column(seen, named("LAB//troponin_after"), 5 * seen.positive + noise)
    assert ("strong_feature", "LAB//troponin_after") in found(leak)
    assert {of for _, of in found(leak)} == {"LAB//troponin_after"}


def test_a_value_that_tells_by_its_levels_and_not_by_its_order_is_named():
    seen = clean()
    rng = np.random.default_rng(3)
    middle = np.where(seen.positive, 0.0, rng.choice([-1.0, 1.0], len(seen.positive)))
    leak = with_column(seen, named("LAB//grade"), middle)
    assert found(leak) == {("strong_feature", "LAB//grade")}


def test_a_code_that_fires_almost_only_with_the_outcome_is_named():
    seen = clean()
    fires = seen.positive & (np.random.default_rng(4).random(len(seen.positive)) < 0.3)
    leak = with_column(seen, named("ORDER//TERMINAL", "present"), fires)
    assert found(leak) == {("proxy_codes", "ORDER//TERMINAL")}


def test_a_code_that_matters_just_before_the_moment_alone_is_named_by_its_window():
    seen = clean()
    rng = np.random.default_rng(5)
    lately = seen.positive & (rng.random(len(seen.positive)) < 0.3)
    ever = lately | (rng.random(len(seen.positive)) < 0.3)
    leak = with_column(seen, named("ALERT//SEPSIS", "present"), ever)
    assert found(leak) == set()
    short = Feature.named("codes|ALERT//SEPSIS|present|6h", modality="records")
    assert found(with_column(leak, short, lately)) == {("proxy_codes", "ALERT//SEPSIS")}


def test_a_rare_outcome_does_not_make_a_few_hits_a_proxy():
    seen = clean(patients=3000, share=0.01)
    few = np.zeros(3000, bool)
    few[np.flatnonzero(seen.positive)[:6]] = True
    assert found(with_column(seen, named("ICD//RARE", "present"), few)) == set()


def test_a_value_that_is_missing_where_nothing_happened_is_named():
    seen = clean()
    rng = np.random.default_rng(6)
    known = np.where(rng.random(len(seen.positive)) < 0.9, seen.positive, ~seen.positive)
    leak = with_column(
        seen, named("LAB//postmortem"), np.where(known, rng.normal(size=len(known)), np.nan)
    )
    assert ("missingness", "LAB//postmortem") in found(leak)
    assert {of for _, of in found(leak)} == {"LAB//postmortem"}


def test_a_pattern_of_missing_values_that_tells_together_is_named():
    seen = clean()
    rng = np.random.default_rng(7)
    values = seen.values.copy()
    for at in range(1, 13):  # each alone tells little
        lost = rng.random(len(values)) < np.where(seen.positive, 0.75, 0.3)
        values[:, at] = np.where(lost, np.nan, 0.0)
    assert found(replace(seen, values=values)) == {("missingness", "pattern")}


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("source", lambda y, rng: np.where(y ^ (rng.random(len(y)) < 0.15), "b", "a")),
        ("image view", lambda y, rng: np.where(y ^ (rng.random(len(y)) < 0.1), "AP", "PA")),
        ("image manufacturer", lambda y, rng: np.where(y ^ (rng.random(len(y)) < 0.2), "x", "y")),
        ("identifier", lambda y, rng: np.argsort(np.argsort(2.0 * y + rng.normal(size=len(y))))),
        ("record order", lambda y, rng: np.argsort(np.argsort(y + rng.random(len(y))))),
    ],
)
def test_metadata_that_predict_the_outcome_are_named(name, column):
    seen = clean()
    made = column(seen.positive, np.random.default_rng(8))
    made = made if made.dtype.kind == "U" else made.astype(float)
    assert found(replace(seen, metadata={**seen.metadata, name: made})) == {("shortcuts", name)}


def test_a_feature_that_is_metadata_by_its_name_is_judged_as_such():
    seen = clean()
    scanner = seen.positive ^ (np.random.default_rng(9).random(len(seen.positive)) < 0.2)
    for code in ("STAY//hospital_id", "RADIOLOGY//scanner"):
        assert found(with_column(seen, named(code), scanner)) == {("shortcuts", code)}
    assert found(with_column(seen, named("LAB//lactate"), scanner)) == set()


@pytest.mark.parametrize(
    "name",
    [
        "slos", "los", "length_of_stay", "LengthOfStay", "time_in_hospital", "charges", "totcst",
        "totmcst", "Total Charges", "surv2m", "surv6m", "prg2m", "prg6m", "d.time", "dnr", "dnrday",
        "hospdead", "death", "sfdm2", "avtisst", "Survival", "DEATH_EVENT", "hospital_expire_flag",
        "dod", "discharge_disposition_id", "discharge_location", "Patient Disposition", "time",
        "overall_survival_months", "Vital Status", "hospitaldischargestatus", "actualiculos",
        "predictedhospitalmortality", "dx_type", "code_status", "hospice", "readmitted", "APR DRG",
    ],
)  # fmt: skip
def test_a_table_without_times_is_known_by_its_names(name):
    seen = clean()
    column = np.random.default_rng(10).normal(size=len(seen.positive))  # it tells nothing else
    code = f"TABLE//{name}"
    assert found(with_column(seen, named(code), column, untimed=True)) == {("written_later", code)}
    assert found(with_column(seen, named(code), column)) == set()  # with times it is judged by them


@pytest.mark.parametrize(
    "name",
    [
        "age", "sex", "trestbps", "thalach", "cholesterol", "dzgroup", "num.co", "edu", "scoma",
        "meanbp", "wblc", "hrt", "resp", "temp", "pafi", "alb", "bili", "crea", "sod", "ph",
        "glucose", "bun", "urine", "adlp", "adls", "diabetes", "dementia", "ca", "race", "income",
        "marital status", "smoking status", "number_inpatient", "insulin", "localization",
        "time since onset", "surveillance", "blossom", "heart rate", "GCS", "lactate", "GENDER//F",
    ],
)  # fmt: skip
def test_an_honest_name_is_not(name):
    assert leaks.written_later(f"TABLE//{name}") is None
    assert not leaks.metadata(f"TABLE//{name}")


def test_values_of_a_column_are_one_finding():
    seen = clean()
    rng = np.random.default_rng(11)
    for n in range(4):
        fires = rng.random(len(seen.positive)) < 0.2
        seen = with_column(seen, named(f"DISPOSITION//{n}", "present"), fires, untimed=True)
    assert found(seen) == {("written_later", "DISPOSITION//*")}


def test_a_value_that_rules_the_outcome_out_is_named_where_no_time_tells():
    seen = clean()
    fires = ~seen.positive & (np.random.default_rng(12).random(len(seen.positive)) < 0.5)
    for untimed, told in ((True, {("written_later", "KIND//benign")}), (False, set())):
        leak = with_column(seen, named("KIND//benign", "present"), fires, untimed=untimed)
        assert found(leak) == told


def test_a_patient_on_both_sides_is_counted():
    subject = np.array([1, 1, 2, 2, 3])
    split = np.array(["train", "test", "train", "", "test"])
    folds = np.array([0, -1, 1, 1, 2])
    told = both_sides.straddling(subject, {"split": split, "folds": folds})
    assert told == {"split": 1, "folds": 0}
    assert found(replace(clean(), straddling=told)) == {("both_sides", "split")}


def test_sides_are_those_by_which_rows_are_judged():
    """Train and test, or every part in turn: sites by their names, and folds where all cross."""
    asked = Asked((), seed=3, folds=4, salt=0, shares=(1.0, 1.0), checked=0.0)
    subject = np.arange(50)

    def told(split: list) -> list[str]:
        return sides(pa.table({"split": pa.array(split, pa.string())}), subject, asked).tolist()

    assert told(["train", None] * 25) == ["train", ""] * 25
    assert told(["north", "south"] * 25) == ["north", "south"] * 25
    assert told(["crossed"] * 50) == [str(n) for n in split.fold(subject, 4, 3).tolist()]


def test_copies_of_records_and_of_images_are_told_from_chance():
    """A copied row has its hash; a row of a few common codes shares one by chance and owes more."""
    seen = clean()
    telling = duplicates.Telling(seen.values, seen.features)
    bits, due = telling.of(seen.values), duplicates.due(600)
    assert (bits["records"] > due).mean() > 0.9 and (bits["images"] > due).mean() > 0.9
    small = seen.values[:, LABS : LABS + CODES]
    codes_alone = duplicates.Telling(small, seen.features[LABS : LABS + CODES])
    assert (codes_alone.of(small)["records"] > due).mean() < 0.01
    images = np.array([f.modality == "images" for f in seen.features])
    other = seen.values.copy()
    other[0, 0] += 1.0
    other[1, images] *= 1 + 1e-9  # the same picture, summed in another order
    one, two = duplicates.digests(seen.values, images), duplicates.digests(other, images)
    assert (one == two).all() and len(set(one.tolist())) == len(one)
    one, two = duplicates.digests(seen.values, ~images), duplicates.digests(other, ~images)
    assert one[0] != two[0] and (one[1:] == two[1:]).all()
    told = found(replace(seen, doubled={"images": 2, "records": 2}))
    assert told == {("duplicates", "images"), ("duplicates", "records")}


DAY = dt.timedelta(days=1)
T0 = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


def test_a_kernel_that_sees_the_future_is_caught_and_its_feature_named():
    """Kernels that look an instant too far, or at everything, where the cut is the audit's own."""
    events = EVENTS.rows(
        {"subject_id": s, "time": T0 + n * DAY, "code": code, "numeric_value": float(s + n)}
        for s in (1, 2, 3)
        for n in range(5)
        for code in ("LAB//a", "LAB//b")
    )
    index = INDEX.rows({"subject_id": s, "prediction_time": T0 + 2 * DAY} for s in (1, 2, 3))
    listed = [named("LAB//a"), named("LAB//b")]
    read = events.select(features.columns(["measurements"]))

    def late(record: pa.Table, rows: pa.Table, asked: list[Feature]) -> np.ndarray:
        later = pa.array([T0 + 2 * DAY + dt.timedelta(microseconds=1)] * rows.num_rows)
        moved = rows.select(["subject_id"]).append_column(
            "prediction_time", later.cast(INDEX.arrow.field("prediction_time").type)
        )
        made = features.matrix(record, rows, asked)
        made[:, 1] = features.matrix(record, moved, asked)[:, 1]
        return made

    for kernel, told in ((features.matrix, {}), (late, {"measurements|LAB//b|last|all": 3})):
        expected = kernel(read, index, listed)
        assert future.differing(read, index, listed, expected, kernel) == told
    # what was committed knew the future, and the kernel of today does not
    leaky = late(read, index, listed)
    told = future.differing(read, index, listed, leaky, features.matrix)
    assert told == {"measurements|LAB//b|last|all": 3}
    assert found(replace(clean(), differing=told)) == {("future", "measurements|LAB//b|last|all")}


def test_preparation_fitted_on_test_rows_is_named():
    rng = np.random.default_rng(13)
    values = rng.normal(size=(900, 20)) * rng.gamma(2, size=20)
    values[rng.random(values.shape) < 0.1] = np.nan
    train, test = values[:600], values[600:]
    listed = [named(f"LAB//{n}") for n in range(20)]

    def strange(fitted):
        sides = [(len(rows), *preparation.moments(rows, *held(fitted))) for rows in (train, test)]
        return preparation.strange(listed, *sides)

    def held(f):
        return f.fill, f.lower, f.upper, f.centre, f.scale

    assert strange(learn(train, lower=0.01, upper=0.99)) == []
    train, test, values = (1e8 + part for part in (train, test, values))  # far from 0, too
    assert strange(learn(train, lower=0.01, upper=0.99)) == []
    for rows in (values, test):
        told = strange(learn(rows, lower=0.01, upper=0.99))
        assert len(told) > 15
        assert found(Evidence(prepared={"random_forest": told})) == {
            ("preparation", "random_forest")
        }


def test_metadata_are_those_before_the_moment():
    moment = T0 + DAY
    sample = INDEX.rows({"subject_id": s, "prediction_time": moment} for s in (7, 8))
    rows = [
        (7, None, "SEX//F", "a", "sex.csv@40"),
        (7, T0, "LAB//x", "b", "labs.csv@12"),
        (7, T0 + 3 * DAY, "LAB//x", "late", "late.csv@1"),
        (8, T0, "LAB//x", "b", "other.parquet#3"),
        (8, T0, "UNUSED", "c", "z.csv@1"),
    ]
    names = ("subject_id", "time", "code", "source", "record_id")
    events = EVENTS.rows(dict(zip(names, row, strict=True)) for row in rows)
    told, lags = metadata.of_records(events, sample, ["LAB//x", "SEX//F"])
    assert told["source"].tolist() == ["a+b", "b"]
    assert told["file"].tolist() == ["sex.csv", "other.parquet"]
    assert told["record order"].tolist() == [40.0, 3.0]
    assert metadata.untimed(lags) == set()  # of two rows nobody can say
    image = {"subject_id": 7, "source": "i", "view": "AP", "rows": 9, "columns": 8}
    images = IMAGES.rows([{**image, "time": T0}, {**image, "time": moment, "view": "PA"}])
    told = metadata.of_images(images, sample)
    assert told["image view"].tolist() == ["AP", ""]
    np.testing.assert_array_equal(told["image rows"], [9.0, np.nan])
    walked = [{"subject_id": 7, "identifier": "H-0012"}, {"subject_id": 8, "identifier": "9"}]
    told = metadata.of_identifiers(CROSSWALK.rows(walked), sample)
    assert told["identifier"].tolist() == [12.0, 9.0]
    assert told["identifier prefix"].tolist() == ["H-", ""]


def test_a_code_with_times_of_its_own_is_not_without():
    sample = INDEX.rows({"subject_id": s, "prediction_time": T0 + 9 * DAY} for s in range(20))
    events = EVENTS.rows(
        {"subject_id": s, "time": time, "code": code, "source": "a", "record_id": "r"}
        for s in range(20)
        for time, code in ((T0, "AT//once"), (T0 + s * DAY / 4, "AT//times"))
    )
    parts = [
        metadata.of_records(events, sample.slice(at, 5), ["AT//once", "AT//times"])[1]
        for at in range(0, 20, 5)
    ]
    assert metadata.untimed(metadata.lagging(parts)) == {"AT//once"}


FINDINGS = [
    Finding("shortcuts", "image view", "it predicts", "why", "mend"),
    Finding("strong_feature", "LAB//x", "an AUROC", "why", "mend"),
]


def test_what_is_not_justified_is_refused_by_name():
    allowed = [
        Allowed(check="shortcuts", of="image *", because="The view is blinded in all images."),
        Allowed(check="shortcuts", of="source", because="There is one hospital only."),
    ]
    refused, excused, idle = audit.verdict(FINDINGS, allowed)
    assert refused == FINDINGS[1:] and [one.of for one in idle] == ["source"]
    assert excused[0]["of"] == "image view" and excused[0]["because"].startswith("The view")
    with pytest.raises(DataError) as told:
        audit.refuse(FINDINGS)
    for said in (
        "2 leaks",
        "shortcuts: image view: it predicts",
        "strong_feature: LAB//x",
        "allow",
    ):
        assert said in str(told.value)
    audit.refuse([])


@pytest.mark.parametrize("because", ["", "   ", "fine"])
def test_an_exception_owes_a_reason(because):
    with pytest.raises(ValueError, match="reason"):
        Allowed(check="shortcuts", of="*", because=because)


def test_an_exception_to_no_check_is_a_fault_of_the_study(tmp_path):
    from tests.hospital import STUDY

    from clinloom.run import api

    wrong = 'audit={allow: [{check: shortcut, of: x, because: "it is a blinded study"}]}'
    with pytest.raises(StudyError, match="shortcuts"):
        api.read_study(STUDY, overrides=[wrong])
