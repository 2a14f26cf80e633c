"""Exports of poses and tracks: files of other programs read back equal, and their own libraries open them."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from pose_items import made_poses, store_poses
from recordings import FRAMES, HEIGHT, WIDTH, video_study
from typer.testing import CliRunner

from actionprep.api import export_poses, export_tapvid, import_poses
from actionprep.cli.prep import app
from actionprep.datasets.poses.formats import detect_format, read_poses
from actionprep.datasets.poses.individuals import individuals_of
from actionprep.datasets.poses.sequence import PoseItem, PoseSequence
from actionprep.datasets.poses.skeletons import layout_of_names, skeleton
from actionprep.datasets.poses.writers import WRITERS, ViewPoses
from actionprep.errors import UserError

TAIL = ["nose", "left_ear", "right_ear", "tail"]


def tail_layout() -> str:
    return layout_of_names(TAIL, name="mouse", limbs=[(0, 3), (1, 0)]).name


def gappy(layout: str = "coco17", *, linked: bool = True, dimensions: int = 2, seed: int = 0) -> PoseSequence:
    """Two people with ids 2 and 5 (if linked); one is absent in frame 3, and some joints are missing."""
    made = made_poses(FRAMES, 2, layout=layout, image_size=(HEIGHT, WIDTH), dimensions=dimensions, seed=seed)
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.05, 1, made.score.shape)
    score[3, 1], score[5, 0, 2] = 0, 0
    ids = np.array([2, 5]) * np.ones((FRAMES, 1), int)
    return PoseSequence.of(
        made.keypoints * 1.0037,
        score,
        skeleton=layout,
        track_id=np.where((score > 0).any(-1), ids, -1) if linked else None,
        image_size=(HEIGHT, WIDTH) if dimensions == 2 else None,
        time=np.arange(FRAMES) / 30,
    )


def written(folder, format, poses: PoseSequence):
    path = folder / f"clip{WRITERS[format].suffix}"
    item = PoseItem("clip", poses, view="0", label=0)
    view = ViewPoses(item, 30.0)
    WRITERS[format].write(path, [view] if WRITERS[format].joint else view)
    return path


def assert_equal_people(read: PoseSequence, expected: PoseSequence) -> None:
    mine, other = individuals_of(read), individuals_of(expected)
    assert np.array_equal(mine.score, other.score)
    assert np.array_equal(mine.keypoints, other.keypoints, equal_nan=True)
    assert skeleton(read.skeleton).joints == skeleton(expected.skeleton).joints


@pytest.mark.parametrize("linked", [True, False])
@pytest.mark.parametrize("format", WRITERS)
def test_written_poses_read_back_equal(tmp_path, format, linked):
    poses = gappy(tail_layout(), linked=linked)
    path = written(tmp_path, format, poses)
    assert detect_format(path) == WRITERS[format].reads
    [item] = read_poses(path)
    assert_equal_people(item.poses, poses)
    if format != "pyskl":
        names = individuals_of(item.poses).names
        assert names == (("id_2", "id_5") if linked else ("slot_0", "slot_1"))
    assert skeleton(item.poses.skeleton).limbs == (() if format in ("dlc", "pyskl") else ((0, 3), (0, 1)))


@pytest.mark.parametrize("format", [name for name, writer in WRITERS.items() if 3 in writer.dimensions])
def test_written_3d_poses_read_back_equal(tmp_path, format):
    poses = gappy("ntu25", dimensions=3)
    if format == "pyskl":  # 3D pickles have no scores
        poses = PoseSequence.of(
            poses.keypoints, poses.score > 0, skeleton="ntu25", track_id=poses.track_id, time=poses.time
        )
    [item] = read_poses(written(tmp_path, format, poses), WRITERS[format].reads)
    assert_equal_people(item.poses, poses)


def two_view_study(folder):
    study = video_study(folder, views=("0", "1"), recordings=("day/a", "b"))
    poses = {}
    for number, view in enumerate(study.catalog.views):
        poses[view.recording, view.id] = entry = gappy(seed=number)
        store_poses(study.store, view.recording, entry, view=view.id, num_persons_found=2)
    return study, poses


@pytest.mark.parametrize("format", ["coco", "netcdf"])
def test_exported_poses_import_into_a_study(tmp_path, format):
    study, poses = two_view_study(tmp_path / "from")
    made = export_poses(study, tmp_path / "out", format)
    assert (made.files, made.views, made.written) == (4, 4, True)
    assert not export_poses(study, tmp_path / "out", format).written
    other = video_study(tmp_path / "to", views=("0", "1"), recordings=("day/a", "b"))
    done = import_poses(other.root, [made.pattern])
    assert done.report.ok
    for (recording, view), expected in poses.items():
        assert_equal_people(other.poses(recording, view=view), expected)
        stored = other.item("pose", recording, view).attributes
        assert stored["format"] == made.reads


def test_export_pyskl_has_one_file_per_view(tmp_path):
    study, _ = two_view_study(tmp_path)
    with pytest.raises(UserError, match=r"Recording 'b' has no label, and a PySKL annotation needs one"):
        export_poses(study, tmp_path / "out", "pyskl")
    assert not (tmp_path / "out").exists()


def test_export_command_prints_how_to_read_the_files(tmp_path):
    two_view_study(tmp_path)
    words = ["export", "dlc", str(tmp_path / "out"), "--study", str(tmp_path), "--views", "1"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "actionprep import deeplabcut" in result.output
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.csv")) == [
        "b/1.csv",
        "day/a/1.csv",
    ]


def test_export_over_other_content_is_refused(tmp_path):
    study, _ = two_view_study(tmp_path)
    export_poses(study, tmp_path / "out", "coco", views=["0"])
    with pytest.raises(UserError, match=r"out exists and is an export of other content or settings\. Replace it with"):
        export_poses(study, tmp_path / "out", "coco")
    assert export_poses(study, tmp_path / "out", "coco", overwrite=True).files == 4
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"mine exists and is no export of actionprep\. Choose another folder\."):
        export_poses(study, tmp_path / "mine", "coco", overwrite=True)


def test_export_without_poses_or_format_is_refused(tmp_path):
    study = video_study(tmp_path)
    with pytest.raises(UserError, match=r"has no pose\. Available products: none\. Make them with 'actionprep pose'"):
        export_poses(study, tmp_path / "out", "coco")
    with pytest.raises(UserError, match=r"Poses are not written as 'netcfd'\. Did you mean 'netcdf'\?"):
        export_poses(study, tmp_path / "out", "netcfd")
    with pytest.raises(
        UserError, match=r"has no tracks\. Available products: none\. Make them with 'actionprep track'"
    ):
        export_tapvid(study, tmp_path / "out")


def test_3d_poses_are_refused_as_coco():
    view = ViewPoses(PoseItem("a", gappy("ntu25", dimensions=3), view="0"), 30.0)
    with pytest.raises(UserError, match=r"are 3D, and 'coco' files are 2D\. Formats for 3D: pyskl, dlc, nwb, netcdf\."):
        WRITERS["coco"].check(view)


@pytest.mark.parametrize(("format", "package"), [("sleap", "sleap_io"), ("nwb", "ndx_pose"), ("netcdf", "h5netcdf")])
def test_missing_package_names_the_extra(tmp_path, monkeypatch, format, package):
    monkeypatch.setitem(sys.modules, package, None)
    message = (
        rf"Files of the format '{format}' need the package '{package}', which is not installed\. "
        r"Install it with: pip install 'actionprep\[formats\]'"
    )
    with pytest.raises(UserError, match=message):
        written(tmp_path, format, gappy())


# Opened by the library of each program


def test_sleap_file_opens_with_sleap_io(tmp_path):
    sleap_io = pytest.importorskip("sleap_io")
    poses = gappy(tail_layout())
    labels = sleap_io.load_file(str(written(tmp_path, "sleap", poses)), open_videos=False)
    assert [track.name for track in labels.tracks] == ["id_2", "id_5"]
    assert labels.skeleton.node_names == TAIL
    assert [tuple(edge) for edge in labels.skeleton.edge_inds] == [(0, 3), (0, 1)]
    points = labels.numpy(return_confidence=True)
    people = individuals_of(poses)
    assert np.array_equal(points[..., :2].astype(np.float32), people.keypoints, equal_nan=True)
    seen = people.score > 0
    assert points[..., 2][seen] == pytest.approx(people.score[seen])


def test_netcdf_file_has_the_form_of_movement(tmp_path):
    xarray = pytest.importorskip("xarray")
    poses = gappy()
    with xarray.open_dataset(written(tmp_path, "netcdf", poses), engine="h5netcdf") as dataset:
        assert dataset.position.dims == ("time", "space", "keypoints", "individuals")
        assert dataset.confidence.dims == ("time", "keypoints", "individuals")
        assert {name: dataset.attrs[name] for name in ("ds_type", "fps", "time_unit", "source_software")} == {
            "ds_type": "poses",
            "fps": 30.0,
            "time_unit": "seconds",
            "source_software": "actionprep",
        }
        nose = dataset.position.sel(keypoints="nose", individuals="id_5")
        assert np.array_equal(nose.sel(space="x").values[:3], poses.keypoints[:3, 1, 0, 0])
        assert np.isnan(nose.values[3]).all()
        assert dataset.time.values.tolist() == poses.time.tolist()


def test_netcdf_of_movement_in_frames(tmp_path):
    xarray = pytest.importorskip("xarray")
    position = np.arange(2 * 3 * 2 * 2, dtype=float).reshape(2, 2, 3, 2)  # time, individuals, keypoints, space
    dataset = xarray.Dataset(
        {"position": (("time", "individuals", "keypoints", "space"), position)},
        coords={"time": [4, 7], "individuals": ["m", "f"], "keypoints": ["a", "b", "c"], "space": ["x", "y"]},
        attrs={"ds_type": "poses", "time_unit": "frames"},
    )
    dataset.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    [item] = read_poses(tmp_path / "x.nc")
    assert item.poses.frame_index.tolist() == [4, 7]
    assert item.poses.keypoints[1].tolist() == position[1].tolist()
    assert item.poses.track_id.tolist() == [[0, 1], [0, 1]]
    assert item.extra["individuals"] == ["m", "f"]


def test_nwb_file_opens_with_pynwb(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    pytest.importorskip("ndx_pose")
    poses = gappy(tail_layout())
    path = written(tmp_path, "nwb", poses)
    with pynwb.NWBHDF5IO(str(path), "r") as file:
        behavior = file.read().processing["behavior"]
        assert list(behavior["Skeletons"]["skeleton"].nodes[:]) == TAIL
        series = behavior["id_5"]["tail"]
        people = individuals_of(poses)
        assert np.array_equal(series.data[:], people.keypoints[:, 1, 3], equal_nan=True)
        assert np.array_equal(series.confidence[:], people.score[:, 1, 3])
        assert series.timestamps[:].tolist() == poses.time.tolist()


# Tracks


def test_tapvid_clips_are_fractions_from_the_corner(tmp_path):
    study = video_study(tmp_path)
    assert study.build("tracks", overrides={"tracks": {"tracker": "lk", "grid": 3}}).ok
    made = export_tapvid(study, tmp_path / "out")
    assert (made.files, made.without) == (1, 0)
    clips = pickle.loads((tmp_path / "out" / "a" / "0.pkl").read_bytes())
    tracks = study.tracks("a", view=0)
    assert len(clips) == sum(tracks.valid.any(1))
    for (name, clip), window in zip(clips.items(), np.flatnonzero(tracks.valid.any(1)), strict=True):
        frames = tracks.frame[window][tracks.frame_valid[window]]
        assert name == f"a/0/{frames[0]}"
        shape = (tracks.valid[window].sum(), len(frames))
        assert clip["points"].shape == (*shape, 2)
        assert clip["occluded"].shape == shape
        # TAP-Vid: pixel = fraction * size, and the center of the first pixel is 0.5.
        pixels = clip["points"] * [WIDTH, HEIGHT] - 0.5
        for point, slot in enumerate(np.flatnonzero(tracks.valid[window])):
            assert np.allclose(pixels[point], tracks.xy[window][: len(frames), slot], atol=1e-4)
            assert clip["occluded"][point].tolist() == (~tracks.visible[window][: len(frames), slot]).tolist()
