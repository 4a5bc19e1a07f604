"""DICOM files become events, or a refusal with its reason; nothing fails the batch."""

from __future__ import annotations

import datetime as dt
import io
import re
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from clinloom.errors import MissingDependency, SourceError
from clinloom.files import listing
from clinloom.radiomics import measure
from clinloom.report import words
from clinloom.sources import dicom
from clinloom.tables import PARCELS

pydicom = pytest.importorskip("pydicom", reason="the dicom extra is not installed")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid  # noqa: E402

GRAY = np.arange(20 * 24, dtype=np.uint16).reshape(20, 24)


def instance(pixels: np.ndarray | None = GRAY, **tags: object) -> Dataset:
    """A small CT instance; a tag of None is left out."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    made.PatientID, made.Modality, made.BodyPartExamined = "P-1", "CT", "CHEST"
    made.AcquisitionDate, made.AcquisitionTime = "20240229", "101112.5"
    if pixels is not None:
        colour = pixels.ndim > 2 and pixels.shape[-1] == 3
        made.Rows, made.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
        made.SamplesPerPixel = 3 if colour else 1
        made.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        if colour:
            made.PlanarConfiguration = 0
        if pixels.ndim - colour == 3:
            made.NumberOfFrames = len(pixels)
        bits = pixels.dtype.itemsize * 8
        made.BitsAllocated = made.BitsStored = bits
        made.HighBit = bits - 1
        made.PixelRepresentation = int(pixels.dtype.kind == "i")
        made.PixelData = pixels.tobytes()
        made["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in tags.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def written(made: Dataset) -> bytes:
    out = io.BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()


def read(folder: Path, **options: object) -> dict[str, pa.Table]:
    chosen = dicom.Options(path=str(folder), **options)
    parts: dict[str, list[pa.Table]] = {}
    for parcel in dicom.read(list(listing(str(folder))), chosen, "scans"):
        for name, table in parcel.items():
            assert table.schema == PARCELS[name].arrow
            parts.setdefault(name, []).append(table)
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def reasons(found: dict[str, pa.Table]) -> dict[str, str]:
    return {r["file"]: r["reason"] for r in found["rejected"].to_pylist()}


def measurements(found: dict[str, pa.Table]) -> dict[str, float]:
    events = found["events"].to_pylist()
    return {e["code"].rsplit("//", 1)[1]: e["numeric_value"] for e in events}


@pytest.mark.parametrize(
    "identifiers, systems",
    [
        (None, {"HOSPITAL_A", "HOSPITAL_B", None}),
        ("mrn", {None}),  # the source's own, which the study calls mrn
        ({"HOSPITAL_A": "mrn", "": "old"}, {"mrn", "HOSPITAL_B", "old"}),
    ],
)
def test_a_patient_is_known_by_who_issued_the_number(tmp_path, identifiers, systems) -> None:
    for name, issuer in (("a", "HOSPITAL_A"), ("b", "HOSPITAL_B"), ("c", None)):
        more = {"IssuerOfPatientID": issuer} if issuer else {}
        (tmp_path / f"{name}.dcm").write_bytes(written(instance(**more)))
        (tmp_path / f"{name}2.dcm").write_bytes(written(instance(None, **more)))
    chosen = dicom.Options(path=str(tmp_path), identifiers=identifiers)
    [parcel] = dicom.read(list(listing(str(tmp_path))), chosen, "scans")
    for name in ("events", "images", "links", "rejected"):
        told = [row.get("system") for row in parcel[name].to_pylist()]
        assert set(told) == systems, name
    assert chosen.own_system == (identifiers if isinstance(identifiers, str) else None)


def test_an_instance_becomes_events_an_image_and_a_patient(tmp_path: Path) -> None:
    made = instance()
    (tmp_path / "a.dcm").write_bytes(written(made))
    found = read(tmp_path)
    assert found["links"].to_pylist() == [{"patient": "P-1", "other": "P-1"}]
    (image,) = found["images"].to_pylist()
    at = dt.datetime(2024, 2, 29, 10, 11, 12, 500_000, tzinfo=dt.UTC)
    assert image == {
        "patient": "P-1",
        "study_uid": "1.2.3",
        "series_uid": "1.2.3.4",
        "sop_uid": made.SOPInstanceUID,
        "modality": "CT",
        "body_part": "CHEST",
        "view": None,
        "laterality": None,
        "manufacturer": None,
        "burned_in": None,
        "content": "image",
        "quantity": None,
        "time": at,
        "rows": 20,
        "columns": 24,
        "file": "a.dcm",
        "source": "scans",
    }
    assert measurements(found) == measure(GRAY)
    events = found["events"]
    assert all(c.startswith("IMAGE//CT//CHEST//") for c in events.column("code").to_pylist())
    assert set(events.column("time").to_pylist()) == {at}
    assert set(events.column("record_id").to_pylist()) == {made.SOPInstanceUID}
    assert "rejected" not in found


def test_every_refusal_has_its_reason_and_spares_the_rest(tmp_path: Path) -> None:
    sound = written(instance())
    contour = instance(None, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")  # RT Structure Set
    contour.file_meta.MediaStorageSOPClassUID = contour.SOPClassUID
    files = {
        "sound.dcm": sound,
        "short.dcm": sound[:-100],
        "shorter.dcm": sound[: -GRAY.nbytes],
        "header.dcm": sound[: sound.index(b"CHEST") + 2],
        "preamble.dcm": sound[:140],
        "none.dcm": written(instance(None, Rows=20, Columns=24)),
        "parted.dcm": written(instance(PixelData=b"")),
        "contour.dcm": written(contour),
        "nobody.dcm": written(instance(PatientID=None)),
        "blank.dcm": written(instance(PatientID="")),
        "undated.dcm": written(instance(AcquisitionDate=None, AcquisitionTime=None)),
        "shapeless.dcm": written(instance(Rows=None)),
        "empty.dcm": b"",
        "notes.txt": b"a letter, not an image" * 30,
        "noise.dcm": np.random.default_rng(0).bytes(5000),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = read(tmp_path)
    assert found["images"].column("file").to_pylist() == ["sound.dcm"]
    refused = reasons(found)
    assert refused.pop("shapeless.dcm") in ("unreadable_dicom", "truncated_dicom")
    assert refused == {
        "short.dcm": "truncated_dicom",
        "shorter.dcm": "truncated_dicom",
        "header.dcm": "truncated_dicom",
        "preamble.dcm": "truncated_dicom",
        "none.dcm": "pixelless_dicom",
        "parted.dcm": "pixelless_dicom",
        "contour.dcm": "pixelless_dicom",
        "nobody.dcm": "no_patient",
        "blank.dcm": "no_patient",
        "undated.dcm": "no_time",
        "empty.dcm": "not_dicom",
        "notes.txt": "not_dicom",
        "noise.dcm": "not_dicom",
    }
    known = {r["file"]: r["patient"] for r in found["rejected"].to_pylist()}
    assert known["short.dcm"] == known["undated.dcm"] == "P-1"
    assert set(found["rejected"].column("stage").to_pylist()) == {"acquire"}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97])
def test_a_truncated_compressed_file_is_not_called_pixelless(tmp_path: Path, share: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16)
    made = instance(pixels)
    made.compress(RLELossless, encoding_plugin="pydicom")
    data = written(made)
    (tmp_path / "a.dcm").write_bytes(data[: int(len(data) * share)])
    assert reasons(read(tmp_path)) == {"a.dcm": "truncated_dicom"}


def test_compression_changes_nothing(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16)
    made = instance(pixels)
    made.compress(RLELossless, encoding_plugin="pydicom")
    (tmp_path / "a.dcm").write_bytes(written(made))
    assert measurements(read(tmp_path)) == measure(pixels)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, GRAY.astype(int) - 1024),
        ({"RescaleSlope": "0.5", "RescaleIntercept": "3"}, GRAY * 0.5 + 3),
        ({"PhotometricInterpretation": "MONOCHROME1"}, 65535 - GRAY.astype(int)),
        (
            {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11},
            4095 - GRAY.astype(int),
        ),
    ],
)
def test_intensities_are_rescaled_and_monochrome1_inverted(
    tmp_path: Path, tags: dict[str, object], expected: np.ndarray
) -> None:
    (tmp_path / "a.dcm").write_bytes(written(instance(**tags)))
    assert measurements(read(tmp_path)) == pytest.approx(measure(expected))


def test_hounsfield_numbers_have_no_colour(tmp_path: Path) -> None:
    """A unit is a quantity: it is rescaled, and how a screen shows it does not turn it round."""
    made = instance(PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=-1024)
    (tmp_path / "a.dcm").write_bytes(written(made))
    assert measurements(read(tmp_path)) == measure(GRAY * 2.0 - 1024)


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_modality_lut_is_applied_before_the_inversion(
    tmp_path: Path, photometric: str, vr: str
) -> None:
    table = np.arange(400, dtype=np.uint16) ** 2 // 40  # not linear: the order matters
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType = [400, 10, 12], "US"
    lut.LUTData = table.tolist() if vr == "US" else table.tobytes()
    made = instance(
        PhotometricInterpretation=photometric, ModalityLUTSequence=Sequence([lut]), Modality="DX"
    )
    made.ModalityLUTSequence[0]["LUTDescriptor"].VR = "US"
    made.ModalityLUTSequence[0]["LUTData"].VR = vr
    (tmp_path / "a.dcm").write_bytes(written(made))
    expected = table[np.clip(GRAY.astype(int) - 10, 0, 399)].astype(int)
    expected = 4095 - expected if photometric == "MONOCHROME1" else expected
    assert measurements(read(tmp_path)) == pytest.approx(measure(expected))


@pytest.mark.parametrize(
    ("tags", "padding"),
    [
        ({"PixelPaddingValue": 7}, [7]),
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 40}, range(41)),
        ({"PixelPaddingValue": 40, "PixelPaddingRangeLimit": 0}, range(41)),
    ],
)
def test_padding_is_not_the_patient(
    tmp_path: Path, tags: dict[str, object], padding: list[int]
) -> None:
    made = instance(RescaleSlope=1, RescaleIntercept=-1024, **tags)
    (tmp_path / "a.dcm").write_bytes(written(made))
    expected = measure(GRAY.astype(int) - 1024, mask=~np.isin(GRAY, list(padding)))
    assert measurements(read(tmp_path)) == pytest.approx(expected)


def test_padding_of_signed_pixels_may_be_written_without_its_sign(tmp_path: Path) -> None:
    pixels = GRAY.astype(np.int16) - 100
    pixels[:5] = -2000
    made = instance(pixels, PixelPaddingValue=-2000)
    made["PixelPaddingValue"].VR = "SS"
    data = written(made).replace(b"\x28\0\x20\x01SS", b"\x28\0\x20\x01US")
    (tmp_path / "a.dcm").write_bytes(data)
    assert measurements(read(tmp_path)) == measure(pixels[5:]) | {
        name: value
        for name, value in measure(pixels, mask=pixels != -2000).items()
        if "gradient" in name or name.startswith("coarse")
    }


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_stored_bits_are_found_where_the_header_says(
    tmp_path: Path, signed: bool, compressed: bool
) -> None:
    """12 bits in the upper part of 16, beside bits that are an overlay's."""
    values = GRAY.astype(np.int16) * 4 - (1000 if signed else 0)
    words = (values << 4) | (GRAY.astype(np.int16) & 15)
    made = instance(words.astype(np.int16 if signed else np.uint16), BitsStored=12, HighBit=15)
    if compressed:
        made.compress(RLELossless, encoding_plugin="pydicom")
    (tmp_path / "a.dcm").write_bytes(written(made))
    assert measurements(read(tmp_path)) == measure(values)


