"""Texture in two dimensions: grey level co-occurrence, run lengths and gradients.

Source: Zwanenburg et al., IBSI reference manual, sections 2.7 (discretisation), 3.6 (GLCM) and
3.7 (GLRLM); matrices of the four directions are merged before they are described ("2D, merged").
"""

from __future__ import annotations

from functools import cache

import numpy as np

BINS = 32
SHRINK = 4


def discretise(gray: np.ndarray, mask: np.ndarray | None = None, *, bins: int = BINS) -> np.ndarray:
    """Grey levels 1..``bins`` (H, W) intp by a fixed bin number; 0 lies outside the mask."""
    values = gray.ravel() if mask is None else gray[mask]
    low, high = values.min(), values.max()
    span = float(high) - float(low)
    if gray.dtype.kind in "bu" and gray.dtype.itemsize == 1:
        steps = np.arange(256) - float(low)
        place = np.clip(steps / (span or 1.0) * bins, 0, bins - 1).astype(np.intp) + 1
        levels = place[gray.view(np.uint8)]
    else:
        steps = gray.astype(np.float64) - float(low)
        if mask is not None:
            steps[~mask] = 0
        levels = np.clip(steps / (span or 1.0) * bins, 0, bins - 1).astype(np.intp) + 1
    if mask is not None:
        levels[~mask] = 0
    return np.asarray(levels)


