"""Stored pixels as they are meant: bits, padding, Modality LUT, unit, MONOCHROME1.

DICOM PS3.3: Image Pixel (C.7.6.3), Padding (C.7.5.1.1.2), Modality LUT (C.11.1), PET Units
(C.8.9.1.1.3), Pixel Value Transformation (C.7.6.16.2.9); PS3.5 section 8.1.1 (stored bits).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from clinloom.sources._images.header import Refused, text

UNSPECIFIED = ("US", "NONE", "UNSPECIFIED")


class Intensities:
    """How an instance's stored values become what they mean, frame by frame."""

    def __init__(self, dataset: Any):
        self._dataset = dataset
        self._photometric = str(dataset.PhotometricInterpretation)
        self._bits = int(dataset.get("BitsStored", 8))
        self._width = int(dataset.get("BitsAllocated", 8))
        self._signed = int(dataset.get("PixelRepresentation") or 0) == 1
        self._shift = 0
        self._padding = self._padded()

    def in_words(self) -> None:
        """Have values decoded as they lie in their words, where HighBit is not the last stored.

        Only for transfer syntaxes that keep the words; other codecs know the stored bits alone.
        """
        high = int(self._dataset.get("HighBit", self._bits - 1))
        gray = int(self._dataset.get("SamplesPerPixel", 1)) == 1
        if gray and self._bits <= high < self._width:
            self._shift = high + 1 - self._bits
            self._dataset.BitsStored, self._dataset.HighBit = self._width, self._width - 1

    def frame(self, stored: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A frame's pixels, and the mask of those that are the image's; None where all are.

        RGB (H, W, 3) uint8, of more than 8 bits the upper 8; or gray (H, W) in the unit of
        :func:`quantity`. MONOCHROME1 without a unit is inverted within the range of its values;
        with one, the values are what they are: a Hounsfield number has no colour.
        """
        bits = self._bits
        if self._photometric == "PALETTE COLOR":
            from pydicom.pixels.processing import apply_color_lut

            stored = apply_color_lut(stored, self._dataset)
            bits = stored.dtype.itemsize * 8
        if stored.ndim == 3:
            return (stored if bits <= 8 else (stored >> (bits - 8)).astype(np.uint8)), None
        if self._shift:
            stored = self._cut(stored)
        mask = None
        if self._padding is not None and stored.dtype.kind in "iu":
            low, high = self._padding
            mask = (stored < low) | (stored > high)
            mask = None if mask.all() else mask
        return self._meant(stored, number), mask

    def _cut(self, words: np.ndarray) -> np.ndarray:
        """The stored bits of each word, with their sign."""
        above = words.dtype.itemsize * 8 - self._bits - self._shift
        cut: np.ndarray = (words << above) >> (above + self._shift)
        return cut

    def _padded(self) -> tuple[int, int] | None:
        """The least and the greatest stored value that is no pixel (0028,0120), (0028,0121)."""
        ends = [self._dataset.get(f"PixelPadding{name}") for name in ("Value", "RangeLimit")]
        told = [self._stored(int(end)) for end in ends if end is not None]
        return (min(told), max(told)) if ends[0] is not None else None

    def _stored(self, value: int) -> int:
        """A value that a header may write with the wrong sign, as pixels have it."""
        value &= (1 << self._bits) - 1
        return value - (1 << self._bits) if self._signed and value >> (self._bits - 1) else value

    def _meant(self, stored: np.ndarray, number: int) -> np.ndarray:
        ends = (0, (1 << self._bits) - 1)
        if self._signed:
            ends = (-(1 << (self._bits - 1)), (1 << (self._bits - 1)) - 1)
        invert = self._photometric == "MONOCHROME1" and stored.dtype.kind in "iu"
        table = self._dataset.get("ModalityLUTSequence")
        if table:
            made, greatest = self._looked_up(stored, table[0])
            ends, slope, intercept = (0, greatest), 1.0, 0.0
        else:
            slope, intercept = _linear(_transformation(self._dataset, number))
            made = _rescaled(stored, slope, intercept)
        if not invert or quantity(self._dataset) is not None:
            return made
        total = (ends[0] + ends[1]) * slope + 2 * intercept
        if made.dtype.kind in "iu" and total == int(total):
            return int(total) - made.astype(np.int64)
        inverted: np.ndarray = total - made
        return inverted

    def _looked_up(self, stored: np.ndarray, item: Any) -> tuple[np.ndarray, int]:
        """Values by a Modality LUT, and the greatest that it can tell (C.11.1.1)."""
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        first -= 1 << 16 if self._signed and first >= 1 << 15 else 0
        entries = item.LUTData
        if isinstance(entries, bytes):
            words = "<u2" if self._dataset.original_encoding[1] else ">u2"
            narrow = bits <= 8 and len(entries) < 2 * (count or 1 << 16)
            entries = np.frombuffer(entries, "u1" if narrow else words)
        table = np.asarray(entries, np.int64)[: count or 1 << 16]
        made: np.ndarray = table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
        return made, (1 << bits) - 1


def _rescaled(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    if (slope, intercept) == (1.0, 0.0):
        return stored
    if stored.dtype.kind in "iu" and slope == 1 and intercept == int(intercept):
        return stored.astype(np.int64) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _linear(place: Any) -> tuple[float, float]:
    """Slope and intercept (0028,1053), (0028,1052). Raises Refused where they leave nothing."""
    if place is None:
        return 1.0, 0.0
    slope, intercept = float(place.RescaleSlope), float(place.get("RescaleIntercept") or 0.0)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise Refused("unmeasurable_image")
    return slope, intercept


def _transformation(dataset: Any, frame: int) -> Any:
    """Where the rescale of a frame stands: its own, the shared one, the instance's, or None."""
    places = [dataset]
    for groups, number in (
        ("SharedFunctionalGroupsSequence", 0),
        ("PerFrameFunctionalGroupsSequence", frame),
    ):
        items = dataset.get(groups) or ()
        if number < len(items):
            places += items[number].get("PixelValueTransformationSequence") or ()
    found = [place for place in places if place.get("RescaleSlope") is not None]
    return found[-1] if found else None


def quantity(dataset: Any) -> str | None:
    """The unit of an instance's values as DICOM names it (HU, BQML, GML …); None where untold.

    Units (0054,1001) of PET, with the kind of SUV where it is not by body weight; else the type of
    the Modality LUT or the rescale, which is HU for CT where it is not written.
    """
    name = text(dataset, "Units")
    kind = text(dataset, "SUVType")
    if name and kind and kind.upper() != "BW":
        name = f"{name} {kind}"
    table = dataset.get("ModalityLUTSequence")
    rescale = _transformation(dataset, 0)
    if not name and table:
        name = text(table[0], "ModalityLUTType")
    elif not name and rescale is not None:
        name = text(rescale, "RescaleType")
        if name is None and text(dataset, "Modality") == "CT":
            name = "HU"
    if not name or name.upper() in UNSPECIFIED:
        return None
    return "_".join(name.upper().replace("/", " ").split())