@pytest.mark.parametrize(
    ("tags", "kind", "unit"),
    [
        ({"RescaleSlope": 1, "RescaleIntercept": -1024}, "CT", "[hnsf'U]"),
        ({"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"}, "CT", None),
        (
            {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "OD"},
            "CT_OD",
            "{optical_density}",
        ),
        ({"Modality": "PT", "Units": "GML"}, "PT", "g/mL"),
        ({"Modality": "PT", "Units": "GML", "SUVType": "BW"}, "PT", "g/mL"),
        ({"Modality": "PT", "Units": "GML", "SUVType": "LBM"}, "PT_GML_LBM", "{GML_LBM}"),
        ({"Modality": "PT", "Units": "BQML"}, "PT_BQML", "Bq/mL"),
        ({"Modality": "MR"}, "MR", None),
    ],
)
def test_units_are_told_and_never_share_a_code(
    tmp_path: Path, tags: dict[str, object], kind: str, unit: str | None
) -> None:
    (tmp_path / "a.dcm").write_bytes(written(instance(**tags)))
    events = read(tmp_path)["events"].to_pylist()
    assert {e["code"].rsplit("//", 1)[0] for e in events} == {f"IMAGE//{kind}//CHEST"}
    units = {e["code"].rsplit("//", 1)[1]: e["unit"] for e in events}
    assert units["firstorder_mean"] == units["firstorder_percentile_90"] == unit
    assert units["firstorder_entropy"] is None and units["firstorder_variance"] is None


