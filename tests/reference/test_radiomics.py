"""Radiomics against the IBSI digital phantom, a slow oracle of its definitions, and SciPy."""

from __future__ import annotations

import csv
import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from clinloom.radiomics.firstorder import first_order
from clinloom.radiomics.texture import (
    cooccurrence,
    describe_cooccurrence,
    describe_runs,
    run_lengths,
)

IBSI = Path(os.environ["CLINLOOM_DATA"]) / "conformance" / "ibsi"  # conftest.py sets it
needs_phantom = pytest.mark.skipif(
    not IBSI.is_dir(), reason="the IBSI digital phantom is not in CLINLOOM_DATA"
)

STATISTICS = {
    "stat_mean": "mean",
    "stat_var": "variance",
    "stat_skew": "skewness",
    "stat_kurt": "kurtosis",
    "stat_median": "median",
    "stat_min": "minimum",
    "stat_p10": "percentile_10",
    "stat_p90": "percentile_90",
    "stat_max": "maximum",
    "stat_iqr": "iqr",
    "stat_range": "range",
    "stat_mad": "mad",
    "stat_rmad": "robust_mad",
    "stat_energy": "energy",
    "stat_rms": "rms",
    "ih_entropy": "entropy",
    "ih_uniformity": "uniformity",
}
COOCCURRENCE = {
    "joint_max": "joint_maximum",
    "joint_avg": "joint_average",
    "joint_var": "joint_variance",
    "joint_entr": "joint_entropy",
    "diff_avg": "difference_average",
    "diff_var": "difference_variance",
    "diff_entr": "difference_entropy",
    "sum_entr": "sum_entropy",
    "energy": "energy",
    "contrast": "contrast",
    "dissimilarity": "difference_average",
    "inv_diff": "inverse_difference",
    "inv_diff_mom": "inverse_difference_moment",
    "inv_var": "inverse_variance",
    "corr": "correlation",
    "auto_corr": "autocorrelation",
    "clust_tend": "cluster_tendency",
    "clust_shade": "cluster_shade",
    "clust_prom": "cluster_prominence",
    "info_corr1": "information_correlation_1",
    "info_corr2": "information_correlation_2",
}
RUNS = {
    "sre": "short_runs_emphasis",
    "lre": "long_runs_emphasis",
    "lgre": "low_level_emphasis",
    "hgre": "high_level_emphasis",
    "glnu_norm": "level_nonuniformity",
    "rlnu_norm": "length_nonuniformity",
    "r_perc": "run_percentage",
    "gl_var": "level_variance",
    "rl_var": "length_variance",
    "rl_entr": "entropy",
}


def _volume(name: str) -> np.ndarray:
    """A NIfTI-1 volume of bytes to doubles, slices first."""
    data = gzip.decompress((IBSI / name).read_bytes())
    x, y, z = np.frombuffer(data, "<i2", 3, 42)
    kind = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8", 256: "i1", 512: "<u2"}
    dtype = np.dtype(kind[int(np.frombuffer(data, "<i2", 1, 70)[0])])
    offset = int(np.frombuffer(data, "<f4", 1, 108)[0])
    voxels = np.frombuffer(data, dtype, int(x) * int(y) * int(z), offset)
    return voxels.reshape(z, y, x)


def _reference() -> dict[str, str]:
    with (IBSI / "reference_values_digital_phantom.csv").open(newline="") as file:
        return {r["tag"]: r["reference value"] for r in csv.DictReader(file, delimiter=";")}


def _agrees(value: float, published: str) -> bool:
    """Equal at the published figures (three)."""
    reference = float(published)
    unit = 10 ** (math.floor(math.log10(abs(reference))) - 2) if reference else 0.01
    return abs(value - reference) <= 0.5 * unit * (1 + 1e-9)


def _slices() -> list[np.ndarray]:
    levels = np.where(_volume("mask.nii.gz") > 0, _volume("phantom.nii.gz"), 0).astype(np.intp)
    return [plane for plane in levels if plane.any()]


