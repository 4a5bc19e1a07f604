"""A patient's image features are one image's, however many slices and views share its moment."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv

from clinloom import features
from clinloom.clean import clean
from clinloom.features import Feature
from clinloom.tables import ACQUIRED, EVENTS, INDEX, conform

NOON = dt.datetime(2024, 3, 5, 12, tzinfo=dt.UTC)
NAMES = ["mean", "range", "contrast"]


def acquired(images: dict[str, tuple[dt.datetime, list[float | None]]]) -> pa.Table:
    """The measurements of one patient's images, sorted as cleaning gives them."""
    rows = [
        {
            "subject_id": 1,
            "time": time,
            "code": f"IMAGE//DX//CHEST//{name}",
            "numeric_value": value,
            "source": "scans",
            "record_id": record,
        }
        for record, (time, values) in images.items()
        for name, value in zip(NAMES, values, strict=True)
        if value is not None
    ]
    rows.sort(key=lambda r: (r["time"], r["code"], r["numeric_value"]))
    return ACQUIRED.rows(rows)


def computed(
    events: pa.Table, *, statistic: str = "last", window: str = "all", at: dt.datetime | None = None
) -> list[float]:
    index = [{"subject_id": 1, "prediction_time": at or NOON + dt.timedelta(days=9)}]
    listed = [
        Feature.named(f"imaging|IMAGE//DX//CHEST//{name}|{statistic}|{window}", modality="images")
        for name in NAMES
    ]
    found = features.compute(conform(events, EVENTS), INDEX.rows(index), listed)
    return found.column("values")[0].as_py()


def test_the_views_of_one_moment_are_not_mixed() -> None:
    views = {"frontal": (NOON, [1.0, 30.0, 2.0]), "lateral": (NOON, [3.0, 10.0, 1.0])}
    assert computed(acquired(views)) == [3.0, 10.0, 1.0]  # the last by its name, and whole
    later = NOON + dt.timedelta(hours=1)
    assert computed(acquired({**views, "anew": (later, [2.0, 20.0, 5.0])})) == [2.0, 20.0, 5.0]


def test_what_the_latest_image_lacks_is_no_other_images() -> None:
    before = NOON - dt.timedelta(days=1)
    views = {"old": (before, [1.0, 30.0, 2.0]), "new": (NOON, [3.0, None, 1.0])}
    found = computed(acquired(views))
    assert found[0] == 3.0 and np.isnan(found[1]) and found[2] == 1.0
    assert computed(acquired(views), statistic="max") == [3.0, 30.0, 2.0]  # asked for: over images
    assert computed(acquired(views), statistic="mean") == [2.0, 30.0, 1.5]


def test_a_wider_window_takes_the_latest_image_too() -> None:
    before = NOON - dt.timedelta(days=30)
    views = {"old": (before, [1.0, 30.0, 2.0]), "new": (NOON, [3.0, None, 1.0])}
    at = NOON + dt.timedelta(hours=1)
    narrow = computed(acquired(views), window="48h", at=at)
    wide = computed(acquired(views), window="60d", at=at)
    np.testing.assert_array_equal(narrow, wide)
    late = NOON + dt.timedelta(days=20)
    assert np.isnan(computed(acquired(views), window="48h", at=late)).all()


def test_images_of_two_sources_with_one_name_are_two() -> None:
    views = acquired({"1": (NOON, [1.0, 30.0, 2.0])})
    other = acquired({"1": (NOON, [3.0, 10.0, 1.0])})
    place = other.schema.get_field_index("source")
    other = other.set_column(place, "source", pa.array(["zoo"] * other.num_rows))
    both = pa.concat_tables([views, other]).sort_by("code")
    assert computed(both) == [3.0, 10.0, 1.0]