def test_what_is_no_picture_of_the_patient_is_catalogued_and_not_measured(tmp_path: Path) -> None:
    storage = "1.2.840.10008.5.1.4.1.1."
    kinds = {
        "segmentation": instance(SOPClassUID=f"{storage}66.4"),
        "dose": instance(SOPClassUID=f"{storage}481.2", DoseGridScaling="1E-5"),
        "report": instance(None, SOPClassUID=f"{storage}88.11"),
        "localizer": instance(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "image": instance(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"]),
    }
    for name, made in kinds.items():
        made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
        (tmp_path / f"{name}.dcm").write_bytes(written(made))
    found = read(tmp_path)
    rows = {row["file"].removesuffix(".dcm"): row for row in found["images"].to_pylist()}
    assert {name: row["content"] for name, row in rows.items()} == {n: n for n in kinds}
    assert rows["report"]["rows"] is None and rows["dose"]["rows"] == 20
    assert set(found["events"].column("record_id").to_pylist()) == {kinds["image"].SOPInstanceUID}
    assert "rejected" not in found


def test_what_an_audit_asks_of_an_image_stands_beside_it(tmp_path: Path) -> None:
    tags = {"ViewPosition": "AP", "ImageLaterality": "L", "Laterality": "R", "Manufacturer": "ACME"}
    (tmp_path / "a.dcm").write_bytes(written(instance(**tags, BurnedInAnnotation="YES")))
    (tmp_path / "b.dcm").write_bytes(written(instance(Laterality="R", BurnedInAnnotation="NO")))
    (tmp_path / "c.dcm").write_bytes(written(instance()))
    names = ["view", "laterality", "manufacturer", "burned_in"]
    rows = read(tmp_path)["images"].select(names).to_pylist()
    assert [list(row.values()) for row in rows] == [
        ["AP", "L", "ACME", True],
        [None, "R", None, False],
        [None, None, None, None],
    ]


def test_signed_monochrome1_is_inverted_within_its_range(tmp_path: Path) -> None:
    pixels = (GRAY.astype(np.int16) - 200) * 100
    made = instance(pixels, PhotometricInterpretation="MONOCHROME1")
    (tmp_path / "a.dcm").write_bytes(written(made))
    assert measurements(read(tmp_path)) == measure(-1 - pixels.astype(int))


def test_colour_of_16_bits_keeps_its_upper_8(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (30, 30, 3)).astype(np.uint16)
    (tmp_path / "a.dcm").write_bytes(written(instance(pixels)))
    assert measurements(read(tmp_path)) == measure((pixels >> 8).astype(np.uint8))


def test_frames_are_measured_one_by_one_and_averaged(tmp_path: Path) -> None:
    frames = np.stack([GRAY, GRAY * 3, GRAY // 2])
    (tmp_path / "a.dcm").write_bytes(written(instance(frames)))
    found = read(tmp_path)
    each = [measure(frame) for frame in frames]
    mean = {name: np.mean([m[name] for m in each]) for name in each[0]}
    assert measurements(found) == pytest.approx(mean)
    assert found["images"].num_rows == 1


def test_a_frame_has_its_own_rescale(tmp_path: Path) -> None:
    def group(slope: float) -> Dataset:
        rescale, item = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, 0
        item.PixelValueTransformationSequence = Sequence([rescale])
        return item

    groups = Sequence([group(2), group(4)])
    made = instance(np.stack([GRAY, GRAY]), PerFrameFunctionalGroupsSequence=groups)
    (tmp_path / "a.dcm").write_bytes(written(made))
    assert measurements(read(tmp_path))["firstorder_mean"] == pytest.approx(GRAY.mean() * 3)


UNDATED: dict[str, object] = {"AcquisitionDate": None, "AcquisitionTime": None}


def at(level: str, date: str, time: str | None) -> dict[str, object]:
    """A level's date and time."""
    return {f"{level}Date": date} | ({f"{level}Time": time} if time else {})


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"AcquisitionDateTime": "20240301120000.25"}, "2024-03-01T12:00:00.250000"),
        ({"AcquisitionDateTime": "20240301120000+0200"}, "2024-03-01T10:00:00"),
        ({"TimezoneOffsetFromUTC": "-0530"}, "2024-02-29T15:41:12.500000"),
        ({"AcquisitionTime": "1011"}, "2024-02-29T10:11:00"),
        # a date alone is known when it ends; what another level tells is another's
        ({"AcquisitionTime": None}, "2024-02-29T23:59:59.999999"),
        (
            {"AcquisitionTime": None, "StudyDate": "20240228", "StudyTime": "235960"},
            "2024-02-29T23:59:59.999999",
        ),
        ({"AcquisitionTime": None, "StudyTime": "0800"}, "2024-02-29T23:59:59.999999"),
        (
            {"AcquisitionTime": None, "TimezoneOffsetFromUTC": "-0500"},
            "2024-03-01T04:59:59.999999",
        ),
        ({"AcquisitionDateTime": "202402"}, "2024-02-29T10:11:12.500000"),
        ({**UNDATED, "AcquisitionDateTime": "202402"}, "2024-02-29T23:59:59.999999"),
        ({**UNDATED, "AcquisitionDateTime": "2023"}, "2023-12-31T23:59:59.999999"),
        ({**UNDATED, **at("Study", "20240228", "235960")}, "2024-02-28T23:59:59"),
        ({**UNDATED, **at("Series", "20231231", "08")}, "2023-12-31T08:00:00"),
        (
            {**UNDATED, **at("Series", "20231231", "08"), **at("Study", "20231230", "07")},
            "2023-12-31T08:00:00",
        ),
        # what was reprocessed years later is as old as its series
        (
            {**UNDATED, **at("Content", "20190101", "09"), **at("Series", "20010203", "08")},
            "2001-02-03T08:00:00",
        ),
        (
            {**UNDATED, **at("Content", "20010203", "09"), **at("Series", "20010203", None)},
            "2001-02-03T09:00:00",
        ),
        ({**UNDATED, **at("Content", "20190101", "09")}, "2019-01-01T09:00:00"),
        (
            {
                **UNDATED,
                **at("InstanceCreation", "20200101", "09"),
                **at("Study", "20010203", None),
            },
            "2001-02-03T23:59:59.999999",
        ),
        ({**UNDATED, **at("InstanceCreation", "20200101", "09")}, "2020-01-01T09:00:00"),
        # a year that stands for none is no time
        ({"AcquisitionDate": "19000101", **at("Study", "20010203", "08")}, "2001-02-03T08:00:00"),
    ],
)
def test_the_time_of_acquisition(tmp_path: Path, tags: dict[str, object], expected: str) -> None:
    (tmp_path / "a.dcm").write_bytes(written(instance(**tags)))
    (time,) = read(tmp_path)["images"].column("time").to_pylist()
    assert time == dt.datetime.fromisoformat(expected).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("tags", "hour"),
    [({}, 10), ({"TimezoneOffsetFromUTC": "-0500"}, 17)],
)
def test_a_local_time_is_of_the_sources_zone_unless_the_image_tells_its_own(
    tmp_path: Path, tags: dict[str, object], hour: int
) -> None:
    made = instance(AcquisitionDateTime="20240701120000", **tags)
    (tmp_path / "a.dcm").write_bytes(written(made))
    (time,) = read(tmp_path, zone="Europe/Berlin")["images"].column("time").to_pylist()
    assert time == dt.datetime(2024, 7, 1, hour, tzinfo=dt.UTC)