def coarse(gray: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The image by means of ``SHRINK`` × ``SHRINK`` pixels, and where all of them are in the mask.

    An image with a side of fewer than two such blocks stays as it is.
    """
    height, width = (side // SHRINK for side in gray.shape)
    if min(height, width) < 2:
        return gray.astype(np.float64), mask

    def blocks(plane: np.ndarray) -> np.ndarray:
        cut = plane[: height * SHRINK, : width * SHRINK]
        return cut.reshape(height, SHRINK, width, SHRINK)

    source = gray if mask is None else np.where(mask, gray, 0)  # what is outside may not be finite
    small = blocks(source).sum(axis=3, dtype=np.float64).sum(axis=1) / SHRINK**2
    if mask is None:
        return small, None
    inside = np.asarray(blocks(mask).all(axis=(1, 3)))
    if not inside.any():
        return gray.astype(np.float64), mask
    return small, inside


def texture(
    levels: np.ndarray, gray: np.ndarray, mask: np.ndarray | None = None, *, bins: int = BINS
) -> dict[str, float]:
    """GLCM, GLRLM and gradient measurements of one image's ``levels`` and intensities."""
    return {
        **{f"glcm_{n}": v for n, v in describe_cooccurrence(cooccurrence(levels, bins)).items()},
        **{f"glrlm_{n}": v for n, v in describe_runs(run_lengths(levels, bins)).items()},
        **{f"gradient_{n}": v for n, v in gradient(gray, mask).items()},
    }


def cooccurrence(levels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The symmetric co-occurrence counts (bins, bins) at distance 1, four directions merged."""
    side = bins + 1
    first = levels * side
    pairs = (
        (first[:, :-1], levels[:, 1:]),
        (first[:-1], levels[1:]),
        (first[:-1, :-1], levels[1:, 1:]),
        (first[:-1, 1:], levels[1:, :-1]),
    )
    counts = np.zeros(side * side, dtype=np.int64)
    for one, other in pairs:
        counts += np.bincount((one + other).ravel(), minlength=side * side)
    inside = counts.reshape(side, side)[1:, 1:]  # level 0 lies outside the mask
    return inside + inside.T


@cache
def _grid(bins: int) -> tuple[np.ndarray, ...]:
    level = np.arange(1, bins + 1, dtype=np.float64)
    apart = np.abs(level[:, None] - level[None, :])
    total = (level[:, None] + level[None, :]).astype(np.intp)
    return level, apart, apart.astype(np.intp), total


def describe_cooccurrence(counts: np.ndarray) -> dict[str, float]:
    """IBSI descriptions of a symmetric co-occurrence matrix; entropies are in bits.

    ``energy`` is the angular second moment, ``inverse_difference_moment`` is also known as
    homogeneity, ``difference_average`` as dissimilarity. A matrix without contrast (one level, or
    no pair) has correlation 1 and information correlation 0.
    """
    bins = len(counts)
    level, apart, step, total = _grid(bins)
    pairs = counts.sum()
    if not pairs:
        counts, pairs = np.eye(bins) * (np.arange(bins) == 0), 1
    p = counts / pairs
    margin = p.sum(axis=1)
    mean = float(margin @ level)
    centred = level - mean
    variance = float(margin @ centred**2)
    difference = np.bincount(step.ravel(), weights=p.ravel(), minlength=bins)
    summed = np.bincount(total.ravel(), weights=p.ravel(), minlength=2 * bins + 1)
    k = np.arange(bins, dtype=np.float64)
    away = float(difference @ k)
    spread = np.arange(2 * bins + 1) - 2 * mean
    entropy, alone = _entropy(p), _entropy(margin)
    excess = max(2 * alone - entropy, 0.0)  # margins are alike: HXY1 = HXY2 = 2 HX
    return {
        "joint_maximum": float(p.max()),
        "joint_average": mean,
        "joint_variance": variance,
        "joint_entropy": entropy,
        "difference_average": away,
        "difference_variance": float(difference @ (k - away) ** 2),
        "difference_entropy": _entropy(difference),
        "sum_entropy": _entropy(summed),
        "energy": float((p * p).sum()),
        "contrast": float(difference @ k**2),
        "inverse_difference": float(difference @ (1 / (1 + k))),
        "inverse_difference_moment": float(difference @ (1 / (1 + k**2))),
        "inverse_variance": float(difference[1:] @ (1 / k[1:] ** 2)),
        "correlation": float(centred @ p @ centred) / variance if variance > 1e-12 else 1.0,
        "autocorrelation": float(level @ p @ level),
        "cluster_tendency": float(summed @ spread**2),
        "cluster_shade": float(summed @ spread**3),
        "cluster_prominence": float(summed @ spread**4),
        "information_correlation_1": -excess / alone if alone > 1e-12 else 0.0,
        "information_correlation_2": float(np.sqrt(1 - np.exp(-2 * excess))),
    }


def _entropy(p: np.ndarray) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log2(positive)).sum()) + 0.0


def run_lengths(levels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Counts of runs (bins, longest run) by level and length, four directions merged."""
    height, width = levels.shape
    longest = max(height, width)
    counts = np.zeros((bins + 1) * (longest + 1), dtype=np.int64)
    mirrored = levels[:, ::-1]
    for lines in (levels, levels.T, _diagonals(levels), _diagonals(mirrored)):
        apart = np.zeros((lines.shape[0], lines.shape[1] + 1), dtype=np.uint16)
        apart[:, 1:] = lines
        flat = np.append(apart.ravel(), np.uint16(0))
        (ends,) = np.nonzero(flat[1:] != flat[:-1])
        value = flat[ends[1:]].astype(np.intp)
        length = np.diff(ends)
        inside = value > 0
        code = value[inside] * (longest + 1) + length[inside]
        counts += np.bincount(code, minlength=len(counts))
    return counts.reshape(bins + 1, longest + 1)[1:, 1:]


def _diagonals(levels: np.ndarray) -> np.ndarray:
    """The diagonals as rows (height + width - 1, height), 0 where a diagonal has no pixel."""
    height, width = levels.shape
    padded = np.zeros((height, width + height), dtype=np.uint16)
    padded[:, :width] = levels
    span = width + height - 1  # one column less: row i shifts i to the right
    return padded.ravel()[: height * span].reshape(height, span).T


def describe_runs(counts: np.ndarray) -> dict[str, float]:
    """IBSI descriptions of a run length matrix."""
    runs = float(counts.sum())
    by_level, by_length = counts.sum(axis=1), counts.sum(axis=0)
    level = np.arange(1, counts.shape[0] + 1, dtype=np.float64)
    length = np.arange(1, counts.shape[1] + 1, dtype=np.float64)
    mean_level, mean_length = by_level @ level / runs, by_length @ length / runs
    pixels = float(by_length @ length)
    return {
        "short_runs_emphasis": float(by_length @ length**-2.0) / runs,
        "long_runs_emphasis": float(by_length @ length**2) / runs,
        "low_level_emphasis": float(by_level @ level**-2.0) / runs,
        "high_level_emphasis": float(by_level @ level**2) / runs,
        "level_nonuniformity": float((by_level / runs) @ (by_level / runs)),
        "length_nonuniformity": float((by_length / runs) @ (by_length / runs)),
        # each of the four directions has every pixel in one of its runs
        "run_percentage": runs / pixels,
        "level_variance": float(by_level @ (level - mean_level) ** 2) / runs,
        "length_variance": float(by_length @ (length - mean_length) ** 2) / runs,
        "entropy": _entropy(counts / runs),
    }


def gradient(gray: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """Mean, deviation and 90th percentile of the gradient's size, in intensity a pixel.

    Central differences over the inner pixels whose four neighbours are in the mask.
    """
    if min(gray.shape) < 3:
        return {"mean": 0.0, "deviation": 0.0, "percentile_90": 0.0}
    plane: np.ndarray = gray.astype(np.float32 if gray.dtype.itemsize == 1 else np.float64)
    across = plane[1:-1, 2:] - plane[1:-1, :-2]
    down = plane[2:, 1:-1] - plane[:-2, 1:-1]
    size = np.sqrt(across * across + down * down) / 2
    if mask is not None:
        around = mask[1:-1, 2:] & mask[1:-1, :-2] & mask[2:, 1:-1] & mask[:-2, 1:-1]
        size = size[around & mask[1:-1, 1:-1]]
        if not size.size:
            return {"mean": 0.0, "deviation": 0.0, "percentile_90": 0.0}
    size = size.ravel()
    rank = int(0.9 * (size.size - 1))
    return {
        "mean": float(size.mean(dtype=np.float64)),
        "deviation": float(size.std(dtype=np.float64)),
        "percentile_90": float(np.partition(size, rank)[rank]),
    }
