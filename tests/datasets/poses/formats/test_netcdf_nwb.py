"""netCDF of movement and NWB of ndx-pose: valid and damaged files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from pose_h5_files import netcdf_file, nwb_file

from actionprep.datasets.poses.formats import detect_format, read_poses
from actionprep.datasets.poses.skeletons import skeleton
from actionprep.errors import InputError


def test_netcdf_positions_scores_and_times(tmp_path):
    path = netcdf_file(tmp_path / "cage.nc")
    assert detect_format(path) == "netcdf"
    [item] = read_poses(path)
    assert (item.recording, item.extra["individuals"]) == ("cage", ["m", "f"])
    assert skeleton(item.poses.skeleton).joints == ("snout", "tail")
    # Frame 1, individual f, tail: 100 + 10 + 1 + 2.
    assert item.poses.keypoints[1, 1, 1].tolist() == [113.0, 113.5]
    assert item.poses.score[1].tolist() == [[0.5, 0.5], [1.0, 0.5]]
    assert np.argwhere(item.poses.score == 0).tolist() == [[2, 0, 1]]
    assert item.poses.time.tolist() == [0.0, 0.1, 0.3]
    assert item.poses.frame_index.tolist() == [0, 1, 2]


def change(path, what):
    with h5py.File(path, "a") as file:
        what(file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda file: file.__delitem__("position"),
            "is no poses dataset of movement: it has no 'position'. It has confidence, individuals",
        ),
        (lambda file: file["space"].__setitem__(0, "z"), "'space' in .*x.nc is z, y; expected x, y or x, y, z"),
        (lambda file: file["time"].__setitem__(1, 9.0), "The times in .*x.nc must be finite and rise"),
        (
            lambda file: file["position"].dims[1].detach_scale(file["space"]),
            "'position' in .*x.nc has the dimensions time, , keypoints, individuals; expected time, space, keypoints",
        ),
    ],
)
def test_netcdf_damaged_file_is_refused(tmp_path, damage, message):
    path = netcdf_file(tmp_path / "x.nc")
    change(path, damage)
    with pytest.raises(InputError, match=message):
        list(read_poses(path))


def test_netcdf_3_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "x.nc").write_bytes(b"CDF\x01" + bytes(60))
    with pytest.raises(InputError, match=r"x\.nc is netCDF 3\. Write it as netCDF 4: ds\.to_netcdf\(path, engine="):
        list(read_poses(tmp_path / "x.nc"))


def test_nwb_joints_in_the_order_of_the_skeleton(tmp_path):
    path = nwb_file(tmp_path / "day.nwb")
    assert detect_format(path) == "nwb"
    [item] = read_poses(path)
    layout = skeleton(item.poses.skeleton)
    assert (item.recording, layout.joints, layout.limbs) == ("day", ("tail", "nose"), ((0, 1),))
    assert item.poses.keypoints[1, 0].tolist() == [[15, 16], [5, 6]]
    assert item.poses.score[:, 0] == pytest.approx(np.array([[0.9, 0.9], [0.8, 0.8], [0, 0]]))
    assert item.poses.time.tolist() == [2.0, 2.5, 3.0]


def test_nwb_times_by_start_and_rate(tmp_path):
    path = nwb_file(tmp_path / "day.nwb")

    def by_rate(file):
        for name in ("nose", "tail"):
            series = file[f"processing/behavior/PoseEstimation/{name}"]
            del series["timestamps"]
            series["starting_time"] = 1.0
            series["starting_time"].attrs["rate"] = 4.0

    change(path, by_rate)
    [item] = read_poses(path)
    assert item.poses.time.tolist() == [1.0, 1.25, 1.5]


POSE = "processing/behavior/PoseEstimation"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file[POSE].attrs.__delitem__("neurodata_type"), "has no PoseEstimation of ndx-pose in its proc"),
        (lambda file: file.__delitem__(f"{POSE}/tail/timestamps"), None),
        (lambda file: file.__delitem__(f"{POSE}/nose/timestamps"), "nose' in .*x.nwb has neither timestamps nor"),
        (lambda file: file.__delitem__(f"{POSE}/nose/data"), "has no 'processing/behavior/PoseEstimation/nose/data'"),
    ],
)
def test_nwb_damaged_file_is_refused(tmp_path, damage, message):
    path = nwb_file(tmp_path / "x.nwb")
    change(path, damage)
    if message is None:
        message = "PoseEstimation/tail' in .*x.nwb has neither timestamps nor starting_time"
    with pytest.raises(InputError, match=message):
        list(read_poses(path))


def test_nwb_link_to_another_file_is_refused(tmp_path):
    path = nwb_file(tmp_path / "x.nwb")

    def link(file):
        del file[f"{POSE}/skeleton"]
        file[f"{POSE}/skeleton"] = h5py.ExternalLink("other.nwb", "/processing")

    change(path, link)
    with pytest.raises(InputError, match=r"PoseEstimation/skeleton' in .*x.nwb is a link to another file"):
        list(read_poses(path))