def test_a_time_of_day_that_cannot_be_leaves_its_date(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(written(instance()).replace(b"101112.5", b"256112.5"))
    (time,) = read(tmp_path)["images"].column("time").to_pylist()
    assert time == dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=dt.UTC)


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin"])
def test_a_date_alone_ends_in_its_zone_on_days_of_23_hours_too(tmp_path: Path, zone: str) -> None:
    day = {"America/New_York": "20240310", "Europe/Berlin": "20240331"}[zone]
    (tmp_path / "a.dcm").write_bytes(
        written(instance(AcquisitionDate=day, AcquisitionTime=None)),
    )
    (time,) = read(tmp_path, zone=zone)["images"].column("time").to_pylist()
    local = time.astimezone(ZoneInfo(zone))
    assert local.strftime("%Y%m%d %H%M%S.%f") == f"{day} 235959.999999"


@pytest.mark.parametrize("year", ["1900", "2999", "0001"])
def test_a_year_that_cannot_be_is_refused(tmp_path: Path, year: str) -> None:
    (tmp_path / "a.dcm").write_bytes(written(instance(AcquisitionDate=f"{year}0101")))
    (tmp_path / "b.dcm").write_bytes(written(instance()))
    found = read(tmp_path, undated="static")
    assert reasons(found) == {"a.dcm": "implausible_time"}
    assert found["images"].column("file").to_pylist() == ["b.dcm"]


