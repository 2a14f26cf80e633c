"""Exports: npz snippet folders and HDF5 files have the content of the store, and trainings read them alike."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from frame_store_fakes import make_frame_store, moving_square, tiny_pixels, write_frames
from pose_items import made_poses, store_poses
from training_fakes import make_store, table_of, tiny_recipe, write_snippets, write_split

from actionprep.api import export_hdf5, export_npz
from actionprep.datasets.poses.raster import keypoint_raster
from actionprep.datasets.products.snippets import SnippetTable
from actionprep.datasets.store.hdf5_store import Hdf5Store
from actionprep.datasets.store.keys import ItemKey
from actionprep.datasets.store.npz_store import NpzStore
from actionprep.datasets.store.opening import open_store
from actionprep.datasets.store.reader import DamagedItemError
from actionprep.datasets.store.zarr_store import Store
from actionprep.errors import InputError, UserError
from actionprep.training.fit import fit
from actionprep.training.test import run_test

SIZES = {"width_multiplier": 0.0625, "dropout": 0.0}


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Frames of 24 x 32 pixels of two views, with a split."""
    store = make_frame_store(tmp_path_factory.mktemp("frames") / "store", product="frames", views=("0", "1"))
    write_split(store, "default", tested="4", val="3")
    return store


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = make_store(tmp_path_factory.mktemp("tracks") / "store", subjects=4)
    write_split(store, "default", tested="4", val="3")
    return store


def frame_recipe(**changes: object):
    return tiny_pixels(product="frames", **changes)


def metrics(store: Store | Path, run: Path, recipe) -> tuple[list[dict], dict]:
    """Metrics of all epochs without the time that they took, and of the test."""
    made = fit(store, recipe, run, tensorboard=False)
    epochs = [{name: value for name, value in row.items() if "second" not in name} for row in made.metrics]
    tested = run_test(made, repeats=20, view_subsets=False)
    return epochs, tested["metrics"]


# HDF5


def test_hdf5_has_the_arrays_and_attributes_of_the_store(tracks: Store, tmp_path: Path) -> None:
    made = export_hdf5(tracks, tmp_path / "store.h5")
    assert made.items == {"snippets": 1, "split": 1, "tracks": 12}
    assert made.num_bytes == (tmp_path / "store.h5").stat().st_size
    with h5py.File(tmp_path / "store.h5") as file:
        for key in tracks.items():
            item, group = tracks.item(key.product, key.recording, key.view), file[key.path]
            assert sorted(group) == list(item)
            for name in item:
                assert group[name].dtype == item[name].dtype
                assert group[name][()].tobytes() == item[name][:].tobytes()
                assert tuple(group[name].attrs["dimension_names"]) == item[name].axes
            assert json.loads(group.attrs["stage"]) == item.attributes
            assert json.loads(group.attrs["provenance"]) == item.provenance
            assert (group.attrs["digest"], group.attrs["fingerprint"]) == (item.digest, item.fingerprint)


@pytest.mark.parametrize("compress", [False, True])
def test_hdf5_store_equals_the_zarr_store(frames: Store, tmp_path: Path, compress: bool) -> None:
    export_hdf5(frames, tmp_path / "store.h5", compress=compress)
    store = open_store(tmp_path / "store.h5")
    assert isinstance(store, Hdf5Store)
    assert store.digest() == frames.digest()
    assert store.items() == frames.items()
    assert all(damage is None for _, damage in store.verify())
    rgb = store.item("frames", "s1_left_0", "1")["rgb"]
    assert np.array_equal(rgb[[3, 1, -1]], frames.item("frames", "s1_left_0", "1")["rgb"][[3, 1, -1]])
    assert rgb.axes == ("time", "y", "x", "channel")


