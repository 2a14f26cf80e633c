import cv2
import numpy as np
import pytest
import torch
from frame_store_fakes import make_frame_store, moving_square, tiny_pixels, write_frames, write_lowres
from training_fakes import MOTIONS, table_of, write_snippets

from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import UserError
from actionprep.training.datasets import SnippetDataset, SnippetLoader
from actionprep.training.inputs._frames import cut, motion_box, recolored
from actionprep.training.inputs.frames import FramesInput
from actionprep.training.inputs.lowres import LowresInput
from actionprep.training.inputs.rng import Draws


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_frame_store(tmp_path_factory.mktemp("clips") / "store", subjects=2)


def dataset(store, settings, **options) -> SnippetDataset:
    return SnippetDataset(store, inputs=settings, split=None, **options)


def test_a_test_clip_is_the_stored_bytes_where_nothing_is_scaled(store):
    result = dataset(store, LowresInput(frames=12, size=24)).batch([0])["clip"]
    stored = store.item("lowres", "s1_left_0", "0")["rgb_24"][:]
    assert result.dtype == torch.uint8
    np.testing.assert_array_equal(result[0].permute(1, 2, 3, 0).numpy(), stored[:, :, 4:28])


def test_squeezed_clips_show_the_full_frame_in_a_square(store):
    result = dataset(store, LowresInput(frames=12, size=12, fit="squeeze")).batch([0])["clip"][0, 0].numpy()
    stored = store.item("lowres", "s1_left_0", "0")["rgb_24"][:, :, :, 0]
    expected = np.stack([cv2.resize(entry, (12, 12), interpolation=cv2.INTER_AREA) for entry in stored])
    assert np.abs(result.astype(int) - expected).mean() < 6