def test_cleaning_keeps_the_equal_measurements_of_two_images_and_not_of_one_told_twice() -> None:
    views = acquired({"a": (NOON, [1.0, 30.0, 2.0]), "b": (NOON, [1.0, 10.0, 2.0])})
    twice = pa.concat_tables([views, views])
    assert clean(twice, {})["events"].num_rows == 6
    ledger = clean(twice, {})["ledger"].to_pylist()
    assert sum(row["count"] for row in ledger if row["rule"] == "duplicate") == 6


def of_one_image(parcels: list[dict[str, pa.Table]], patient: str) -> tuple[int, int]:
    """Of how many images a patient's measurements are, and how many images have all its features.

    The facts are cleaned first, and none may be lost by it.
    """
    found = pa.concat_tables([p["events"] for p in parcels if "events" in p])
    found = found.filter(pc.equal(found.column("patient"), patient))
    events = found.drop_columns(["patient"]).append_column(
        "subject_id", pa.array(np.ones(found.num_rows, np.int64))
    )
    made = clean(conform(events, ACQUIRED), {})
    assert made["events"].num_rows == found.num_rows
    codes = sorted(set(found.column("code").to_pylist()))
    listed = [Feature.named(f"imaging|{code}|last|all", modality="images") for code in codes]
    last = max(found.column("time").to_pylist())
    index = INDEX.rows([{"subject_id": 1, "prediction_time": last + dt.timedelta(days=1)}])
    values = features.compute(made["events"], index, listed).column("values")[0].as_py()
    rows = found.select(["record_id", "code", "numeric_value"]).to_pylist()
    of = {(r["record_id"], r["code"]): r["numeric_value"] for r in rows}
    images = {r["record_id"] for r in rows}
    pairs = list(zip(codes, values, strict=True))
    whole = [image for image in images if all(of.get((image, c)) == v for c, v in pairs)]
    return len(images), len(whole)


def test_every_feature_of_real_slices_is_of_one_slice(data: Path) -> None:
    archive = data / "sts_pet" / "dicom.zip"
    if not archive.is_file():
        pytest.skip("sts_pet is not among the public data")
    pytest.importorskip("pydicom", reason="the dicom extra is not installed")
    from clinloom.files import listing
    from clinloom.sources import dicom

    pieces = [p for p in listing(str(archive)) if "STS_001" in p.name]
    parcels = list(dicom.read(pieces, dicom.Options(path=str(archive)), "scans"))
    patient = next(p for p in parcels if "events" in p)["events"].column("patient")[0].as_py()
    assert of_one_image(parcels, patient) == (59, 1)


def test_every_feature_of_several_real_radiographs_is_of_one(data: Path) -> None:
    place = data / "covid_hannover"
    if not place.is_dir():
        pytest.skip("covid_hannover is not among the public data")
    pytest.importorskip("PIL", reason="the images extra is not installed")
    from clinloom.sources import images

    options = images.Options(
        path=str(place / "png.zip"),
        manifest=str(place / "data.csv"),
        file="{image_id}.png",
        patient="patient_id",
        time={"at": NOON},
        modality="{modality}",
        body_part="CHEST",
        view="{projection}",
    )
    table = csv.read_csv(place / "data.csv").select(["patient_id", "image_id"]).to_pylist()
    names: dict[str, list[str]] = {}
    for row in table:
        names.setdefault(row["patient_id"], []).append(f"{row['image_id']}.png")
    patient = next(who for who, several in names.items() if 4 <= len(several) <= 8)
    units = [
        u
        for u in images.plan(options, "sources.cxr")
        if u.name.rsplit("/", 1)[-1] in names[patient]
    ]
    parcels = list(images.read(units, options, "cxr"))
    rows = pa.concat_tables([p["images"] for p in parcels]).to_pylist()
    assert {row["modality"] for row in rows} <= {"CR", "DX"}
    assert {row["view"] for row in rows} <= {"AP", "PA"}
    several, whole = of_one_image(parcels, patient)
    kinds = {row["modality"] for row in rows}
    assert several == len(names[patient]) and whole == (1 if len(kinds) == 1 else 0)