def test_hdf5_keeps_empty_and_large_attributes_and_odd_arrays(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    with store.write("tracks", "a/b", "0", fingerprint="f", provenance={"settings": {"x": None}}) as item:
        item.write("none", np.zeros((0, 3), np.float32), axes=("time", "xy"), unit="px", description="no rows")
        item.write("flag", np.array([True, False]), axes=("time",))
        item.attributes["names"] = [f"recording {number}" for number in range(9000)]
    export_hdf5(store, tmp_path / "s.h5")
    copy = open_store(tmp_path / "s.h5").item("tracks", "a/b", "0")
    assert copy["none"].shape == (0, 3)
    assert copy["none"][:].shape == (0, 3)
    assert (copy["none"].unit, copy["none"].description) == ("px", "no rows")
    assert copy["flag"][:].tolist() == [True, False]
    assert copy.attributes == store.item("tracks", "a/b", "0").attributes


def test_fit_from_hdf5_equals_fit_from_zarr(tracks: Store, tmp_path: Path) -> None:
    export_hdf5(tracks, tmp_path / "store.h5")
    expected = metrics(tracks, tmp_path / "zarr", tiny_recipe())
    assert metrics(tmp_path / "store.h5", tmp_path / "hdf5", tiny_recipe()) == expected


def test_fit_with_workers_reads_hdf5(frames: Store, tmp_path: Path) -> None:
    export_hdf5(frames, tmp_path / "store.h5")
    recipe = frame_recipe(epochs=1, input__memory=0.0)
    assert metrics(tmp_path / "store.h5", tmp_path / "a", recipe.changed({"workers": 1})) == metrics(
        frames, tmp_path / "b", recipe.changed({"workers": 0})
    )


def test_export_hdf5_writes_chosen_products_and_views(frames: Store, tmp_path: Path) -> None:
    made = export_hdf5(frames, tmp_path / "s.h5", products=["frames"], views=["1"])
    assert made.items == {"frames": 12}
    assert {key.view for key in open_store(tmp_path / "s.h5").items()} == {"1"}
    with pytest.raises(UserError, match=r"no product 'frame'\. Did you mean 'frames'\? Available products: frames, sn"):
        export_hdf5(frames, tmp_path / "other.h5", products=["frame"])
    with pytest.raises(UserError, match=r"No view '7' in .* Available views: 0, 1\."):
        export_hdf5(frames, tmp_path / "other.h5", views=["7"])
    assert not (tmp_path / "other.h5").exists()


def test_export_hdf5_replaces_other_content_on_request(frames: Store, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    assert export_hdf5(frames, path).written
    assert not export_hdf5(frames, path).written
    with pytest.raises(UserError, match=r"not an export of the same items\. Replace it with --overwrite"):
        export_hdf5(frames, path, products=["frames"])
    assert export_hdf5(frames, path, products=["frames"], overwrite=True).items == {"frames": 24}
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


def test_interrupted_export_hdf5_keeps_the_old_file(frames: Store, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    path.write_bytes(b"old")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_hdf5(frames, path, overwrite=True, progress=stop)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("cut", [0.2, 0.95])
def test_truncated_hdf5_is_one_error(frames: Store, tmp_path: Path, cut: float) -> None:
    path = tmp_path / "s.h5"
    export_hdf5(frames, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(
        InputError, match=r"s\.h5 is not a sound HDF5 file: .*\nExport it again: actionprep export hdf5"
    ):
        open_store(path)


def test_flipped_bytes_in_hdf5_frames_are_found(frames: Store, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    export_hdf5(frames, path)
    with h5py.File(path) as file:
        chunk = file["frames/s1_left_0/0/rgb"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + 100] ^= 1
    path.write_bytes(content)
    store = open_store(path)
    with pytest.raises(DamagedItemError, match=r"Damaged array frames/s1_left_0/0/rgb in .*Export the file again"):
        store.item("frames", "s1_left_0", "0")["rgb"][:]
    assert [str(key) for key, damage in store.verify() if damage] == ["frames/s1_left_0/0"]


def test_changed_attributes_in_hdf5_are_found(frames: Store, tmp_path: Path) -> None:
    export_hdf5(frames, tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "a") as file:
        file["frames/s1_left_0/0"].attrs["stage"] = "{}"
        file["frames/s1_left_0/1/time"].attrs["unit"] = "ms"
    store = open_store(tmp_path / "s.h5")
    with pytest.raises(DamagedItemError, match="its attributes cannot be used"):
        store.has("frames", "s1_left_0", "0")
    with pytest.raises(DamagedItemError, match="not what was written"):
        store.item("frames", "s1_left_0", "1")["time"]


def test_hdf5_links_to_other_files_are_refused(frames: Store, tmp_path: Path) -> None:
    export_hdf5(frames, tmp_path / "s.h5")
    export_hdf5(frames, tmp_path / "other.h5")
    with h5py.File(tmp_path / "s.h5", "a") as file:
        del file["frames/s1_left_0/0/rgb"]
        file["frames/s1_left_0/0/rgb"] = h5py.ExternalLink("other.h5", "/frames/s1_left_0/0/rgb")
        file["lowres"] = h5py.ExternalLink("other.h5", "/frames")
    with pytest.raises(InputError, match=r"'lowres' in / is a link \(ExternalLink\), and links are not followed"):
        open_store(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5", "a") as file:
        del file["lowres"]
    with pytest.raises(DamagedItemError, match="is a link"):
        open_store(tmp_path / "s.h5").item("frames", "s1_left_0", "0")["rgb"]


def test_other_hdf5_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(UserError, match="is an HDF5 file, but not a store of actionprep"):
        open_store(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(UserError, match=r"text\.h5 is not an HDF5 file"):
        open_store(tmp_path / "text.h5")
    with pytest.raises(UserError, match=r"No HDF5 file at .*none\.h5"):
        open_store(tmp_path / "none.h5")
    with pytest.raises(UserError, match="No store at"):
        open_store(tmp_path / "none")


def test_exports_cannot_be_written_to(frames: Store, tmp_path: Path) -> None:
    export_hdf5(frames, tmp_path / "s.h5")
    with pytest.raises(UserError, match="is an HDF5 file, which is read-only"):
        open_store(tmp_path / "s.h5").remove(ItemKey("split", "default"))


# npz


def test_npz_folders_are_named_by_part_and_class(frames: Store, tmp_path: Path) -> None:
    made = export_npz(frames, tmp_path, name="my_study")
    assert made.folder == tmp_path / "my-study_default_length_0_sample_rate_1_iou_0"
    assert (made.written, made.kept, made.views) == (24, 0, ("0", "1"))
    assert made.snippets["train"] == {"left": 2, "right": 2, "up": 2}
    assert sorted(entry.name for entry in (made.folder / "test" / "left").iterdir()) == [
        "000000009_s4_left_0_0.npz",
        "000000009_s4_left_0_1.npz",
    ]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [made.folder.name]


def test_npz_folder_name_has_the_fields_of_the_gesture_system(tmp_path: Path) -> None:
    store = make_frame_store(tmp_path / "store", product="frames", subjects=3)
    table = SnippetTable.read(store.item("snippets", "default"))
    table.settings.update(length_s=1.3, threshold=0.55)
    write_snippets(store, table, "windows")
    made = export_npz(store, tmp_path / "out", snippets="windows", name="a", sample_rate=2)
    fields = made.folder.name.split("_")
    assert made.folder.name == "a_windows_length_1300_sample_rate_2_iou_0.55"
    assert (fields[3], fields[6]) == ("1300", "2")
    with np.load(next(made.folder.glob("*/*/*.npz"))) as file:
        assert len(file["video"]) == 6
        np.testing.assert_allclose(np.diff(file["time"]), 0.2)


def test_npz_files_have_the_stored_frames(frames: Store, tmp_path: Path) -> None:
    store = make_square_store(tmp_path / "store")
    made = export_npz(store, tmp_path / "out", size=24)
    for path in made.folder.glob("*/*/*.npz"):
        with np.load(path) as file:
            item = store.item("frames", str(file["recording"]), str(file["view"]))
            assert file["video"].dtype == np.uint8
            assert np.array_equal(file["video"], item["rgb"][:])
            assert file["time"].tolist() == item["time"][:].tolist()
    made = export_npz(frames, tmp_path / "large", size=320)
    with np.load(made.folder / "test/left/000000009_s4_left_0_0.npz") as file:
        first = frames.item("frames", "s4_left_0", "0")["rgb"][0]
        assert file["video"].shape == (12, 320, 320, 3)
        assert np.array_equal(file["video"][0], cv2.resize(first, (320, 320), interpolation=cv2.INTER_LINEAR))


def make_square_store(folder: Path, **options: object) -> Store:
    """Frames of 24 x 24 pixels of four subjects, with a split."""
    store = make_frame_store(folder, product="frames", **options)
    for key in store.items("frames"):
        images = store.item("frames", key.recording, key.view)["rgb"][:, :, 4:28].copy()
        write_frames(store, key.recording, key.view, images)
    write_split(store, "default", tested="4", val="3")
    return store


def test_fit_from_npz_equals_fit_from_zarr(tmp_path: Path) -> None:
    store = make_square_store(tmp_path / "store", views=("0", "1"))
    made = export_npz(store, tmp_path / "out", size=24)
    copy = open_store(tmp_path / "out")
    assert isinstance(copy, NpzStore)
    assert copy.url == str(made.folder)
    assert all(damage is None for _, damage in copy.verify())
    recipe = frame_recipe(epochs=2)
    expected, tested = metrics(store, tmp_path / "zarr", recipe)
    epochs, metrics_of_npz = metrics(made.folder, tmp_path / "npz", recipe)
    assert epochs == expected
    assert {name: metrics_of_npz[name] for name in ("accuracy", "macro_f1", "loss") if name in tested} == {
        name: tested[name] for name in ("accuracy", "macro_f1", "loss") if name in tested
    }


def test_npz_store_has_the_table_and_the_split(frames: Store, tmp_path: Path) -> None:
    table = SnippetTable.read(frames.item("snippets", "default"))
    store = open_store(export_npz(frames, tmp_path, size=16).folder)
    copy = SnippetTable.read(store.item("snippets", "default"))
    assert copy.labels == table.labels
    assert copy.label.tolist() == table.label.tolist()
    assert copy.onset.tolist() == table.onset.tolist()
    assert (copy.subjects, copy.sessions) == (table.subjects, table.recordings)
    assert copy.recordings[0] == "train/left/000000000_s1_left_0_0"
    part = frames.item("split", "default")["part"][:]
    assert np.array_equal(store.item("split", "default")["part"][:], part)


def test_labels_that_look_alike_in_file_names_stay_apart(tmp_path: Path) -> None:
    names = ("a/b", "a_b", "A_B")
    store = Store(tmp_path / "store", create=True)
    recordings = [f"day 1/{label}/{subject}" for subject in range(3) for label in ("x", "y", "z")]
    for number, recording in enumerate(recordings):
        write_frames(store, recording, "0", moving_square((1, 0), seed=number, size=(24, 24)))
    labels = [names["xyz".index(recording.split("/")[1])] for recording in recordings]
    write_snippets(store, table_of(recordings, labels, list("111222333"), seconds=1.2, names=names))
    made = export_npz(store, tmp_path / "out", size=16)
    assert len({path.parent.name.casefold() for path in made.folder.glob("train/*/*.npz")}) == 3
    copy = SnippetTable.read(open_store(made.folder).item("snippets", "default"))
    assert copy.labels == names
    assert [copy.labels[code] for code in copy.label] == labels


def test_multi_label_snippets_are_refused(tmp_path: Path) -> None:
    store = make_frame_store(tmp_path / "store", product="frames", subjects=3)
    table = SnippetTable.read(store.item("snippets", "default"))
    table.target[0] = 1
    write_snippets(store, table, "many")
    message = (
        r"The snippets 'many' are multi-label, and an npz folder has one class per file\. Export them as HDF5: actionprep "
        r"export hdf5 FILE\."
    )
    with pytest.raises(UserError, match=message):
        export_npz(store, tmp_path / "out", snippets="many")
    assert not (tmp_path / "out").exists()


def test_interrupted_export_npz_resumes(frames: Store, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_npz(frames, tmp_path / "out", size=16, progress=stop)
    assert not list((tmp_path / "out").glob("[!.]*"))
    with pytest.raises(UserError, match="No store at"):
        open_store(tmp_path / "out")
    made = export_npz(frames, tmp_path / "out", size=16)
    assert (made.written, made.kept) == (17, 7)
    whole = export_npz(frames, tmp_path / "whole", size=16)
    for path in whole.folder.glob("*/*/*.npz"):
        assert (made.folder / path.relative_to(whole.folder)).read_bytes() == path.read_bytes()


def test_export_npz_replaces_other_exports_on_request(frames: Store, tmp_path: Path) -> None:
    first = export_npz(frames, tmp_path, size=16)
    again = export_npz(frames, tmp_path, size=16)
    assert (again.folder, again.written, again.kept) == (first.folder, 0, 24)
    with pytest.raises(UserError, match=r"is an export of other content or settings\. Replace it with --overwrite"):
        export_npz(frames, tmp_path, size=24)
    export_npz(frames, tmp_path, size=24, overwrite=True)
    with np.load(next(first.folder.glob("*/*/*.npz"))) as file:
        assert file["video"].shape[1:3] == (24, 24)
    assert len(list(tmp_path.iterdir())) == 1


def test_export_npz_never_replaces_a_foreign_folder(frames: Store, tmp_path: Path) -> None:
    mine = tmp_path / "snippets_default_length_0_sample_rate_1_iou_0" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(UserError, match=r"is no export of actionprep\. Choose another folder or --name"):
        export_npz(frames, tmp_path, overwrite=True)
    assert mine.read_text() == "mine"


def test_keypoint_raster_has_one_pixel_per_joint() -> None:
    xy = np.array([[[[0, 0], [99, 49], [49.5, 24.5], [-20, 80]]]], np.float64)
    raster = keypoint_raster(xy, np.array([[[1, 0.1, 0, 0.5]]]), source=(50, 100), size=(20, 20))
    assert raster.dtype == np.uint8
    assert {tuple(at) for at in np.argwhere(raster[0])} == {(0, 0), (19, 19), (19, 0)}
    assert set(np.unique(raster)) == {0, 1}


def test_npz_files_have_a_raster_where_there_are_poses(tmp_path: Path) -> None:
    store = make_square_store(tmp_path / "store")
    poses = made_poses(12, fps=10.0)
    store_poses(store, "s1_left_0", poses)
    made = export_npz(store, tmp_path / "out", size=48)
    assert made.without_keypoints == 11
    with np.load(made.folder / "train/left/000000000_s1_left_0_0.npz") as file:
        expected = np.zeros((48, 48), np.uint8)
        for x, y in poses.keypoints[5, 0]:
            expected[round((y + 0.5) / 96 * 48 - 0.5), round((x + 0.5) / 128 * 48 - 0.5)] = 1
        assert file["keypoints"].shape == (12, 48, 48)
        assert np.array_equal(file["keypoints"][5], expected)
    item = open_store(made.folder).item("frames", "train/left/000000000_s1_left_0_0", "0")
    assert np.array_equal(item["keypoints"][5], expected)


# Folders of the gesture-snippet system


def write_gesture_folder(root: Path, *, frames: int = 39, rate: int = 1) -> Path:
    """Files as the gesture-snippet system writes them: without times, view and export.json."""
    folder = root / f"ellen_show_length_1300_sample_rate_{rate}_iou_0.55"
    number = 0
    for part, count in (("train", 3), ("val", 2), ("test", 2)):
        for label, direction in (("gesture", (1, 0)), ("nongesture", (0, 1))):
            (folder / part / label).mkdir(parents=True)
            for _ in range(count):
                video = moving_square(direction, frames=frames, size=(24, 24), seed=number)
                arrays = {"video": video, "keypoints": np.zeros(video.shape[:3], np.uint8)}
                np.savez_compressed(folder / part / label / f"{number:09d}_show_{part}.npz", **arrays)
                number += 1
    return folder


def test_gesture_folders_are_stores(tmp_path: Path) -> None:
    store = open_store(write_gesture_folder(tmp_path))
    table = SnippetTable.read(store.item("snippets", "default"))
    assert table.labels == ("gesture", "nongesture")
    assert (table.sessions[0], table.splits[0]) == ("show_train", "train")
    assert store.item("split", "default")["part"][:].tolist() == [[1] * 6 + [2] * 4 + [3] * 4]
    item = store.item("frames", "train/gesture/000000000_show_train", "0")
    np.testing.assert_allclose(item["time"][:], np.arange(39) / 29.97)
    assert table.offset[0] == pytest.approx(39 / 29.97)
    epochs, tested = metrics(store, tmp_path / "run", frame_recipe(epochs=1))
    assert len(epochs) == 1
    assert 0 <= tested["accuracy"] <= 1


def test_gesture_folder_of_every_third_frame_scales_the_interval(tmp_path: Path) -> None:
    store = open_store(write_gesture_folder(tmp_path, frames=13, rate=3))
    item = store.item("frames", "train/gesture/000000000_show_train", "0")
    np.testing.assert_allclose(item["time"][:], np.arange(13) * 3 / 29.97)


def test_npz_folder_without_times_and_rate_is_refused(tmp_path: Path) -> None:
    folder = write_gesture_folder(tmp_path).rename(tmp_path / "clips")
    with pytest.raises(InputError, match=r"has no array 'time', and the folder name 'clips' has no sample rate\. Add"):
        open_store(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), r"\.npz is not a sound npz file"),
        (lambda path: np.savez(path, x=np.zeros(3)), "expected an array 'video' of uint8 .* found no such array"),
        (lambda path: np.savez(path, video=np.zeros((3, 4, 4, 3))), r"found float64 of shape \(3, 4, 4, 3\)"),
        (lambda path: np.savez(path, video=np.zeros(2, object)), "holds Python objects"),
        (
            lambda path: _with(path, time=np.array([0.0, 1.0])),
            r"'time' is float64 of shape \(2,\); expected 39 increas",
        ),
        (lambda path: _with(path, keypoints=np.zeros(3, np.uint8)), "'keypoints' is uint8 of shape"),
        (lambda path: _with(path, view=np.zeros(3)), "'view' is float64 of shape .*; expected one text"),
        (lambda path: _with(path, onset=np.array("x")), "'onset' is .*; expected one number, seconds"),
    ],
)
def test_damaged_npz_files_are_one_error(tmp_path: Path, damage, message: str) -> None:
    path = write_gesture_folder(tmp_path) / "val/gesture/000000006_show_val.npz"
    damage(path)
    with pytest.raises(InputError, match=message) as error:
        open_store(tmp_path)
    assert str(path) in str(error.value)


def _with(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path) as file:
        content = dict(file)
    np.savez_compressed(path, **{**content, **arrays})


def test_npz_frames_that_change_after_opening_are_found(tmp_path: Path) -> None:
    folder = write_gesture_folder(tmp_path)
    store = open_store(folder)
    _with(folder / "train/gesture/000000000_show_train.npz", video=np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(DamagedItemError, match="has changed since it was opened"):
        store.item("frames", "train/gesture/000000000_show_train", "0")["rgb"][:]


def test_export_json_that_cannot_be_read_is_refused(frames: Store, tmp_path: Path) -> None:
    folder = export_npz(frames, tmp_path, size=16).folder
    (folder / "export.json").write_text('{"labels": {"left": 1}, "settings": {}}')
    with pytest.raises(InputError, match=r"export\.json cannot be read .*or delete this file"):
        open_store(folder)
    (folder / "export.json").unlink()
    assert open_store(folder).item("snippets", "default").attributes["labels"] == ["left", "right", "up"]


def test_several_npz_folders_are_named(tmp_path: Path) -> None:
    write_gesture_folder(tmp_path)
    write_gesture_folder(tmp_path, rate=3)
    with pytest.raises(UserError, match=r"has 2 folders of npz snippets: ellen_show_.*\. Name one of them\."):
        open_store(tmp_path)
