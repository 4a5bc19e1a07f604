"""A DICOM instance's pixels, as they are meant, and their measurements.

Pixel data: DICOM PS3.3 C.7.6.3, PS3.5 section 8 and annex A.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clinloom.radiomics import measure
from clinloom.sources._images.header import NATIVE, Refused, syntax

_JPEG = "1.2.840.10008.1.2.4."
# The fastest plug-in that is right, then the others: pydicom's own order differs by version.
DECODERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((f"{_JPEG}50", f"{_JPEG}51"), ("gdcm", "pylibjpeg", "pillow")),
    **dict.fromkeys((f"{_JPEG}57", f"{_JPEG}70"), ("gdcm", "pylibjpeg")),
    **dict.fromkeys((f"{_JPEG}80", f"{_JPEG}81"), ("pyjpegls", "gdcm", "pylibjpeg")),
    **dict.fromkeys((f"{_JPEG}90", f"{_JPEG}91"), ("gdcm", "pylibjpeg", "pillow")),
    **dict.fromkeys((f"{_JPEG}201", f"{_JPEG}202", f"{_JPEG}203"), ("pylibjpeg",)),
    "1.2.840.10008.1.2.5": ("pylibjpeg", "gdcm", "pydicom"),
}


def measurements(dataset: Any) -> dict[str, float]:
    """The instance's measurements; of a multi-frame one, the mean over its frames."""
    written = syntax(dataset)
    if written in NATIVE:
        return _over_frames(dataset, "")
    from pydicom.pixels.decoders.base import get_decoder

    try:
        installed = get_decoder(written).available_plugins
    except NotImplementedError:
        installed = ()
    plugins = [name for name in DECODERS.get(written, ()) if name in installed]
    if not plugins:
        raise Refused("unsupported_transfer_syntax")
    if "gdcm" in plugins:
        _hush_gdcm()
    for plugin in plugins:
        try:
            return _over_frames(dataset, plugin)
        except Refused:
            continue
    raise Refused("undecodable_dicom")


def _hush_gdcm() -> None:
    import gdcm

    for stream in ("Debug", "Warning", "Error"):
        getattr(gdcm.Trace, f"{stream}Off")()


def _over_frames(dataset: Any, plugin: str) -> dict[str, float]:
    from pydicom.pixels.utils import iter_pixels

    total: dict[str, float] = {}
    count = 0
    frames = iter_pixels(dataset, decoding_plugin=plugin)
    while True:
        try:
            stored = next(frames, None)
        except MemoryError:
            raise
        except BaseException:  # a decoder may fail in any way; a panic of Rust is no Exception
            raise Refused("undecodable_dicom") from None
        if stored is None:
            break
        found = measure(_intensities(stored, dataset, count))
        total = {name: total.get(name, 0.0) + value for name, value in found.items()}
        count += 1
    if not count:
        raise Refused("undecodable_dicom")
    return {name: value / count for name, value in total.items()}


def _intensities(stored: np.ndarray, dataset: Any, frame: int) -> np.ndarray:
    """A frame as it is meant: RGB (H, W, 3) uint8, or gray in the unit of the rescale.

    MONOCHROME1 is inverted within the range of the stored values, then the rescale slope and
    intercept apply (PS3.3 C.11.1). Colour of more than 8 bits keeps its upper 8.
    """
    photometric = str(dataset.PhotometricInterpretation)
    bits = int(dataset.get("BitsStored", 8))
    if photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = apply_color_lut(stored, dataset)
        bits = stored.dtype.itemsize * 8
    if stored.ndim == 3:
        return stored if bits <= 8 else (stored >> (bits - 8)).astype(np.uint8)
    if photometric == "MONOCHROME1" and stored.dtype.kind in "iu":
        ends = -1 if stored.dtype.kind == "i" else (1 << bits) - 1  # the least plus the greatest
        stored = ends - stored.astype(np.int64)
    slope, intercept = _rescale(dataset, frame)
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if stored.dtype.kind in "iu" and slope == 1 and intercept == int(intercept):
        return stored.astype(np.int64) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _rescale(dataset: Any, frame: int) -> tuple[float, float]:
    """Slope and intercept (0028,1053), (0028,1052), of the instance or of its frame."""
    places = [dataset]
    for groups, number in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", frame),
    ):
        items = dataset.get(groups) or ()
        if number < len(items):
            places += items[number].get("PixelValueTransformationSequence") or ()
    found = [p for p in places if p.get("RescaleSlope") is not None]
    if not found:
        return 1.0, 0.0
    return float(found[-1].RescaleSlope), float(found[-1].get("RescaleIntercept") or 0.0)
