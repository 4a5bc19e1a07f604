"""First-order statistics of intensities, by the names and definitions of the IBSI.

Source: Zwanenburg et al., Image Biomarker Standardisation Initiative reference manual, sections
3.3 (intensity-based statistics) and 3.4 (intensity histogram).
"""

from __future__ import annotations

import numpy as np

BINS = 32
DENSE = 1 << 17  # integers that span less are counted in a histogram instead of sorted


def first_order(values: np.ndarray, *, bins: int | None = BINS) -> dict[str, float]:
    """First-order statistics of ``values`` (n,), not empty, in the unit of the image.

    Variances are of the population and kurtosis is excess. Entropy (bits) and uniformity are of
    the histogram of ``bins`` bins over the range of values (None: each value is a bin). Sums run
    in float64 whatever the type, so that squares of 16-bit values do not overflow.
    """
    levels, counts = distribution(values)
    total = counts.sum()
    share = counts / total
    mean = float(share @ levels)
    centred = levels - mean
    square = centred * centred
    variance = float(share @ square)
    steady = variance <= 1e-24 * max(mean * mean, 1e-280)
    p10, p25, median, p75, p90 = percentiles(levels, counts, (10, 25, 50, 75, 90))
    minimum, maximum = float(levels[0]), float(levels[-1])
    middle = slice(np.searchsorted(levels, p10), np.searchsorted(levels, p90, side="right"))
    between, robust = levels[middle], share[middle] / share[middle].sum()
    energy = float(counts @ (levels * levels))
    binned = share if bins is None else _binned(levels, share, bins)
    binned = binned[binned > 0]
    return {
        "firstorder_mean": mean,
        "firstorder_variance": variance,
        "firstorder_skewness": 0.0 if steady else float(share @ (square * centred)) / variance**1.5,
        "firstorder_kurtosis": 0.0
        if steady
        else float(share @ (square * square)) / variance**2 - 3,
        "firstorder_median": median,
        "firstorder_minimum": minimum,
        "firstorder_percentile_10": p10,
        "firstorder_percentile_90": p90,
        "firstorder_maximum": maximum,
        "firstorder_iqr": p75 - p25,
        "firstorder_range": maximum - minimum,
        "firstorder_mad": float(share @ np.abs(centred)),
        "firstorder_robust_mad": float(robust @ np.abs(between - robust @ between)),
        "firstorder_energy": energy,
        "firstorder_rms": float(np.sqrt(energy / total)),
        "firstorder_entropy": float(-(binned * np.log2(binned)).sum()) + 0.0,
        "firstorder_uniformity": float((binned * binned).sum()),
    }


def distribution(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values (float64, ascending) and how often each occurs (float64)."""
    if values.dtype.kind == "b":
        values = values.view(np.uint8)
    if values.dtype.kind in "iu":
        low, high = int(values.min()), int(values.max())
        if high - low < DENSE:
            # A difference may not fit the type of small signed values; unsigned ones cannot wrap.
            wide = values.astype(np.int64) if values.dtype.kind == "i" else values
            shifted = wide if low == 0 else wide - wide.dtype.type(low)
            counts = np.bincount(shifted.astype(np.intp, copy=False))
            (present,) = np.nonzero(counts)
            return present.astype(np.float64) + low, counts[present].astype(np.float64)
    ordered = np.sort(values.astype(np.float64))
    return ordered, np.ones(len(ordered))


def percentiles(levels: np.ndarray, counts: np.ndarray, which: tuple[int, ...]) -> list[float]:
    """Percentiles with linear interpolation between neighbours, from a distribution."""
    upto = np.cumsum(counts)
    at = np.asarray(which) / 100 * (upto[-1] - 1)
    below = np.floor(at)
    last = len(levels) - 1
    low = levels[np.minimum(np.searchsorted(upto, below, side="right"), last)]
    high = levels[np.minimum(np.searchsorted(upto, below + 1, side="right"), last)]
    return [float(v) for v in low + (at - below) * (high - low)]


def _binned(levels: np.ndarray, share: np.ndarray, bins: int) -> np.ndarray:
    span = levels[-1] - levels[0]
    if not span > 0:
        return np.ones(1)
    place = np.minimum(((levels - levels[0]) / span * bins).astype(np.intp), bins - 1)
    return np.bincount(place, weights=share)
