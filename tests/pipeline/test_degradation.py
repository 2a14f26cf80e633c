"""Degraded and cropped images: blur, noise and JPEG, and the settings of lowres that apply them."""

from __future__ import annotations

import numpy as np
import pytest

from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.pipeline.degradation import blur_kernel, blurred, through_jpeg, with_noise
from actionprep.pipeline.lowres import Lowres, LowresSettings, crop_square
from actionprep.pipeline.stage import ArrayBlock, ViewSource

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), np.uint8)


def test_blur_kernel_has_its_standard_deviation():
    kernel = blur_kernel(2.0, "gaussian", np.random.default_rng(0))
    offsets = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.sqrt((kernel.sum(axis=0) * offsets**2).sum()) == pytest.approx(2.0, rel=0.05)
    np.testing.assert_allclose(kernel, kernel.T)


def test_blur_kernel_of_unknown_camera_is_random():
    kernels = [blur_kernel(3.0, "random", np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])
    assert not np.allclose(kernels[0], kernels[0].T)


def test_blurred_spreads_a_point():
    point = np.zeros((1, 15, 15, 3), np.uint8)
    point[0, 7, 7] = 255
    kernel = np.zeros((3, 3), np.float32)
    kernel[1, 1], kernel[1, 2] = 0.6, 0.4
    spread = blurred(point, kernel)[0, :, :, 0]
    assert spread[7, 7:9].tolist() == [153, 102]
    assert spread.sum() == 255


def test_with_noise_has_its_standard_deviation():
    gray = np.full((2, 64, 64, 3), 128, np.uint8)
    noisy = with_noise(gray, 5.0, [[1, 0], [1, 1]]).astype(float)
    assert noisy.std() == pytest.approx(5.0, rel=0.05)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    assert not np.array_equal(noisy[0], noisy[1])
    np.testing.assert_array_equal(with_noise(gray[1:], 5.0, [[1, 1]])[0], noisy[1])


def test_through_jpeg_loses_more_at_low_quality():
    smooth = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, None, :, None], 48, axis=1).repeat(3, axis=3)
    errors = [np.abs(through_jpeg(smooth, quality).astype(int) - smooth).mean() for quality in (95, 5)]
    assert errors[0] < 2 < errors[1]


def stored(folder, blocks, **values):
    store = Store(folder, create=True)
    source = ViewSource("kitchen", "left", "", 48, 64, 25.0, np.arange(6) / 25)
    with store.write("lowres", "kitchen", "left", fingerprint="f", provenance={}) as item:
        stage = Lowres(LowresSettings(sizes=(24, 12), **values), source, item, {})
        for rows in blocks:
            stage.push(ArrayBlock(IMAGES[rows], time=source.times[rows], index=np.arange(6)[rows]), {})
        stage.finish({})
    read = store.item("lowres", "kitchen", "left")
    return read["rgb_24"][:], read["rgb_12"][:]


DEGRADED = {"blur": 1.0, "blur_kernel": "random", "noise": 4.0, "jpeg": 60, "seed": 3}


def test_lowres_degrades_the_same_in_any_blocks(tmp_path):
    whole = stored(tmp_path / "a", [slice(0, 6)], **DEGRADED)
    parts = stored(tmp_path / "b", [slice(0, 1), slice(1, 6)], **DEGRADED)
    for entry, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(entry, other)
    assert not np.array_equal(whole[0], stored(tmp_path / "c", [slice(0, 6)], **{**DEGRADED, "seed": 4})[0])
    assert not np.array_equal(whole[0], stored(tmp_path / "d", [slice(0, 6)])[0])


def test_lowres_settings_record_degradation_only_where_set():
    assert set(LowresSettings().recorded()) == {"sizes", "square", "filter", "storage", "chunk"}
    assert LowresSettings(noise=2.0).recorded()["noise"] == 2.0
    assert "cv2" not in Lowres.identity(LowresSettings())
    assert "cv2" in Lowres.identity(LowresSettings(jpeg=50))


@pytest.mark.parametrize(
    ("anchor", "square"), [((0.5, 0.5), (20, 12, 24)), ((0.0, 1.0), (0, 24, 24)), ((0.75, 0.25), (36, 0, 24))]
)
def test_crop_square_stays_in_the_frame(anchor, square):
    assert crop_square(LowresSettings(crop=0.5, crop_anchor=anchor), 48, 64) == square


def test_lowres_crop_is_the_mean_of_its_pixels(tmp_path):
    large, small = stored(tmp_path, [slice(0, 6)], crop=0.5, crop_anchor=(0.75, 0.25))
    np.testing.assert_array_equal(large, IMAGES[:, 0:24, 36:60])
    means = IMAGES[:, 0:24, 36:60].reshape(6, 12, 2, 12, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(small, means, atol=1)


@pytest.mark.parametrize("filter", ["area", "bilinear", "bicubic"])
def test_lowres_crop_is_anti_aliased(tmp_path, filter, monkeypatch):
    # Columns that alternate between black and white have the mean gray in every anti-aliased copy.
    stripes = np.zeros((6, 48, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    monkeypatch.setitem(globals(), "IMAGES", stripes)
    _, small = stored(tmp_path, [slice(0, 6)], crop=1.0, filter=filter)
    assert np.abs(small[:, :, 1:-1].astype(int) - 128).max() <= 12


def test_lowres_settings_refuse_an_anchor_outside():
    with pytest.raises(UserError, match="x and y from 0 to 1"):
        LowresSettings.read({"crop": 0.5, "crop_anchor": (0.5, 1.5)}, where="[lowres]")
