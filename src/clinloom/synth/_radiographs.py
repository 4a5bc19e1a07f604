"""Chest radiographs whose opacities show a severity, as DICOM in several transfer syntaxes.

Anatomy is drawn from ellipses: a bright mediastinum, dark lungs, ribs, a diaphragm. Opacities are
soft blobs in the lungs; their total brightness rises linearly with the severity. Tags: PS3.3 A.2
(computed radiography) and A.26 (digital X-ray); photometric interpretation C.7.6.3.1.2.
"""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import numpy as np

SIZE = 192  # rows and columns
BITS = 12
EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
RLE, JPEG2000, JPEGLS = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
)
SYNTAXES = (EXPLICIT, IMPLICIT, RLE, JPEG2000, JPEGLS, DEFLATED)
CLASSES = {"CR": "1.2.840.10008.5.1.4.1.1.1", "DX": "1.2.840.10008.5.1.4.1.1.1.1"}
BLOBS = 14

_down, _across = np.mgrid[0:SIZE, 0:SIZE] / SIZE


def _ellipse(x: float, y: float, wide: float, high: float) -> np.ndarray:
    inside = 1 - ((_across - x) / wide) ** 2 - ((_down - y) / high) ** 2
    shape: np.ndarray = np.clip(inside * 6, 0, 1)
    return shape


def draw(severity: float, generator: np.random.Generator) -> np.ndarray:
    """A radiograph, (192, 192) uint16 of 12 bits, bright where tissue is dense."""
    x, y = generator.normal(0, 0.006, 2)
    wide = 0.155 * (1 + generator.normal(0, 0.02))
    right, left = _ellipse(0.31 + x, 0.47 + y, wide, 0.31), _ellipse(0.69 + x, 0.47 + y, wide, 0.31)
    lungs = np.maximum(right, left)
    body = _ellipse(0.5 + x, 0.6 + y, 0.46, 0.62)
    ribs = 0.5 + 0.5 * np.cos(2 * np.pi * (9 * _down + 1.2 * np.abs(_across - 0.5 - x)))
    image = 250 + 2050 * body - 1350 * lungs + 130 * ribs * lungs
    image += 350 * np.exp(-(((_across - 0.5 - x) / 0.05) ** 2)) * body
    image += 250 * _ellipse(0.56 + x, 0.62 + y, 0.13, 0.15)
    haze = np.zeros_like(image)
    for _ in range(BLOBS):
        side = 0.31 if generator.random() < 0.5 else 0.69
        cx = side + x + generator.uniform(-0.09, 0.09)
        cy = 0.5 + y + generator.uniform(-0.2, 0.2)
        size = generator.uniform(0.03, 0.06)
        haze += np.exp(-(((_across - cx) ** 2 + (_down - cy) ** 2) / (2 * size**2)))
    haze *= lungs
    # the severity sets the mean brightness that all opacities add, wherever they lie
    image += haze * (95 + 34 * severity) / haze.mean()
    image = image * (1 + generator.normal(0, 0.004)) + generator.normal(0, 35, image.shape)
    pixels: np.ndarray = np.clip(np.rint(image), 0, (1 << BITS) - 1).astype(np.uint16)
    return pixels


def instance(
    pixels: np.ndarray,
    *,
    patient: str,
    uids: tuple[str, str, str],
    moment: int,
    syntax: str,
    modality: str,
    inverted: bool,
) -> bytes:
    """A DICOM file. ``uids``: study, series, SOP instance; ``moment``: seconds since 1970, UTC."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(CLASSES[modality])
    meta.MediaStorageSOPInstanceUID = UID(uids[2])
    native = syntax in (EXPLICIT, IMPLICIT, DEFLATED)
    meta.TransferSyntaxUID = UID(syntax if native else EXPLICIT)
    dataset: Any = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    taken = dt.datetime.fromtimestamp(moment, dt.UTC)
    dataset.SOPClassUID, dataset.SOPInstanceUID = UID(CLASSES[modality]), UID(uids[2])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = UID(uids[0]), UID(uids[1])
    dataset.PatientID, dataset.PatientName = patient, f"Sample^{patient}"
    dataset.Modality, dataset.BodyPartExamined = modality, "CHEST"
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{name}Date", taken.strftime("%Y%m%d"))
        setattr(dataset, f"{name}Time", taken.strftime("%H%M%S"))
    dataset.TimezoneOffsetFromUTC = "+0000"
    dataset.InstanceNumber, dataset.SeriesNumber = 1, 1
    dataset.ViewPosition = "AP"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, BITS, BITS - 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    stored = (1 << BITS) - 1 - pixels if inverted else pixels
    dataset.PixelData = stored.astype("<u2").tobytes()
    if not native:
        dataset.compress(UID(syntax), generate_instance_uid=False)
    return _written(dataset)


def pixelless(file: bytes) -> bytes:
    """The same instance without its pixels."""
    from pydicom import dcmread

    dataset = dcmread(io.BytesIO(file))
    del dataset.PixelData
    return _written(dataset)


def _written(dataset: Any) -> bytes:
    from pydicom import dcmwrite

    out = io.BytesIO()
    dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()