def test_an_image_is_known_when_the_archive_shows_it(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(written(instance()))
    found = read(tmp_path, available_after="15m")
    (time,) = found["images"].column("time").to_pylist()
    assert time == dt.datetime(2024, 2, 29, 10, 26, 12, 500_000, tzinfo=dt.UTC)
    assert set(found["events"].column("time").to_pylist()) == {time}
    data = written(instance(AcquisitionTime=None)).replace(b"20240229", b"29022024")
    (tmp_path / "a.dcm").write_bytes(data)  # the cleaning would read it without the delay
    assert reasons(read(tmp_path, available_after="15m")) == {"a.dcm": "invalid_date"}


def test_a_time_that_is_not_understood_is_left_to_the_cleaning(tmp_path: Path) -> None:
    made = instance(AcquisitionTime=None)
    data = written(made).replace(b"20240229", b"29022024")
    (tmp_path / "a.dcm").write_bytes(data)
    events = read(tmp_path)["events"]
    assert set(events.column("time_text").to_pylist()) == {"29022024"}
    assert events.column("time").null_count == events.num_rows


def test_an_undated_image_can_be_taken_as_static(tmp_path: Path) -> None:
    made = instance(AcquisitionDate=None, AcquisitionTime=None)
    (tmp_path / "a.dcm").write_bytes(written(made))
    events = read(tmp_path, undated="static")["events"]
    assert events.column("time").null_count == events.num_rows > 0


def test_a_file_without_preamble_is_read(tmp_path: Path) -> None:
    data = written(instance())
    start = data.index(b"\x08\x00\x16\x00UI")
    (tmp_path / "a.dcm").write_bytes(data[start:])
    assert measurements(read(tmp_path)) == measure(GRAY)


def test_archives_are_folders_and_parcels_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clinloom.sources._images.measured.AT_ONCE", 2)
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"x/{number}.dcm", written(instance(PatientID=f"P-{number % 2}")))
    found = list(listing(str(tmp_path)))
    parcels = list(dicom.read(found, dicom.Options(path=str(tmp_path)), "scans"))
    assert [p["images"].num_rows for p in parcels] == [2, 2, 1]
    assert parcels[0]["images"].column("file").to_pylist()[0] == "scans.zip!/x/0.dcm"


