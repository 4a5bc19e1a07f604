"""Pixels to measurements: a kernel room of NumPy and ``scipy.ndimage``, without files and Spark.

>>> import numpy as np
>>> found = measure(np.array([[1, 2], [3, 4]], dtype="uint8"))
>>> found["firstorder_mean"], found["firstorder_range"]
(2.5, 3.0)
"""

from __future__ import annotations

import numpy as np

from clinloom.errors import DataError
from clinloom.radiomics.firstorder import first_order
from clinloom.radiomics.region import region
from clinloom.radiomics.texture import BINS, coarse, discretise, texture

CHANNELS = ("red", "green", "blue")


def measure(pixels: np.ndarray, *, mask: np.ndarray | None = None) -> dict[str, float]:
    """Measure an image: first-order statistics, texture and, in colour, its region.

    ``pixels`` is gray (H, W) of any integer, boolean or floating type in any unit, or RGB
    (H, W, 3) uint8. ``mask`` (H, W) limits the measurement to its non-zero pixels and is the
    region; pixels that are not finite are left out. Texture is measured at full resolution and,
    as ``coarse_``, on means of 4×4 pixels. A colour image has the measurements of a gray one for
    its luma (ITU-R BT.601), plus first-order statistics of each channel, of two opponent colours
    and of saturation, and the region's colour and shape. Every value is finite.

    Raises DataError where the shape or type is not of these, or no pixel is left.
    Sources: IBSI reference manual (Zwanenburg 2020); see each module.
    """
    pixels = np.asarray(pixels)
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if not (colour or pixels.ndim == 2) or pixels.dtype.kind not in "buif":
        raise DataError("an image is gray (H, W) or RGB (H, W, 3)", where="measure")
    if colour and pixels.dtype != np.uint8:
        raise DataError(f"an RGB image is uint8, not {pixels.dtype}", where="measure")
    if mask is not None:
        mask = np.asarray(mask) != 0
        if mask.shape != pixels.shape[:2]:
            raise DataError("the mask and the image differ in shape", where="measure")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        sound = np.isfinite(pixels)
        mask = sound if mask is None else mask & sound
    if not pixels.size or (mask is not None and not mask.any()):
        raise DataError("no pixel is left to measure", where="measure")
    gray = _luma(pixels) if colour else pixels
    levels = discretise(gray, mask, bins=BINS)
    found = first_order(_within(gray, mask))
    found |= texture(levels, gray, mask)
    small, small_mask = coarse(gray, mask)
    rough = texture(discretise(small, small_mask), small, small_mask)
    found |= {f"coarse_{name}": value for name, value in rough.items()}
    if colour:
        for name, plane in _planes(pixels).items():
            found |= {f"{name}_{n}": v for n, v in first_order(_within(plane, mask)).items()}
        found |= region(pixels, gray, mask)
    return found


def _within(plane: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    return plane.ravel() if mask is None else plane[mask]


def _luma(pixels: np.ndarray) -> np.ndarray:
    wide = pixels.astype(np.uint16)  # 255 * 256 + 128 is the largest sum: it fits 16 bits
    weighted = 77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2] + np.uint16(128)
    return (weighted >> 8).astype(np.uint8)


def _planes(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Channels, opponent colours (red-green, yellow-blue; -255..255) and saturation (0..255)."""
    red, green, blue = (pixels[..., i].astype(np.int16) for i in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    spread = (high - low).astype(np.int32) * 255
    return {
        **{name: np.ascontiguousarray(pixels[..., i]) for i, name in enumerate(CHANNELS)},
        "redgreen": red - green,
        "yellowblue": ((red + green) >> 1) - blue,
        "saturation": (spread // np.maximum(high, 1)).astype(np.uint8),
    }