@needs_phantom
@pytest.mark.parametrize("tag", STATISTICS)
def test_first_order_of_the_phantom(tag: str) -> None:
    values = _volume("phantom.nii.gz")[_volume("mask.nii.gz") > 0]
    found = first_order(values, bins=None)[f"firstorder_{STATISTICS[tag]}"]
    assert _agrees(found, _reference()[tag]), (found, _reference()[tag])


@needs_phantom
@pytest.mark.parametrize("tag", COOCCURRENCE)
def test_cooccurrence_of_the_phantom(tag: str) -> None:
    each = [describe_cooccurrence(cooccurrence(plane, 6)) for plane in _slices()]
    found = float(np.mean([d[COOCCURRENCE[tag]] for d in each]))
    published = _reference()[f"cm_{tag}_2D_comb"]
    assert _agrees(found, published), (found, published)


@needs_phantom
@pytest.mark.parametrize("tag", RUNS)
def test_run_lengths_of_the_phantom(tag: str) -> None:
    each = [describe_runs(run_lengths(plane, 6)) for plane in _slices()]
    found = float(np.mean([d[RUNS[tag]] for d in each]))
    published = _reference()[f"rlm_{tag}_2D_comb"]
    assert _agrees(found, published), (found, published)


def _images() -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    shapes = [(1, 7), (7, 1), (5, 9), (12, 6), (8, 8)]
    return [rng.integers(0, 5, shape).astype(np.intp) for shape in shapes for _ in range(3)]


@pytest.mark.parametrize("levels", _images(), ids=lambda a: "x".join(map(str, a.shape)))
def test_matrices_are_those_of_a_slow_oracle(levels: np.ndarray) -> None:
    height, width = levels.shape
    pairs, runs = np.zeros((4, 4)), np.zeros((4, max(height, width)))

    def at(y: int, x: int) -> int:
        return int(levels[y, x]) if 0 <= y < height and 0 <= x < width else 0

    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for y in range(height):
            for x in range(width):
                one, other = at(y, x), at(y + dy, x + dx)
                if one and other:
                    pairs[one - 1, other - 1] += 1
                    pairs[other - 1, one - 1] += 1
                if one and at(y - dy, x - dx) != one:
                    length = 1
                    while at(y + length * dy, x + length * dx) == one:
                        length += 1
                    runs[one - 1, length - 1] += 1
    np.testing.assert_array_equal(cooccurrence(levels, 4), pairs)
    np.testing.assert_array_equal(run_lengths(levels, 4), runs)
    if not pairs.sum():
        return
    p = pairs / pairs.sum()
    cells = [(i, j, p[i, j]) for i in range(4) for j in range(4)]
    mean = sum((i + 1) * v for i, _, v in cells)
    found = describe_cooccurrence(cooccurrence(levels, 4))
    assert found["contrast"] == pytest.approx(sum((i - j) ** 2 * v for i, j, v in cells))
    assert found["energy"] == pytest.approx(sum(v * v for _, _, v in cells))
    assert found["joint_entropy"] == pytest.approx(-sum(v * math.log2(v) for *_, v in cells if v))
    assert found["inverse_difference_moment"] == pytest.approx(
        sum(v / (1 + (i - j) ** 2) for i, j, v in cells)
    )
    assert found["cluster_shade"] == pytest.approx(
        sum((i + j + 2 - 2 * mean) ** 3 * v for i, j, v in cells)
    )
    spread = sum((i + 1 - mean) ** 2 * v for i, _, v in cells)
    if spread:
        together = sum((i + 1 - mean) * (j + 1 - mean) * v for i, j, v in cells)
        assert found["correlation"] == pytest.approx(together / spread)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float64"])
def test_moments_are_scipys(dtype: str) -> None:
    values = np.random.default_rng(4).gamma(2, 20, 5000).clip(0, 250).astype(dtype)
    found, wide = first_order(values), values.astype(np.float64)
    assert found["firstorder_skewness"] == pytest.approx(stats.skew(wide))
    assert found["firstorder_kurtosis"] == pytest.approx(stats.kurtosis(wide))
    assert found["firstorder_variance"] == pytest.approx(wide.var())
    assert found["firstorder_mad"] == pytest.approx(np.abs(wide - wide.mean()).mean())