def test_an_archive_that_cannot_be_opened_costs_itself(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sound.zip", "w") as archive:
        archive.writestr("a.dcm", written(instance()))
    whole = (tmp_path / "sound.zip").read_bytes()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "broken.zip").write_bytes(whole[:-30])
    found = read(tmp_path, include="*.dcm")
    assert found["images"].column("file").to_pylist() == ["sound.zip!/a.dcm"]
    assert reasons(read(tmp_path)) == {"more/broken.zip": "unreadable_file"}
    with pytest.raises(SourceError, match="broken.zip"):
        read(tmp_path / "more" / "broken.zip")


WIDE = ("JPEG-lossy.dcm", "JPGExtended.dcm")  # JPEG of 12 bits


@pytest.fixture
def extended() -> bytes:
    file = Path(pydicom.__file__).parent / "data" / "test_files" / WIDE[0]
    if not file.is_file():
        pytest.skip("this pydicom ships no test files")
    made = pydicom.dcmread(file)
    made.PatientID, made.StudyDate, made.StudyTime = "P-1", "20240229", "1000"
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    return written(made)


def test_jpeg_of_12_bits_is_read_by_the_extra(tmp_path: Path, extended: bytes) -> None:
    pytest.importorskip("imagecodecs", reason="the dicom extra's decoders are not all installed")
    (tmp_path / "a.dcm").write_bytes(extended)
    found = measurements(read(tmp_path))
    assert found["firstorder_maximum"] == 264 and found["firstorder_minimum"] == 0


