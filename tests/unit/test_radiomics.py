"""Measurements of pixels: names, finiteness, and the traps of types, masks and flat images."""

from __future__ import annotations

import numpy as np
import pytest

from clinloom.errors import DataError
from clinloom.radiomics import measure
from clinloom.radiomics.firstorder import first_order
from clinloom.radiomics.region import otsu, outline


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 200, (40, 50)).astype(np.uint8)


@pytest.fixture
def lesion() -> np.ndarray:
    y, x = np.mgrid[:96, :120]
    skin = np.full((96, 120, 3), (220, 170, 150), dtype=np.uint8)
    skin[((y - 48) / 20) ** 2 + ((x - 60) / 30) ** 2 <= 1] = (90, 50, 40)
    return skin


@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float32",
        "float64",
        ">i2",
        ">u2",
    ],
)
def test_every_type_gives_what_float64_gives(dtype: str) -> None:
    values = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 100, (30, 33))
    image = values.astype(dtype)
    found, expected = measure(image), measure(values.astype(np.float64))
    assert found == pytest.approx(expected, rel=1e-6)


def test_16_bit_values_do_not_overflow() -> None:
    values = np.random.default_rng(2).integers(0, 65536, (64, 64))
    found = measure(values.astype(np.uint16))
    wide = values.astype(np.float64)
    assert found["firstorder_energy"] == pytest.approx((wide**2).sum())
    assert found["firstorder_variance"] == pytest.approx(wide.var())
    assert found == pytest.approx(measure(wide))


def test_signed_values_that_span_the_whole_type() -> None:
    image = np.array([[-32768, 32767], [0, 1]], dtype=np.int16)
    found = measure(image)
    assert found["firstorder_range"] == 65535
    assert found["firstorder_mean"] == 0


def test_large_unsigned_values() -> None:
    image = np.array([[2**63 + 4096, 2**63], [2**63, 2**63]], dtype=np.uint64)
    assert measure(image)["firstorder_range"] == 4096


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 70), (16, 16)])
@pytest.mark.parametrize("colour", [False, True])
def test_flat_and_small_images_have_the_same_finite_measurements(
    shape: tuple[int, int], colour: bool, lesion: np.ndarray, noise: np.ndarray
) -> None:
    flat = np.full((*shape, 3) if colour else shape, 7, dtype=np.uint8)
    found = measure(flat)
    assert list(found) == list(measure(lesion if colour else noise))
    assert np.isfinite(list(found.values())).all()
    assert found["firstorder_entropy"] == found["firstorder_variance"] == 0
    assert found["glcm_correlation"] == 1


def test_a_mask_sees_only_its_pixels(noise: np.ndarray) -> None:
    mask = np.zeros(noise.shape, dtype=bool)
    mask[4:28, 8:40] = True
    other = noise.copy()
    other[~mask] = 255
    assert measure(noise, mask=mask) == measure(other, mask=mask)
    alone = measure(noise[4:28, 8:40])
    inside = measure(noise, mask=mask.astype(np.uint8))
    assert inside == pytest.approx(alone)  # the block is aligned to the coarse grid


def test_pixels_that_are_not_finite_are_left_out(noise: np.ndarray) -> None:
    image = noise.astype(np.float32)
    mask = np.ones(noise.shape, dtype=bool)
    image[3, 4], image[7, 8] = np.nan, np.inf
    mask[3, 4] = mask[7, 8] = False
    assert measure(image) == measure(noise.astype(np.float32), mask=mask)


def test_measurements_are_python_floats(lesion: np.ndarray) -> None:
    assert {type(v) for v in measure(lesion).values()} == {float}


def test_texture_ignores_brightness_and_contrast(noise: np.ndarray) -> None:
    one, other = measure(noise), measure(noise.astype(np.int32) * 4 - 300)
    for name in one:
        if name.startswith(("glcm", "glrlm")):
            assert one[name] == pytest.approx(other[name])
    assert other["gradient_mean"] == pytest.approx(4 * one["gradient_mean"], rel=1e-5)


def test_the_region_of_an_ellipse(lesion: np.ndarray) -> None:
    found = measure(lesion)
    assert found["region_area_fraction"] == pytest.approx(np.pi * 20 * 30 / (96 * 120), rel=0.03)
    assert found["region_elongation"] == pytest.approx(20 / 30, abs=0.02)
    assert found["region_asymmetry_major"] < 0.05
    assert found["region_asymmetry_minor"] < 0.05
    assert found["region_irregularity"] == pytest.approx(1.06, abs=0.06)  # an ellipse of 2:3
    assert found["region_red_difference"] == pytest.approx(130, abs=6)
    assert found["region_off_centre"] < 0.01


def test_half_a_lesion_is_asymmetric(lesion: np.ndarray) -> None:
    lesion[:48, :60] = (220, 170, 150)
    found = measure(lesion)
    assert max(found["region_asymmetry_major"], found["region_asymmetry_minor"]) > 0.15


def test_a_given_region_replaces_the_threshold(lesion: np.ndarray) -> None:
    mask = np.zeros(lesion.shape[:2], dtype=bool)
    mask[10:30, 10:30] = True
    found = measure(lesion, mask=mask)
    assert found["region_area_fraction"] == pytest.approx(400 / mask.size)
    assert found["region_elongation"] == pytest.approx(1)


def test_holes_are_filled_and_a_dark_rim_is_not_the_lesion() -> None:
    gray = np.full((100, 100), 200, dtype=np.uint8)
    gray[35:65, 35:65] = 60
    gray[45:55, 45:55] = 200
    gray[:6] = 20
    found = outline(gray)
    assert found[50, 50] and not found[2, 50]


def test_otsu_parts_two_modes() -> None:
    gray = np.repeat(np.array([40, 42, 180, 182], dtype=np.uint8), 50).reshape(20, 10)
    assert 42 <= otsu(gray) < 180


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (np.zeros((2, 3, 4)), None),
        (np.zeros(5), None),
        (np.zeros((4, 4, 3), dtype=np.uint16), None),
        (np.zeros((4, 4), dtype=complex), None),
        (np.zeros((0, 4)), None),
        (np.zeros((4, 4)), np.zeros((4, 4))),
        (np.zeros((4, 4)), np.ones((4, 5))),
        (np.full((4, 4), np.nan), None),
    ],
)
def test_what_cannot_be_measured_is_said(image: np.ndarray, mask: np.ndarray | None) -> None:
    with pytest.raises(DataError):
        measure(image, mask=mask)


@pytest.mark.parametrize("offset", [0, -500, 10**9])
def test_percentiles_are_numpys(offset: int) -> None:
    values = np.random.default_rng(5).integers(0, 60, 777) + offset
    found = first_order(values)
    for name, rank in (("percentile_10", 10), ("median", 50), ("percentile_90", 90)):
        assert found[f"firstorder_{name}"] == pytest.approx(np.percentile(values, rank))
    upper, lower = np.percentile(values, [75, 25])
    assert found["firstorder_iqr"] == pytest.approx(upper - lower)