def test_strong_downscaling_does_not_alias():
    stripes = torch.zeros(1, 1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    result = cut(stripes, torch.tensor([[0.0, 0.0, 64.0, 64.0]]), 16)
    torch.testing.assert_close(result, torch.full_like(result, 100.0))


def test_crop_beyond_the_frame_repeats_the_frame_edge():
    padded = torch.zeros(1, 1, 3, 20, 20, dtype=torch.uint8)
    padded[..., :10, :10] = 90
    for box in ([-10.0, -10.0, 20.0, 20.0], [-30.0, -30.0, 50.0, 50.0]):
        result = cut(padded, torch.tensor([box]), 8, within=torch.tensor([[10, 10]]))
        torch.testing.assert_close(result, torch.full_like(result, 90.0))


def test_all_frames_of_a_clip_are_turned_and_colored_alike():
    clip = torch.full((2, 3, 5, 8, 8), 100.0)
    factors = {name: torch.tensor([1.2, 0.7]) for name in ("brightness", "contrast", "saturation")}
    result = recolored(clip, **factors, gray=torch.tensor([False, True]))
    assert (result == result[:, :, :1]).all()
    assert result[0].mean() == pytest.approx(120, abs=0.1)
    assert result[1].mean() == pytest.approx(70, abs=0.1)


def test_what_moves_is_found():
    images = moving_square(MOTIONS["right"], size=(48, 64))
    x0, y0, x1, y1 = motion_box(images, margin=0.0)
    moved = np.argwhere((images != 40).any(axis=(0, 3)))
    (top, left), (bottom, right) = moved.min(axis=0), moved.max(axis=0) + 1
    assert x0 == pytest.approx(left, abs=2)
    assert x1 == pytest.approx(right, abs=2)
    assert y0 <= top
    assert y1 >= bottom
    assert x1 - x0 == y1 - y0
    assert motion_box(np.full((5, 20, 20, 3), 7, np.uint8)) is None


def test_training_samples_are_functions_of_seed_epoch_and_snippet(store):
    settings = LowresInput(frames=6, size=16, crop=(0.6, 1.0), rotation=0.2, brightness=0.3, trim=0.2, time_warp=0.4)
    entry = dataset(store, settings, train=True, seed=3)
    whole = entry.batch([0, 3, 4], epoch=2, augment=True)["clip"]
    alone = entry.batch([3], epoch=2, augment=True)["clip"]
    torch.testing.assert_close(whole[1:2], alone)
    assert not torch.allclose(alone, entry.batch([3], epoch=3, augment=True)["clip"])


def test_workers_that_read_as_needed_give_what_memory_gives(store):
    settings = {"frames": 5, "size": 16, "crop": (0.7, 1.0), "region": "motion"}
    batches = []
    for memory, workers in ((4.0, 0), (0.0, 2)):
        data = dataset(store, LowresInput(**settings, memory=memory), train=True, seed=1)
        assert data.reader.in_memory == (memory > 0)
        loader = SnippetLoader(data, batch=4, shuffle=True, workers=workers)
        batches.append([data.augmented(batch) for batch in loader])
    assert len(batches[0]) == 2
    for entry, other in zip(*batches, strict=True):
        torch.testing.assert_close(entry["clip"], other["clip"])
        assert entry["row"].tolist() == other["row"].tolist()


def test_variants_are_clips_times_crops_and_the_first_is_the_middle(store):
    settings = LowresInput(frames=4, size=12, sampling="dense", clips=3, crops=3)
    assert settings.variants == 9
    assert tiny_pixels(input__clips=3, input__crops=3).test_variants == 9
    data = dataset(store, settings)
    middle = data.batch([0])["clip"]
    result = []
    for variant in range(9):
        data.variant = variant
        result.append(data.augmented(data.batch([0]))["clip"])
    torch.testing.assert_close(result[0], middle)
    stored = store.item("lowres", "s1_left_0", "0")["rgb_24"][:]
    first_frames = {tuple(entry[0, :, 0].flatten().tolist()) for entry in result}
    assert len(first_frames) == 9
    # Crop 1 of the middle clip is at the left edge, crop 2 at the right edge.
    plain = dataset(store, LowresInput(frames=4, size=24, sampling="dense", crops=3))
    for variant, left in ((1, 0), (2, 8)):
        plain.variant = variant
        clip = plain.batch([0])["clip"][0].permute(1, 2, 3, 0).numpy()
        np.testing.assert_array_equal(clip, stored[4:8, :, left : left + 24])


def test_crops_of_training_keep_to_their_anchor(store):
    settings = LowresInput(frames=2, size=16, crop=(0.5, 0.5), anchor=(0.5, 1.0), around=0.0)
    reader = dataset(store, settings, train=True).reader
    region = torch.tensor([[[0.0, 0.0, 32.0, 24.0]]])
    box = reader._crop_boxes(region, torch.tensor([[0.3, -1.0, 0.9]]), None, 1.0, 0)
    assert box[0, 0].tolist() == [10.0, 12.0, 22.0, 24.0]


def test_a_mirrored_sample_changes_its_label_and_needs_a_map_for_sides(store):
    with pytest.raises(
        UserError, match=r"the labels left, right name a side\. Set the label after mirroring with input"
    ):
        dataset(store, LowresInput(flip=0.5))
    pairs = {"left": "right", "right": "left"}
    settings = LowresInput(frames=4, size=24, flip=1.0, flip_labels=pairs, crop=(1.0, 1.0))
    data = dataset(store, settings, train=True)
    rows = [0, 1, 2]
    mirrored = data.batch(rows, augment=True)
    assert [data.labels[code] for code in mirrored["label"].tolist()] == ["right", "left", "up"]
    plain = dataset(store, LowresInput(frames=4, size=24, crop=(1.0, 1.0)), train=True).batch(rows, augment=True)
    torch.testing.assert_close(mirrored["clip"], plain["clip"].flip(-1), atol=1e-2, rtol=0)


def test_cutmix_replaces_a_rectangle_in_all_frames(store):
    reader = dataset(store, LowresInput(frames=3, size=16)).reader
    clip = torch.stack([torch.full((3, 3, 16, 16), float(value)) for value in (0, 1)])
    partner = torch.tensor([1, 0])
    mixed, share = reader.cut({"clip": clip}, partner, torch.tensor([0.75, 0.75]), Draws(0, 0, [4, 5]))
    assert share.tolist() == [0.75, 0.75]
    result = mixed["clip"]
    assert (result == result[:, :1, :1]).all()
    assert result[0].mean() == 0.25
    assert result[1].mean() == 0.75


def test_several_views_are_one_each_in_training_and_all_in_a_test(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=1, views=("0", "1"))
    settings = LowresInput(frames=4, size=16)
    assert dataset(store, settings).batch([0, 1])["clip"].shape == (2, 2, 3, 4, 16, 16)
    train = dataset(store, settings, train=True)
    run = dataset(store, LowresInput(frames=12, size=16, sampling="dense"), train=True)
    seen = {bytes(run.batch([0], epoch=epoch)["images"].numpy()) for epoch in range(12)}
    assert len(seen) == 2
    assert train.batch([0, 1], augment=True)["clip"].shape == (2, 3, 4, 16, 16)
    every = dataset(store, LowresInput(frames=4, size=16, several_views="all"), train=True)
    batch = every.batch([0, 1], augment=True)
    assert batch["clip"].shape == (2, 2, 3, 4, 16, 16)
    assert batch["view_valid"].all()


def test_a_missing_view_is_marked(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=1, views=("0",))
    write_lowres(store, "s1_left_0", "1", moving_square(MOTIONS["left"]))
    batch = dataset(store, LowresInput(frames=4, size=16)).batch([0, 1])
    assert batch["view_valid"].tolist() == [[True, True], [True, False]]
    assert batch["clip"][1, 1].sum() == 0


def test_videos_of_other_sizes_are_read_side_by_side(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=1)
    write_lowres(store, "s1_up_0", "0", moving_square(MOTIONS["up"], size=(24, 60)))
    batch = dataset(store, LowresInput(frames=3, size=24)).batch([0, 1, 2])
    assert batch["clip"].shape == (3, 3, 3, 24, 24)
    assert batch["clip"].min() >= 39


def test_sizes_of_lowres_are_chosen_and_a_missing_one_is_named(store):
    with pytest.raises(
        UserError, match=r"has no size 112\. Available sizes: 24\.\nCreate it with 'actionprep lowres --sizes 24 112'"
    ):
        dataset(store, LowresInput(stored=112))


def frames_store(tmp_path, which: str, index: np.ndarray) -> Store:
    store = Store(tmp_path / "store", create=True)
    for label in ("left", "up"):
        write_frames(store, label, "0", moving_square(MOTIONS[label], frames=20), which=which, index=index)
    write_snippets(store, table_of(["left", "up"], ["left", "up"], ["1", "2"], seconds=2.0, names=("left", "up")))
    return store


def test_keyframes_serve_where_there_are_enough_of_them(tmp_path):
    store = frames_store(tmp_path, "keyframes", np.array([0, 3, 9, 11, 18]))
    assert dataset(store, FramesInput(frames=4, size=24)).batch([0])["clip"].shape == (1, 3, 4, 24, 24)
    message = r"contains frames of keyframes only\. The snippet left at 0\.00 s, view '0' has 5 of them, but this recipe requires 8"
    with pytest.raises(UserError, match=message) as caught:
        dataset(store, FramesInput(frames=8, size=24))
    assert "actionprep decode --which segments" in str(caught.value)
    with pytest.raises(UserError, match="requires consecutive frames"):
        dataset(store, FramesInput(frames=4, size=24, sampling="dense"))


def test_frames_around_segments_must_cover_the_snippets(tmp_path):
    store = frames_store(tmp_path, "segments", np.arange(2, 12))
    message = r"around annotated segments only\. 0\.80 s of the snippet left at 0\.00 s, .*\nDecode all frames"
    with pytest.raises(UserError, match=message):
        dataset(store, FramesInput(frames=4, size=24))


def test_clips_reader_names_snippets_without_frames(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=1)
    table = table_of(["s1_left_0", "s9"], ["left", "up"], ["1", "2"], seconds=1.0)
    write_snippets(store, table, "more")
    with pytest.raises(UserError, match=r"1 of 2 snippets have no lowres in .*: s9 at 0\.00 s\.\nCreate them with"):
        SnippetDataset(store, "more", LowresInput(frames=4, size=16))


def test_clips_reader_rejects_frames_of_another_kind(tmp_path):
    store = make_frame_store(tmp_path / "store", subjects=1)
    with store.write("lowres", "s1_left_0", "0", fingerprint="x", provenance={}) as item:
        item.write("rgb_24", np.zeros((4, 24, 24, 3), np.float32), axes=("time", "y", "x", "channel"))
        item.write("time", np.arange(4.0), axes=("time",))
    with pytest.raises(UserError, match=r"has dtype float32 and shape .*; expected uint8 frames"):
        dataset(store, LowresInput(frames=4, size=16))


def test_the_span_of_a_recording_ends_after_its_last_frame(store):
    reader = dataset(store, LowresInput(frames=4, size=16)).reader
    assert reader.span(store, "s1_left_0", ["0"]) == pytest.approx((0.0, 1.2))


def test_clips_description_states_channels_and_axes(store):
    result = dataset(store, LowresInput(frames=4, size=24, region="motion"))
    meaning = result.reader.meanings()["clip"]
    assert "RGB from 0 to 255" in meaning
    assert "axes batch, color, frame (in temporal order), y, x" in meaning
    assert "a square of what moves, 24 px a side" in meaning
    assert set(result.reader.meanings()) >= set(result.reader.read([0]))