def test_a_decoder_that_is_not_installed_is_called_missing(
    monkeypatch: pytest.MonkeyPatch, extended: bytes
) -> None:
    from clinloom.sources._images import instance as kernel
    from clinloom.sources._images import pixels

    monkeypatch.setattr(pixels, "_installed", lambda written: {"gdcm", "pylibjpeg", "pillow"})
    told = {"zone": "UTC", "undated": "reject", "after": 0}
    *_, last = kernel.examine(extended, told)
    assert last == {"refused": "decoder_missing"}
    assert "pip install 'clinloom[dicom]'" in words.rule("decoder_missing")


def test_every_reason_of_refusal_has_words_in_the_report() -> None:
    told = set(re.findall(r"``(\w+)``", dicom.read.__doc__ or "")) - {"rejected"}
    assert {"decoder_missing", "decoder_hung", "implausible_time"} <= told <= set(words.RULES)


def test_nothing_is_printed_or_warned(
    tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    made = instance()
    data = written(made).replace(b"20240229", b"CANARY77")
    (tmp_path / "a.dcm").write_bytes(data)
    (tmp_path / "b.dcm").write_bytes(data[:-9])
    read(tmp_path)
    out = capfd.readouterr()
    assert not out.out and not out.err and "CANARY77" not in caplog.text


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clinloom.sources.dicom.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"clinloom\[dicom\]"):
        next(dicom.read([], dicom.Options(path="."), "scans"))


def test_pydicoms_own_files_are_measured_or_refused() -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    if not folder.is_dir():
        pytest.skip("this pydicom ships no test files")
    pytest.importorskip("pylibjpeg", reason="the dicom extra's decoders are not installed")
    found = read(folder)
    count = Counter(found["rejected"].column("reason").to_pylist())
    assert found["images"].num_rows + sum(count.values()) == len(list(listing(str(folder))))
    assert found["images"].num_rows >= 50
    refused = reasons(found)
    assert refused["MR_truncated.dcm"] == "truncated_dicom"
    assert refused["rtplan.dcm"] == "pixelless_dicom"
    assert count["undecodable_dicom"] <= 2  # one that is broken
    wide = {refused.get(name, "measured") for name in WIDE}
    assert wide == {"measured" if find_spec("imagecodecs") else "decoder_missing"}


def test_real_positron_emission_slices(data: Path) -> None:
    """Already in SUV: the stored values times the rescale slope, and nothing more."""
    archive = data / "sts_pet" / "dicom.zip"
    if not archive.is_file():
        pytest.skip("sts_pet is not among the public data")
    pieces = [p for p in listing(str(archive)) if "STS_001" in p.name]
    options = dicom.Options(path=str(archive))
    parcels = list(dicom.read(pieces, options, "scans"))
    images = pa.concat_tables([p["images"] for p in parcels if "images" in p])
    events = pa.concat_tables([p["events"] for p in parcels if "events" in p]).to_pylist()
    refused = pa.concat_tables([p["rejected"] for p in parcels if "rejected" in p])
    assert images.num_rows == 59
    assert refused.column("reason").to_pylist() == ["pixelless_dicom"]  # its RTSTRUCT
    code = "IMAGE//PT//EXTREMITY//firstorder_maximum"
    largest = max(e["numeric_value"] for e in events if e["code"] == code)
    assert 3 < largest < 40
