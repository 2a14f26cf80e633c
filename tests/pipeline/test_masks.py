"""Masks of what moves: where it is, whatever the blocks, with bounded memory; and how masks are stored and replayed."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_runs import blocks, patch_over_background, run_masks, texture, view_source

from actionprep.datasets.products.masks import pack_masks, unpack_masks
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.pipeline.index import find_stage
from actionprep.pipeline.mask_sources import MASK_SOURCES
from actionprep.pipeline.mask_sources.motion import MotionFinder
from actionprep.pipeline.mask_sources.settings import MasksSettings
from actionprep.pipeline.masks import Masks


def motion(**changes) -> MasksSettings:
    return MasksSettings(**changes)


def foreground_of(item, width: int) -> np.ndarray:
    return unpack_masks(item["foreground"], width)


def standing_person(num_frames: int = 40, *, height: int = 120, width: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Return frames of a person who stands still and swings one arm in frames 10 to 30, and the masks of the arm."""
    ground = texture(height, width, seed=1)
    body, skin = texture(70, 30, seed=2), texture(10, 34, seed=3)
    noise = np.random.default_rng(0)
    frames, arms = np.empty((num_frames, height, width), np.uint8), np.zeros((num_frames, height, width), bool)
    for t in range(num_frames):
        image = ground.copy()
        image[40:110, 65:95] = body
        swing = np.interp(t, [0, 10, 20, 30, num_frames], [80, 80, -60, 80, 80])
        turn = cv2.getRotationMatrix2D((0, 5), -swing, 1.0)
        turn[:, 2] += (94, 45)
        arm = cv2.warpAffine(skin, turn, (width, height))
        where = cv2.warpAffine(np.full(skin.shape, 255, np.uint8), turn, (width, height)) > 200
        image[where] = arm[where]
        frames[t] = np.clip(np.rint(image + noise.normal(0, 1.5, image.shape)), 0, 255)
        arms[t] = where
    return frames, arms


def test_the_arm_of_a_person_who_stands_still_is_found_while_it_moves():
    frames, arms = standing_person()
    foreground = foreground_of(run_masks(frames, motion()), 160)
    for t in range(6, 34):
        assert foreground[t][arms[t]].mean() > 0.7, f"frame {t}"
    assert foreground[:, :, :50].mean() < 0.01, "nothing moves on that side"
    assert 0.005 < foreground[10:30].mean() < 0.25


def test_a_still_scene_with_noise_has_no_foreground():
    noise = np.random.default_rng(0).normal(0, 3, (30, 96, 128))
    frames = np.clip(np.rint(texture(96, 128) + noise), 0, 255).astype(np.uint8)
    item = run_masks(frames, motion())
    assert not item["foreground"].any()
    assert item.attributes["num_empty"] == item.attributes["num_frames"] == 30
    assert item.attributes["is_empty"] is True


def test_a_moving_square_is_covered_and_little_else_is():
    frames = patch_over_background(30, 120, 240, size=30, start=(10, 40), step=(6, 0))
    item = run_masks(frames, motion())
    foreground = foreground_of(item, 240)
    for t in range(30):
        truth = np.zeros((120, 240), bool)
        truth[40:70, 10 + 6 * t : 40 + 6 * t] = True
        assert foreground[t][truth].mean() > 0.85
        # Before long the background is learnt without the square; at first it is in it.
        assert foreground[t].sum() < 4 * truth.sum()
    assert np.allclose(item["area"], foreground.mean(axis=(1, 2)))


def test_what_came_in_and_stands_still_stays_foreground_until_the_background_has_learnt_it():
    ground = texture(96, 128, seed=1)
    frames = np.repeat(ground[None], 200, axis=0)
    frames[40:, 30:60, 50:80] = 255 - frames[40:, 30:60, 50:80]
    frames = np.rint(frames).astype(np.uint8)
    foreground = foreground_of(run_masks(frames, motion(background=4.0)), 128)
    inside = foreground[:, 30:60, 50:80].mean(axis=(1, 2))
    assert inside[:25].max() == 0
    assert inside[60] > 0.7, "two seconds after it came to rest"
    assert inside[-1] < 0.1, "ten seconds after"


