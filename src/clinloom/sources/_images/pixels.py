"""A DICOM instance's pixels, as they are meant, and their measurements.

Pixel data: DICOM PS3.3 C.7.6.3, PS3.5 section 8 and annex A.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from clinloom.radiomics import measure
from clinloom.sources._images.header import NATIVE, Refused, syntax
from clinloom.sources._images.intensities import Intensities

RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
# The fastest plug-in that is right, then the others: pydicom's own order differs by version.
DECODERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((f"{_JPEG}50", f"{_JPEG}51"), ("gdcm", "pylibjpeg", "pillow")),
    **dict.fromkeys((f"{_JPEG}57", f"{_JPEG}70"), ("gdcm", "pylibjpeg")),
    **dict.fromkeys((f"{_JPEG}80", f"{_JPEG}81"), ("pyjpegls", "gdcm", "pylibjpeg")),
    **dict.fromkeys((f"{_JPEG}90", f"{_JPEG}91"), ("gdcm", "pylibjpeg", "pillow")),
    **dict.fromkeys((f"{_JPEG}201", f"{_JPEG}202", f"{_JPEG}203"), ("pylibjpeg",)),
    RLE: ("pylibjpeg", "gdcm", "pydicom"),
}

JPEG = (f"{_JPEG}50", f"{_JPEG}51")
WIDE = dict.fromkeys(JPEG, ("imagecodecs",))  # of more than 8 bits, which the others do not read


def measurements(dataset: Any) -> dict[str, float]:
    """The instance's measurements; of a multi-frame one, the mean over its frames.

    Raises Refused: ``decoder_missing`` where the extra's decoder is not installed,
    ``unsupported_transfer_syntax`` where there is none, ``undecodable_dicom``.
    """
    written = syntax(dataset)
    values = Intensities(dataset)
    if written in NATIVE or written == RLE:
        values.in_words()
    if written in NATIVE:
        return _over_frames(_decoded(dataset, ""), values)
    known = WIDE if written in JPEG and int(dataset.get("BitsStored", 8)) > 8 else DECODERS
    plugins = [name for name in known.get(written, ()) if name in _installed(written)]
    if not plugins:
        missing = written in DECODERS
        raise Refused("decoder_missing" if missing else "unsupported_transfer_syntax")
    if "gdcm" in plugins:
        _hush_gdcm()
    for plugin in plugins:
        try:
            return _over_frames(_decoded(dataset, plugin), values)
        except Refused:
            continue
    raise Refused("undecodable_dicom")


def _installed(written: str) -> set[str]:
    """The decoders of a transfer syntax that are there."""
    from pydicom.pixels.decoders.base import get_decoder

    own = {"imagecodecs"} if find_spec("imagecodecs") else set()
    try:
        return own | set(get_decoder(written).available_plugins)
    except NotImplementedError:
        return own


def _decoded(dataset: Any, plugin: str) -> Iterator[np.ndarray]:
    """Frame by frame, the stored values."""
    if plugin != "imagecodecs":
        from pydicom.pixels.utils import iter_pixels

        yield from iter_pixels(dataset, decoding_plugin=plugin)
        return
    import imagecodecs
    from pydicom.encaps import generate_frames

    count = int(dataset.get("NumberOfFrames") or 1)
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        stored = imagecodecs.jpeg_decode(frame)
        if stored.shape != (dataset.Rows, dataset.Columns):
            raise ValueError("a frame has another size than its header says")
        yield stored


def _hush_gdcm() -> None:
    import gdcm

    for stream in ("Debug", "Warning", "Error"):
        getattr(gdcm.Trace, f"{stream}Off")()


def _over_frames(frames: Iterator[np.ndarray], values: Intensities) -> dict[str, float]:
    total: dict[str, float] = {}
    count = 0
    while True:
        try:
            stored = next(frames, None)
        except MemoryError:
            raise
        except BaseException:  # a decoder may fail in any way; a panic of Rust is no Exception
            raise Refused("undecodable_dicom") from None
        if stored is None:
            break
        pixels, mask = values.frame(stored, count)
        found = measure(pixels, mask=mask)
        total = {name: total.get(name, 0.0) + value for name, value in found.items()}
        count += 1
    if not count:
        raise Refused("undecodable_dicom")
    return {name: value / count for name, value in total.items()}
