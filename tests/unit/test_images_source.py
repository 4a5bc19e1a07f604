"""Images and their manifest become events, or a refusal with its reason."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from clinloom import files
from clinloom.errors import MissingDependency, SourceError
from clinloom.radiomics import measure
from clinloom.sources import images
from clinloom.spark.units import Spool
from clinloom.tables import PARCELS

Image = pytest.importorskip("PIL.Image", reason="the images extra is not installed")

COLOUR = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
GRAY = np.random.default_rng(1).integers(0, 65536, (30, 40)).astype(np.uint16)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name, pixels in {"a": COLOUR, "b": COLOUR[:20], "c": GRAY}.items():
        (tmp_path / "images" / f"{name}.png").write_bytes(png(pixels))
    (tmp_path / "manifest.csv").write_text(
        "who,image,taken,label\n007,a,2024-01-02,1\n007,b,2024-01-03T04:05:06+01:00,1\n08,c,,0\n"
    )
    return tmp_path


def options(folder: Path, **more: object) -> images.Options:
    given = {
        "path": str(folder / "images"),
        "manifest": str(folder / "manifest.csv"),
        "file": "{image}.png",
        "patient": "who",
        "modality": "xc",
        "body_part": "Upper back",
        **more,
    }
    return images.Options(**given)


def planned(chosen: images.Options) -> Iterator[images.Photo | images.Absent]:
    return images.plan(chosen, "sources.photos")


def read(chosen: images.Options) -> dict[str, pa.Table]:
    parts: dict[str, list[pa.Table]] = {}
    for parcel in images.read(list(planned(chosen)), chosen, "photos"):
        for name, table in parcel.items():
            assert table.schema == PARCELS[name].arrow
            parts.setdefault(name, []).append(table)
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def reasons(found: dict[str, pa.Table]) -> dict[str, str]:
    return {r["file"]: r["reason"] for r in found["rejected"].to_pylist()}


def measurements(found: dict[str, pa.Table], record: str) -> dict[str, float]:
    events = [e for e in found["events"].to_pylist() if e["record_id"] == record]
    return {e["code"].rsplit("//", 1)[1]: e["numeric_value"] for e in events}


def test_images_become_events_of_their_patients(folder: Path) -> None:
    found = read(options(folder, time={"at": "2024-05-06T07:08:09Z"}))
    assert found["links"].to_pylist() == [
        {"patient": "007", "other": "007"},  # an identifier keeps its zeros
        {"patient": "08", "other": "08"},
    ]
    assert measurements(found, "a") == measure(COLOUR)
    assert measurements(found, "c") == measure(GRAY)
    first = found["images"].to_pylist()[0]
    at = dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
    assert (first["time"], first["rows"], first["columns"]) == (at, 30, 40)
    assert (first["sop_uid"], first["file"], first["source"]) == ("a", "a.png", "photos")
    event = found["events"].to_pylist()[0]
    assert event["code"] == "IMAGE//XC//UPPER_BACK//firstorder_mean"
    assert event["time"] == at
    assert "rejected" not in found


def test_times_come_from_a_column(folder: Path) -> None:
    found = read(options(folder, time={"column": "taken"}))
    assert found["images"].column("time").to_pylist() == [
        dt.datetime(2024, 1, 2, 23, 59, 59, 999_999, dt.UTC),  # a day: known at its end
        dt.datetime(2024, 1, 3, 3, 5, 6, tzinfo=dt.UTC),
    ]
    assert reasons(found) == {"c.png": "no_time"}


def test_a_declared_format_binds_and_a_free_one_keeps_its_zone(folder: Path) -> None:
    (folder / "manifest.csv").write_text("who,image,taken\n1,a,02/01/2024\n2,b,soon\n3,c,\n")
    found = read(options(folder, time={"column": "taken", "format": "%d/%m/%Y"}))
    rows = {e["record_id"]: e["time"] for e in found["events"].to_pylist()}
    assert rows == {"a": dt.datetime(2024, 1, 2, 23, 59, 59, 999_999, dt.UTC)}
    assert reasons(found) == {"b.png": "invalid_date", "c.png": "no_time"}
    found = read(options(folder, time={"column": "taken", "zone": "Europe/Berlin"}))
    texts = {e["record_id"]: e["time_text"] for e in found["events"].to_pylist()}
    assert texts == {"a": "02/01/2024[Europe/Berlin]", "b": "soon[Europe/Berlin]"}


@pytest.mark.parametrize(
    ("cell", "spec"),
    [
        ("2024-07-01 12:00", {"zone": "Europe/Berlin"}),
        ("10:00", {"offset": "HH:MM", "origin": "2024-07-01"}),
        ("34", {"offset": "hours", "origin": "2024-06-30"}),
    ],
)
def test_a_manifest_takes_times_in_every_form_that_a_table_does(
    folder: Path, cell: str, spec: dict[str, str]
) -> None:
    (folder / "manifest.csv").write_text(f"who,image,taken\n1,a,{cell}\n")
    found = read(options(folder, time={"column": "taken", **spec}))
    (time,) = set(found["images"].column("time").to_pylist())
    assert time == dt.datetime(2024, 7, 1, 10, tzinfo=dt.UTC)


def test_without_a_time_images_are_static(folder: Path) -> None:
    events = read(options(folder))["events"]
    assert events.column("time").null_count == events.num_rows
    assert events.column("time_text").null_count == events.num_rows


def test_every_refusal_has_its_reason_and_spares_the_rest(folder: Path) -> None:
    place = folder / "images"
    good = png(COLOUR)
    (place / "cut.png").write_bytes(good[: len(good) // 2])
    (place / "text.png").write_bytes(b"not an image")
    (place / "other.png").write_bytes(good)
    (place / "nobody.png").write_bytes(good)
    (place / "twice.png").write_bytes(good)
    (folder / "manifest.csv").write_text(
        "who,image\n1,a\n1,a\n2,cut\n3,text\n,nobody\n4,twice\n5,twice\n6,gone\n7,\n8,b\n"
    )
    found = read(options(folder))
    assert found["images"].column("file").to_pylist() == ["a.png", "b.png"]
    assert reasons(found) == {
        "c.png": "not_in_manifest",
        "other.png": "not_in_manifest",
        "cut.png": "truncated_image",
        "text.png": "not_an_image",
        "nobody.png": "no_patient",
        "twice.png": "ambiguous_in_manifest",
        "gone.png": "absent_image",
    }


def test_modality_body_part_and_view_may_stand_in_columns(folder: Path) -> None:
    (folder / "manifest.csv").write_text(
        "who,image,kind,site,projection\n1,a,cr,Left lung,ap\n2,b,,,\n3,c,dx,chest,PA\n"
    )
    labels = {"modality": "{kind}", "body_part": "{site}", "view": "{projection}"}
    found = read(options(folder, **labels))
    rows = found["images"].select(["modality", "body_part", "view"]).to_pylist()
    assert [list(row.values()) for row in rows] == [
        ["CR", "LEFT_LUNG", "AP"],
        ["OT", "UNKNOWN", None],
        ["DX", "CHEST", "PA"],
    ]
    codes = {e["record_id"]: e["code"] for e in found["events"].to_pylist()}
    assert codes["a"].startswith("IMAGE//CR//LEFT_LUNG//")
    with pytest.raises(SourceError, match="did you mean 'kind'"):
        read(options(folder, modality="{kinds}"))


def test_rows_that_say_different_views_are_not_one(folder: Path) -> None:
    (folder / "manifest.csv").write_text("who,image,projection\n1,a,AP\n1,a,PA\n2,b,AP\n3,c,\n")
    found = read(options(folder, view="{projection}"))
    assert reasons(found) == {"a.png": "ambiguous_in_manifest"}
    assert "rejected" not in read(options(folder, view="PA"))


def test_two_files_of_one_name_belong_to_nobody(folder: Path) -> None:
    (folder / "images" / "more").mkdir()
    (folder / "images" / "more" / "a.png").write_bytes(png(COLOUR))
    found = read(options(folder))
    assert reasons(found) == {
        "a.png": "ambiguous_in_manifest",
        "more/a.png": "ambiguous_in_manifest",
    }


def test_a_name_may_hold_folders(folder: Path) -> None:
    (folder / "images" / "007").mkdir()
    (folder / "images" / "a.png").rename(folder / "images" / "007" / "a.png")
    found = read(options(folder, file="{who}/{image}.png"))
    assert found["images"].column("file").to_pylist() == ["007/a.png"]


def test_an_absent_image_is_said_once_whatever_the_groups(folder: Path) -> None:
    (folder / "images" / "b.png").unlink()
    chosen = options(folder)
    units = list(planned(chosen))
    parcels = [p for unit in units for p in images.read([unit], chosen, "photos")]
    refused = [r for p in parcels if "rejected" in p for r in p["rejected"].to_pylist()]
    assert [(r["file"], r["reason"], r["patient"]) for r in refused] == [
        ("b.png", "absent_image", "007")
    ]


def test_a_task_reads_its_own_rows_and_lists_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = "".join(f"{n},gone{n},,0\n" for n in range(5000))
    with (folder / "manifest.csv").open("a") as manifest:
        manifest.write(extra)
    chosen = options(folder)
    listings = []
    monkeypatch.setattr(
        images, "listing", lambda *a, **k: listings.append(a) or files.listing(*a, **k)
    )
    units = list(planned(chosen))
    assert len(listings) == 2 and not [u for u in units if len(u.rows) > images.ABSENT]
    kept = []
    rows = images.Manifest.rows

    def counted(self: images.Manifest, wanted: list[int]) -> dict[int, images.Row]:
        found = rows(self, wanted)
        kept.append(len(found))
        return found

    monkeypatch.setattr(images.Manifest, "rows", counted)
    parcels = [p for unit in units for p in images.read([unit], chosen, "photos")]
    assert len(listings) == 2  # a task lists nothing
    assert kept == [len(unit.rows) for unit in units]  # and keeps the rows of its own units
    assert sum(kept) == 5003 and kept[-3:] == [1, 1, 1]
    refused = [r for p in parcels if "rejected" in p for r in p["rejected"].to_pylist()]
    assert sorted(r["file"] for r in refused) == sorted(f"gone{n}.png" for n in range(5000))
    assert {r["reason"] for r in refused} == {"absent_image"}
    assert sum(p["images"].num_rows for p in parcels if "images" in p) == 3


def test_units_travel_to_workers_as_they_are(folder: Path) -> None:
    (folder / "images" / "b.png").unlink()
    units = list(planned(options(folder)))
    assert [type(u).__name__ for u in units] == ["Absent", "Absent", "Photo", "Photo"]
    spool = Spool(files.address(folder / "units"), [{"units": units}])
    assert spool.unit(0) == {"units": units}


def test_a_manifest_that_changes_changes_the_plan(folder: Path) -> None:
    before = files.fingerprint(planned(options(folder)))
    assert before == files.fingerprint(planned(options(folder)))
    text = (folder / "manifest.csv").read_text()
    (folder / "manifest.csv").write_text(text.replace("2024-01-02", "2024-01-03"))
    assert before != files.fingerprint(planned(options(folder)))


def test_rows_that_say_the_same_in_other_words_are_one(folder: Path) -> None:
    (folder / "manifest.csv").write_text(
        "who,image,taken\n1,a,2024-01-02 00:00\n 1,a,2024-01-02T00:00:00Z\n"
        "2,b,2024-01-02\n2,b,2024-01-02T00:00:00\n3,c,2024-01-02\n3,c,2024-01-02\n"
    )
    found = read(options(folder, time={"column": "taken"}))
    assert found["images"].column("file").to_pylist() == ["a.png", "c.png"]
    assert reasons(found) == {"b.png": "ambiguous_in_manifest"}


def test_names_of_several_depths_and_forms(folder: Path) -> None:
    (folder / "images" / "x").mkdir()
    (folder / "images" / "a.png").rename(folder / "images" / "x" / "a.png")
    (folder / "manifest.csv").write_text("who,image\n1,x/a\n2,b\n3,c\n")
    found = read(options(folder))
    assert found["images"].column("file").to_pylist() == ["b.png", "c.png", "x/a.png"]
    assert "rejected" not in found
    (folder / "images" / "007.png").write_bytes(png(COLOUR))
    (folder / "manifest.csv").write_text("who,image\n1,7\n")
    found = read(options(folder, file="{image:0>3}.png", include="0*"))
    assert found["images"].column("file").to_pylist() == ["007.png"]


def test_archives_parquet_manifests_and_bounded_parcels(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinloom.sources._images.measured.AT_ONCE", 2)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for file in (folder / "images").iterdir():
            archive.write(file, f"x/{file.name}")
    taken = pa.array([dt.datetime(2024, 1, 1)] * 3, pa.timestamp("us"))
    table = pa.table({"who": [1.0, 2.0, 3.0], "image": ["a", "b", "c"], "taken": taken})
    pq.write_table(table, folder / "manifest.parquet")
    chosen = options(
        folder,
        path=str(folder / "images.zip"),
        manifest=str(folder / "manifest.parquet"),
        time={"column": "taken"},
    )
    parcels = list(images.read(list(planned(chosen)), chosen, "photos"))
    assert [p["images"].num_rows for p in parcels] == [2, 1]
    rows = [row for p in parcels for row in p["images"].to_pylist()]
    assert {row["patient"] for row in rows} == {"1", "2", "3"}
    assert {row["time"] for row in rows} == {dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "YCbCr"])
def test_every_mode_is_measured(folder: Path, mode: str) -> None:
    Image.fromarray(COLOUR).convert(mode).save(folder / "images" / "a.tif")
    (folder / "manifest.csv").write_text("who,image\n1,a\n")
    found = read(options(folder, file="{image}.tif", include="*.tif"))
    assert found["images"].num_rows == 1


def test_a_manifest_among_the_images_is_not_an_image(folder: Path) -> None:
    text = (folder / "manifest.csv").read_text()
    (folder / "images" / "manifest.csv").write_text(text)
    found = read(options(folder, manifest=str(folder / "images" / "manifest.csv")))
    assert "rejected" not in found and found["images"].num_rows == 3


def test_a_wrong_column_is_named_with_the_nearest(folder: Path) -> None:
    with pytest.raises(SourceError, match="did you mean 'image'"):
        read(options(folder, file="{imagee}.png"))
    with pytest.raises(SourceError, match="no manifest"):
        read(options(folder, manifest=str(folder / "absent.csv")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"file": "image.png"},
        {"file": "{image.__class__}"},
        {"file": "{}"},
        {"file": "{image"},
        {"modality": "{kind"},
        {"body_part": "{}"},
        {"view": "{a.b}"},
        {"time": {}},
        {"time": {"column": "taken", "at": "2024-01-01"}},
    ],
)
def test_wrong_options_are_refused(folder: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        options(folder, **wrong)


def test_without_pillow_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinloom.sources.images.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"clinloom\[images\]"):
        read(options(folder))


def test_real_dermatoscopy(data: Path) -> None:
    place = data / "ham10000"
    if not place.is_dir():
        pytest.skip("ham10000 is not among the public data")
    chosen = images.Options(
        path=str(place / "images.zip"),
        manifest=str(place / "metadata.csv"),
        file="{image_id}.jpg",
        patient="lesion_id",
    )
    photos = [unit for unit in planned(chosen) if isinstance(unit, images.Photo)]
    parcels = list(images.read(photos[1:41], chosen, "photos"))
    assert sum(p["images"].num_rows for p in parcels) == 40
    assert all("rejected" not in p for p in parcels)