@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(1, 39), max_size=8))
def test_masks_do_not_depend_on_how_frames_come_in_blocks(cuts):
    frames, _ = standing_person()
    expected, masks = run_masks(frames, motion()), run_masks(frames, motion(), cuts=cuts)
    assert np.array_equal(expected["foreground"], masks["foreground"])
    assert np.array_equal(expected["area"], masks["area"])


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
def test_very_short_views_have_a_mask_for_each_frame(num_frames):
    frames = patch_over_background(num_frames, 64, 96, size=20, start=(5, 20), step=(8, 0))
    assert len(run_masks(frames, motion())["foreground"]) == num_frames


def test_memory_does_not_grow_with_the_length():
    finder = MotionFinder(reach=15, threshold=16, background_frames=300, min_area=0.0005, grow=0.01)
    image = np.rint(texture(40, 60)).astype(np.uint8)
    largest = ready = 0
    for t in range(1000):
        ready += len(finder.push(np.roll(image, t, axis=1)))
        largest = max(largest, finder.num_held)
        assert ready == max(0, t + 1 - 15)
    assert largest <= 2 * 15 + 1
    assert ready + len(finder.finish()) == 1000


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_unpacking_gives_back_what_was_packed(num_frames, height, width, seed):
    masks = np.random.default_rng(seed).random((num_frames, height, width)) < 0.5
    packed = pack_masks(masks)
    assert packed.shape == (num_frames, height, (width + 7) // 8)
    assert np.array_equal(unpack_masks(packed, width), masks)


def test_unpacking_to_a_wrong_width_is_an_error():
    with pytest.raises(ValueError, match="Masks 17 px wide are packed into 3 bytes a row, not 2"):
        unpack_masks(np.zeros((1, 4, 2), np.uint8), 17)


def test_stored_masks_replay_frame_by_frame(tmp_path: Path):
    frames, _ = standing_person()
    source = view_source(*frames.shape)
    store = Store(tmp_path / "store", create=True)
    with store.write("masks", "kitchen/seq", "0", fingerprint="f", provenance={}) as item:
        stage = Masks(motion(), source, item, {})
        pushed = [stage.push(block, {}) for block in blocks(frames, source, [7, 8, 30])]
        pushed.append(stage.finish({}))
    live = np.concatenate([block.foreground for block in pushed])
    reader = store.item("masks", "kitchen/seq", "0")
    *replayed, rest = Masks.replay(reader, iter(blocks(frames, source, [20])))
    assert [block.index.tolist() for block in replayed] == [list(range(20)), list(range(20, 40))]
    assert np.array_equal(np.concatenate([block.foreground for block in replayed]), live)
    assert rest.foreground.shape == (0, 120, 160)
    assert reader.attributes["source"] == "motion"


def test_the_stage_and_its_sources_are_registered():
    assert find_stage("masks") is Masks
    assert {"motion", "files"} <= set(MASK_SOURCES)
    assert all(MASK_SOURCES.help(name) for name in MASK_SOURCES)


def test_a_wrong_source_is_explained():
    with pytest.raises(
        UserError, match=r"Wrong value for 'source' in \[masks\].*No mask source 'moton'. Did you mean 'motion'"
    ):
        MasksSettings.read({"source": "moton"}, where="[masks]")


def test_files_without_a_pattern_are_explained():
    with pytest.raises(UserError, match=r"'files' is the pattern for source = \"files\": give both or neither"):
        MasksSettings.read({"source": "files"}, where="[masks]")


def test_an_empty_mask_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_masks(np.zeros((5, 32, 40), np.uint8), motion())
