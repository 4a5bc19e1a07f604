"""The region that stands out (a lesion on skin): its shape, border and colour against the rest.

Sources: Otsu 1979 (threshold); the ABCD rule of dermatoscopy, Nachbar et al. 1994 (asymmetry,
border, colour); perimeter by the Crofton formula in four directions.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from clinloom.radiomics.firstorder import distribution, percentiles

CHANNELS = ("red", "green", "blue")
SMALLEST = 16  # pixels: a smaller region has no shape


def region(
    pixels: np.ndarray, gray: np.ndarray, mask: np.ndarray | None = None
) -> dict[str, float]:
    """Shape and colour of the region of an RGB image (H, W, 3) uint8 with luma ``gray``.

    The region is ``mask``, or else what Otsu's threshold finds dark and nearest to the centre. An
    image without a region, or without anything around it, has 0 for all but its area.
    """
    inside = outline(gray) if mask is None else mask
    area = int(inside.sum())
    shape = _shape(inside, gray) if area >= SMALLEST else dict.fromkeys(SHAPE, 0.0)
    found = {"area_fraction": area / inside.size, **shape}
    if SMALLEST <= area <= inside.size - SMALLEST:
        found |= _colour(pixels, inside)
    else:
        found |= dict.fromkeys(COLOUR, 0.0)
    return {f"region_{name}": value for name, value in found.items()}


def otsu(gray: np.ndarray) -> int:
    """The threshold (0..255) of a uint8 image that parts its histogram best; dark is ≤ it."""
    share = np.bincount(gray.ravel(), minlength=256) / gray.size
    below = np.cumsum(share)
    mean = np.cumsum(share * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * below - mean) ** 2 / (below * (1 - below))
    return int(np.nan_to_num(between, nan=0.0, posinf=0.0).argmax())


def outline(gray: np.ndarray) -> np.ndarray:
    """The dark part (H, W) bool that covers most of the centre, its holes filled."""
    smooth = ndimage.uniform_filter(gray, size=5)
    dark = smooth <= otsu(smooth)
    parts, count = ndimage.label(dark)
    if not count:
        return np.zeros(gray.shape, dtype=bool)
    height, width = gray.shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None, :]
    central = np.exp(-4 * y**2) * np.exp(-4 * x**2)
    weight = np.bincount(parts.ravel(), weights=central.ravel())
    weight[0] = 0
    chosen = parts == weight.argmax()
    around, _ = ndimage.label(~chosen)
    edges = np.concatenate([around[0], around[-1], around[:, 0], around[:, -1]])
    open_ = np.zeros(around.max() + 1, dtype=bool)
    open_[edges] = True
    open_[0] = False
    filled: np.ndarray = ~open_[around]
    return filled


SHAPE = (
    "elongation",
    "irregularity",
    "asymmetry_major",
    "asymmetry_minor",
    "shade_asymmetry",
    "off_centre",
    "border_contrast",
)


def _shape(inside: np.ndarray, gray: np.ndarray) -> dict[str, float]:
    """Shape by the region's moments: axes, reflections upon them, perimeter, place."""
    height, width = inside.shape
    y, x = np.nonzero(inside)
    centre = np.array([y.mean(), x.mean()])
    away = np.stack([y - centre[0], x - centre[1]])
    spread, axes = np.linalg.eigh(away @ away.T / len(y) + np.eye(2) / 12)
    along = axes.T @ away
    shade = gray[y, x].astype(np.float64)
    overlap, shades = [], []
    for axis in (0, 1):
        mirrored = along.copy()
        mirrored[axis] *= -1
        row, column = np.rint((axes @ mirrored) + centre[:, None]).astype(np.intp)
        there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        row, column = row[there], column[there]
        both = inside[row, column]
        overlap.append(1 - both.sum() / len(y))
        other = gray[row[both], column[both]]
        shades.append(np.abs(shade[there][both] - other).mean() if both.any() else 0.0)
    perimeter = _perimeter(inside)
    size = (height**2 + width**2) ** 0.5
    edge = inside ^ ndimage.binary_erosion(inside)
    plane = gray.astype(np.float32)
    step = 3
    across = np.abs(plane[:, 2 * step :] - plane[:, : -2 * step])[edge[:, step:-step]]
    return {
        "elongation": float(np.sqrt(spread[0] / spread[1])),
        "irregularity": float(perimeter**2 / (4 * np.pi * len(y))),
        "asymmetry_major": float(overlap[0]),
        "asymmetry_minor": float(overlap[1]),
        "shade_asymmetry": float(np.mean(shades)),
        "off_centre": float(np.hypot(*(centre - (np.array(inside.shape) - 1) / 2)) / size),
        "border_contrast": float(across.mean(dtype=np.float64)) if across.size else 0.0,
    }


def _perimeter(inside: np.ndarray) -> float:
    """Crofton: π/8 of the crossings of rows, columns and (by √2) diagonals."""
    p = np.pad(inside, 1)
    straight = (p[:, 1:] ^ p[:, :-1]).sum() + (p[1:] ^ p[:-1]).sum()
    slanted = (p[1:, 1:] ^ p[:-1, :-1]).sum() + (p[1:, :-1] ^ p[:-1, 1:]).sum()
    return float(np.pi / 8 * (straight + slanted / np.sqrt(2)))


COLOUR = tuple(
    f"{channel}_{name}"
    for channel in CHANNELS
    for name in (
        "inside",
        "difference",
        "deviation",
        "deviation_outside",
        "core_difference",
        "skewness",
        "percentile_5",
        "percentile_95",
    )
)


def _colour(pixels: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Each channel in the region, against the rest, and its core against its rim."""
    y, x = np.nonzero(inside)
    away = np.stack([y - y.mean(), x - x.mean()])
    inverse = np.linalg.inv(away @ away.T / len(y) + np.eye(2) / 12)
    core = ((inverse @ away) * away).sum(axis=0) < 1.4  # about a third of an ellipse's area
    found: dict[str, float] = {}
    for i, channel in enumerate(CHANNELS):
        plane = pixels[..., i]
        colours = plane[inside]
        levels, counts = distribution(colours)
        mean, deviation, skewness = _moments(levels, counts)
        whole = np.bincount(plane.ravel(), minlength=256)
        beyond = whole - np.bincount(colours, minlength=256)
        mean_beyond, deviation_beyond, _ = _moments(np.arange(256.0), beyond)
        low, high = percentiles(levels, counts, (5, 95))
        middle, rim = colours[core], colours[~core]
        contrast = middle.mean() - rim.mean() if middle.size and rim.size else 0.0
        found |= {
            f"{channel}_inside": mean,
            f"{channel}_difference": mean_beyond - mean,
            f"{channel}_deviation": deviation,
            f"{channel}_deviation_outside": deviation_beyond,
            f"{channel}_core_difference": float(contrast),
            f"{channel}_skewness": skewness,
            f"{channel}_percentile_5": low,
            f"{channel}_percentile_95": high,
        }
    return found


def _moments(levels: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    share = counts / counts.sum()
    mean = float(share @ levels)
    centred = levels - mean
    variance = float(share @ centred**2)
    skewness = float(share @ centred**3) / variance**1.5 if variance > 1e-12 else 0.0
    return mean, variance**0.5, skewness
